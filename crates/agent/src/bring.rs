//! Buildpacks out of their image: this runs in a container of that image, of which nothing is executed.

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use image_factory_core::report::{PodFailure, PrepareReport};

use crate::arguments::Bring;
use crate::tree;

/// Copies them, and leaves a report where it can't. An image without any is none of its business: who reads what was
/// brought says so, and knows which image it was.
pub fn run(bring: &Bring) -> ExitCode {
    let Err(error) = copy(&bring.from, &bring.to) else { return ExitCode::SUCCESS };
    let sentence = format!("failed to bring buildpacks from {}: {error}", bring.from.display());
    eprintln!("image-factory-agent: {sentence}");
    let report = PrepareReport::failed(PodFailure::new("Internal", sentence));
    if let Err(error) = fs::write(&bring.report, report.encode()) {
        eprintln!("image-factory-agent: failed to write the report to {}: {error}", bring.report.display());
    }
    ExitCode::FAILURE
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    // A Pod that is started anew begins anew.
    match fs::remove_dir_all(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::create_dir_all(to)?;
    if from.is_dir() { tree::copy(from, to, None) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_brought_before_gives_way_and_an_image_without_buildpacks_brings_none() {
        let base = std::env::temp_dir().join(format!("bring-test-{}", std::process::id()));
        fs::create_dir_all(base.join("from/a_b/1/bin")).expect("makes");
        fs::write(base.join("from/a_b/1/buildpack.toml"), "api").expect("writes");
        let bring = |from: &str| Bring { from: base.join(from), to: base.join("to/0"), report: base.join("report") };
        assert_eq!(format!("{:?}", run(&bring("from"))), format!("{:?}", ExitCode::SUCCESS));
        assert!(base.join("to/0/a_b/1/buildpack.toml").is_file());
        assert_eq!(format!("{:?}", run(&bring("missing"))), format!("{:?}", ExitCode::SUCCESS));
        assert_eq!(fs::read_dir(base.join("to/0")).expect("is there").count(), 0);

        fs::write(base.join("file"), "").expect("writes");
        let blocked = Bring { to: base.join("file/0"), ..bring("from") };
        assert_eq!(format!("{:?}", run(&blocked)), format!("{:?}", ExitCode::FAILURE));
        let report = PrepareReport::decode(&fs::read(base.join("report")).expect("reads")).expect("decodes");
        assert!(report.failure.is_some_and(|failure| failure.message.contains("failed to bring")));
        fs::remove_dir_all(base).expect("removes");
    }
}
