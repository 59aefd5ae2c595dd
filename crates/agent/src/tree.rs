//! Folders copied as they are for this user: files by their content and whether they can be executed, links as links.
//! Owners, other bits of a mode and special files are not carried over.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

const FOLDER: u32 = 0o755;
const PROGRAM: u32 = 0o755;
const FILE: u32 = 0o644;
const EXECUTABLE: u32 = 0o111;

/// Into `to`, which is made where it is not there. `skip`: the name of an entry at the top that is left out.
pub fn copy(from: &Path, to: &Path, skip: Option<&str>) -> io::Result<()> {
    make(to)?;
    // Folders still to be copied: nothing here is as deep as a path can be.
    let mut folders = vec![(from.to_owned(), to.to_owned())];
    while let Some((from_folder, to_folder)) = folders.pop() {
        for entry in fs::read_dir(&from_folder).map_err(|error| named(&from_folder, &error))? {
            let entry = entry?;
            if from_folder == from && skip.is_some_and(|skip| entry.file_name() == skip) {
                continue;
            }
            let (from, to) = (entry.path(), to_folder.join(entry.file_name()));
            let kind = entry.file_type()?;
            if kind.is_dir() {
                make(&to)?;
                folders.push((from, to));
            } else if kind.is_symlink() {
                fs::read_link(&from).and_then(|target| symlink(target, &to)).map_err(|error| named(&from, &error))?;
            } else if kind.is_file() {
                file(&from, &to).map_err(|error| named(&from, &error))?;
            }
        }
    }
    Ok(())
}

fn file(from: &Path, to: &Path) -> io::Result<()> {
    let is_program = fs::metadata(from)?.permissions().mode() & EXECUTABLE != 0;
    fs::copy(from, to)?;
    fs::set_permissions(to, Permissions::from_mode(if is_program { PROGRAM } else { FILE }))
}

/// Permissions apart from creation: the umask would take some away, and a volume's own bits would be inherited. Those of
/// a folder that is another's stay.
fn make(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(folder)
        .and_then(|()| fs::set_permissions(folder, Permissions::from_mode(FOLDER)))
        .map_err(|error| named(folder, &error))
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_copied_with_its_links_and_programs_and_without_what_is_skipped() {
        let base = std::env::temp_dir().join(format!("tree-test-{}", std::process::id()));
        let (from, to) = (base.join("from"), base.join("to"));
        for folder in [".git", "a/.git", "a/b"] {
            fs::create_dir_all(from.join(folder)).expect("makes");
        }
        for (name, mode) in [(".git/config", 0o644), ("a/.git/x", 0o600), ("a/b/run", 0o700), ("a/text", 0o666)] {
            fs::write(from.join(name), name).expect("writes");
            fs::set_permissions(from.join(name), Permissions::from_mode(mode)).expect("sets");
        }
        symlink("../nowhere", from.join("a/link")).expect("links");
        copy(&from, &to, Some(".git")).expect("copies");
        let mode = |name: &str| fs::metadata(to.join(name)).expect("is there").permissions().mode() & 0o7777;
        assert_eq!((mode("a"), mode("a/b/run"), mode("a/text"), mode("a/.git/x")), (0o755, 0o755, 0o644, 0o644));
        assert_eq!(fs::read_link(to.join("a/link")).expect("is a link"), Path::new("../nowhere"));
        assert!(!to.join(".git").exists());
        assert_eq!(fs::read_to_string(to.join("a/b/run")).expect("reads"), "a/b/run");
        fs::remove_dir_all(base).expect("removes");
    }
}
