//! Puts a copy of this very binary where another container will run it.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const NAME: &str = "image-factory-agent";

pub fn install(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    // Under its name only once it is whole: a container that starts meanwhile must not run half a binary.
    let unfinished = folder.join(format!(".{NAME}.{}", std::process::id()));
    let installed = fs::copy(std::env::current_exe()?, &unfinished)
        .and_then(|_| fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o755)))
        .and_then(|()| fs::rename(&unfinished, folder.join(NAME)));
    if installed.is_err() {
        // The first error is the one that explains; a leftover that can't be removed either changes nothing.
        let _ = fs::remove_file(&unfinished);
    }
    installed
}
