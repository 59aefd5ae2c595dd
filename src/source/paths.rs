//! Whether a Build's context and dockerfile point at something inside the source. Paths are judged after symlinks are
//! followed: a link out of the source is no way out. A refusal says what is there instead.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::SourceError;

/// How many names a sentence lists of what is there instead.
const MAX_LISTED: usize = 8;

/// Where the context and the dockerfile really are.
#[derive(Debug, PartialEq, Eq)]
pub struct CheckedPaths {
    pub context: PathBuf,
    pub dockerfile: Option<PathBuf>,
}

/// Whether `context` is a folder of the source and `dockerfile` a file in it. `dockerfile` is none for methods without one.
pub fn check_paths(source: &Path, context: &str, dockerfile: Option<&str>) -> Result<CheckedPaths, SourceError> {
    let source = source.canonicalize().map_err(|error| SourceError::io("find the source", source, error))?;

    check_relative("spec.context", context)?;
    let Some(folder) = resolve("spec.context", context, &source, &source)? else {
        return Err(SourceError::InvalidSpec(format!(
            "spec.context is {context:?}, which the source does not have; {}",
            listing("the source", &source)
        )));
    };
    if !folder.is_dir() {
        return Err(SourceError::InvalidSpec(format!(
            "spec.context is {context:?}, which is a file and must be a folder"
        )));
    }

    let Some(dockerfile) = dockerfile else {
        return Ok(CheckedPaths { context: folder, dockerfile: None });
    };
    check_relative("spec.dockerfile", dockerfile)?;
    let there = listing(&format!("the context {context:?}"), &folder);
    let Some(file) = resolve("spec.dockerfile", dockerfile, &folder, &source)? else {
        return Err(SourceError::DockerfileNotFound(format!(
            "spec.dockerfile is {dockerfile:?}, which the context does not have; {there}"
        )));
    };
    if !file.is_file() {
        return Err(SourceError::DockerfileNotFound(format!(
            "spec.dockerfile is {dockerfile:?}, which is not a file; {there}"
        )));
    }
    Ok(CheckedPaths { context: folder, dockerfile: Some(file) })
}

pub(super) fn check_relative(field: &str, path: &str) -> Result<(), SourceError> {
    let problem = if path.is_empty() {
        "which is empty"
    } else if path.contains('\0') {
        "which has a NUL character"
    } else if path.starts_with('/') {
        "which is absolute, and must be relative to the source"
    } else if Path::new(path).components().any(|part| part == Component::ParentDir) {
        "which has a part \"..\""
    } else {
        return Ok(());
    };
    Err(SourceError::InvalidSpec(format!("{field} is {path:?}, {problem}")))
}

/// The real path, none if there is nothing; an error if it lies outside `source`.
pub(super) fn resolve(field: &str, path: &str, folder: &Path, source: &Path) -> Result<Option<PathBuf>, SourceError> {
    let place = folder.join(path);
    let real = match place.canonicalize() {
        Ok(real) => real,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => {
            let sentence = format!("{field} is {path:?}, which cannot be followed: {error}");
            return Err(SourceError::InvalidSpec(sentence));
        }
    };
    if real.starts_with(source) {
        Ok(Some(real))
    } else {
        Err(SourceError::InvalidSpec(format!("{field} is {path:?}, which leads out of the source through a symlink")))
    }
}

/// "the source has Dockerfile, src and 3 more".
pub(super) fn listing(what: &str, folder: &Path) -> String {
    let mut names: Vec<String> = fs::read_dir(folder)
        .map(|entries| {
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().escape_debug().to_string()).collect()
        })
        .unwrap_or_default();
    names.sort_unstable();
    if names.is_empty() {
        return format!("{what} is empty");
    }
    let more = names.len().saturating_sub(MAX_LISTED);
    names.truncate(MAX_LISTED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{what} has {}{more}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::super::scratch::Folder;
    use super::*;

    fn shop() -> Folder {
        let folder = Folder::new();
        fs::create_dir_all(folder.0.join("app/src")).expect("makes folders");
        for file in ["Dockerfile", "app/Containerfile"] {
            fs::write(folder.0.join(file), "FROM scratch").expect("writes");
        }
        folder
    }

    fn refused(source: &Folder, context: &str, dockerfile: &str) -> (&'static str, String) {
        let error = check_paths(&source.0, context, Some(dockerfile)).expect_err("is refused");
        (error.reason(), error.to_string())
    }

    #[test]
    fn context_and_dockerfile_are_found_in_the_source() {
        let source = shop();
        for (context, dockerfile, expected) in [
            (".", "Dockerfile", "Dockerfile"),
            ("./app", "Containerfile", "app/Containerfile"),
            ("app/", "./Containerfile", "app/Containerfile"),
            (".", "app/Containerfile", "app/Containerfile"),
        ] {
            let checked = check_paths(&source.0, context, Some(dockerfile)).expect("is accepted");
            assert_eq!(checked.dockerfile, Some(source.0.join(expected)));
        }
        let without = check_paths(&source.0, "app", None).expect("is accepted");
        assert_eq!(without, CheckedPaths { context: source.0.join("app"), dockerfile: None });
    }

    #[test]
    fn a_refusal_names_the_field_and_what_is_there_instead() {
        let source = shop();
        for (context, dockerfile, reason, sentence) in [
            (
                "web",
                "Dockerfile",
                "InvalidSpec",
                "spec.context is \"web\", which the source does not have; the source has Dockerfile, app",
            ),
            (
                "Dockerfile",
                "Dockerfile",
                "InvalidSpec",
                "spec.context is \"Dockerfile\", which is a file and must be a folder",
            ),
            (
                "Dockerfile/x",
                "Dockerfile",
                "InvalidSpec",
                "spec.context is \"Dockerfile/x\", which the source does not have; the source has Dockerfile, app",
            ),
            ("", "Dockerfile", "InvalidSpec", "spec.context is \"\", which is empty"),
            (
                "/",
                "Dockerfile",
                "InvalidSpec",
                "spec.context is \"/\", which is absolute, and must be relative to the source",
            ),
            ("app/../..", "Dockerfile", "InvalidSpec", "spec.context is \"app/../..\", which has a part \"..\""),
            ("app", "../Dockerfile", "InvalidSpec", "spec.dockerfile is \"../Dockerfile\", which has a part \"..\""),
            (
                ".",
                "/Dockerfile",
                "InvalidSpec",
                "spec.dockerfile is \"/Dockerfile\", which is absolute, and must be relative to the source",
            ),
            (
                "app",
                "Dockerfile",
                "DockerfileNotFound",
                "spec.dockerfile is \"Dockerfile\", which the context does not have; the context \"app\" has Containerfile, src",
            ),
            (
                ".",
                "app",
                "DockerfileNotFound",
                "spec.dockerfile is \"app\", which is not a file; the context \".\" has Dockerfile, app",
            ),
        ] {
            assert_eq!(refused(&source, context, dockerfile), (reason, sentence.to_owned()));
        }
    }

    #[test]
    fn a_symlink_out_of_the_source_is_refused_and_one_inside_is_followed() {
        let (source, outside) = (shop(), Folder::new());
        fs::write(outside.0.join("Dockerfile"), "FROM other").expect("writes");
        symlink(&outside.0, source.0.join("out")).expect("links");
        symlink(outside.0.join("Dockerfile"), source.0.join("app/Linked")).expect("links");
        symlink("app", source.0.join("alias")).expect("links");
        symlink("circle", source.0.join("circle")).expect("links");
        assert_eq!(
            refused(&source, "out", "Dockerfile"),
            ("InvalidSpec", "spec.context is \"out\", which leads out of the source through a symlink".into())
        );
        assert_eq!(
            refused(&source, "app", "Linked"),
            ("InvalidSpec", "spec.dockerfile is \"Linked\", which leads out of the source through a symlink".into())
        );
        assert_eq!(refused(&source, "circle", "Dockerfile").0, "InvalidSpec");
        let checked = check_paths(&source.0, "alias", Some("Containerfile")).expect("is accepted");
        assert_eq!(checked.context, source.0.join("app"));
    }

    #[test]
    fn a_long_listing_is_cut() {
        let folder = Folder::new();
        for n in 10..30 {
            fs::write(folder.0.join(format!("f{n}")), "").expect("writes");
        }
        assert_eq!(listing("it", &folder.0), "it has f10, f11, f12, f13, f14, f15, f16, f17 and 12 more");
    }
}
