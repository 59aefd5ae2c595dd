//! Bringing the source into a build's Pod. This file decides how an inline source travels (JSON, zstd, base64, in pieces
//! small enough for environment variables), which paths it may have, and whether a Build's context and dockerfile point
//! at something inside the source. Paths are judged after symlinks are followed: a link out of the source is no way out.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image_factory_core::report::PodFailure;

/// Of all files of an inline source together: names and contents.
pub const MAX_INLINE_BYTES: usize = 256 * 1024;

/// An environment variable with its name stays under the kernel's 128 KiB with room to spare.
pub const MAX_CHUNK_BYTES: usize = 96 * 1024 - 1;

/// JSON may write a byte as six; nothing honest is longer.
const MAX_DOCUMENT_BYTES: usize = 8 * MAX_INLINE_BYTES;
const MAX_PATH_BYTES: usize = 1_024;
/// How many names a sentence lists of what is there instead.
const MAX_LISTED: usize = 8;

#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("{0}")]
    InvalidSpec(String),
    #[error("{0}")]
    DockerfileNotFound(String),
    #[error("failed to unpack the inline source: {0}")]
    Encoding(String),
    #[error("failed to {action} {path}: {error}")]
    Io { action: &'static str, path: String, error: io::Error },
}

impl SourceError {
    pub fn reason(&self) -> &'static str {
        match self {
            Self::InvalidSpec(_) => "InvalidSpec",
            Self::DockerfileNotFound(_) => "DockerfileNotFound",
            Self::Encoding(_) | Self::Io { .. } => "Internal",
        }
    }

    fn io(action: &'static str, path: &Path, error: io::Error) -> Self {
        Self::Io { action, path: path.display().to_string(), error }
    }
}

impl From<&SourceError> for PodFailure {
    fn from(error: &SourceError) -> Self {
        Self::new(error.reason(), error.to_string())
    }
}

/// The pieces of an inline source, each the value of one environment variable. Base64 holds nothing that Kubernetes would
/// expand.
pub fn encode_inline(files: &BTreeMap<String, String>) -> Vec<String> {
    let packed = pack(files);
    let text = STANDARD.encode(packed);
    text.as_bytes().chunks(MAX_CHUNK_BYTES).map(|chunk| String::from_utf8_lossy(chunk).into_owned()).collect()
}

#[expect(clippy::expect_used, reason = "a map of strings always serializes, and memory takes every write")]
fn pack(files: &BTreeMap<String, String>) -> Vec<u8> {
    let document = serde_json::to_vec(files).expect("strings serialize");
    zstd::encode_all(document.as_slice(), zstd::DEFAULT_COMPRESSION_LEVEL)
        .expect("compressing into memory does not fail")
}

pub fn decode_inline(chunks: &[String]) -> Result<BTreeMap<String, String>, SourceError> {
    let broken = |error: &dyn std::fmt::Display| SourceError::Encoding(error.to_string());
    let packed = STANDARD.decode(chunks.concat()).map_err(|error| broken(&error))?;
    let unpacked = zstd::Decoder::new(packed.as_slice()).map_err(|error| broken(&error))?;
    let mut document = Vec::new();
    unpacked.take(MAX_DOCUMENT_BYTES as u64 + 1).read_to_end(&mut document).map_err(|error| broken(&error))?;
    if document.len() > MAX_DOCUMENT_BYTES {
        return Err(SourceError::Encoding(format!("it is larger than {MAX_DOCUMENT_BYTES} bytes")));
    }
    serde_json::from_slice(&document).map_err(|error| broken(&error))
}

/// The rules an inline source must keep: what the operator asks before it takes a Build, and the Pod again before it writes.
pub fn check_inline(files: &BTreeMap<String, String>) -> Result<(), SourceError> {
    let refuse = |sentence: String| Err(SourceError::InvalidSpec(sentence));
    if files.is_empty() {
        return refuse("spec.source.inline.files is empty".into());
    }
    let total: usize = files.iter().map(|(path, text)| path.len() + text.len()).sum();
    if total > MAX_INLINE_BYTES {
        return refuse(format!("spec.source.inline.files has {total} bytes, at most {MAX_INLINE_BYTES} are accepted"));
    }
    for path in files.keys() {
        if let Some(problem) = path_problem(path) {
            return refuse(format!("spec.source.inline.files has the path {path:?}: {problem}"));
        }
        let parents = path.match_indices('/').map(|(at, _)| &path[..at]);
        if let Some(parent) = parents.into_iter().find(|parent| files.contains_key(*parent)) {
            return refuse(format!(
                "spec.source.inline.files has {parent:?} both as a file and as a folder, of {path:?}"
            ));
        }
    }
    Ok(())
}

/// Only plain names joined by single slashes: one file has one spelling.
fn path_problem(path: &str) -> Option<&'static str> {
    if path.is_empty() {
        Some("it is empty")
    } else if path.len() > MAX_PATH_BYTES {
        Some("it is longer than 1024 bytes")
    } else if path.contains('\0') {
        Some("it has a NUL character")
    } else if path.starts_with('/') {
        Some("it is absolute, and must be relative to the source")
    } else if path.split('/').any(|name| name == "..") {
        Some("it has a part \"..\"")
    } else if path.split('/').any(|name| name.is_empty() || name == ".") {
        Some("it has an empty part or a part \".\"")
    } else if path.split('/').any(|name| name.len() > 255) {
        Some("it has a name longer than 255 bytes")
    } else {
        None
    }
}

/// Writes the files under `folder`. Nothing that is there is replaced, and no symlink there is followed.
pub fn write_inline(folder: &Path, files: &BTreeMap<String, String>) -> Result<(), SourceError> {
    check_inline(files)?;
    for (path, text) in files {
        let mut place = folder.to_owned();
        let mut names = path.split('/').peekable();
        while let Some(name) = names.next() {
            place.push(name);
            if names.peek().is_some() {
                make_folder(&place)?;
            }
        }
        // create_new follows no symlink, dangling ones included.
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&place)
            .map_err(|error| SourceError::io("create the file", &place, error))?;
        file.write_all(text.as_bytes()).map_err(|error| SourceError::io("write the file", &place, error))?;
    }
    Ok(())
}

fn make_folder(place: &Path) -> Result<(), SourceError> {
    match fs::create_dir(place) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let found = fs::symlink_metadata(place).map_err(|error| SourceError::io("look at", place, error))?;
            if found.is_dir() { Ok(()) } else { Err(SourceError::io("create the folder", place, error)) }
        }
        Err(error) => Err(SourceError::io("create the folder", place, error)),
    }
}

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

fn check_relative(field: &str, path: &str) -> Result<(), SourceError> {
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
fn resolve(field: &str, path: &str, folder: &Path, source: &Path) -> Result<Option<PathBuf>, SourceError> {
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
fn listing(what: &str, folder: &Path) -> String {
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
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicU32, Ordering};

    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let name = format!("source-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).expect("makes the folder");
            Self(path.canonicalize().expect("is there"))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn files(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
    }

    fn shop() -> Folder {
        let folder = Folder::new();
        write_inline(
            &folder.0,
            &files(&[("Dockerfile", "FROM scratch"), ("app/Containerfile", "FROM scratch"), ("app/src/main", "")]),
        )
        .expect("writes");
        folder
    }

    fn refused(source: &Folder, context: &str, dockerfile: &str) -> (&'static str, String) {
        let error = check_paths(&source.0, context, Some(dockerfile)).expect_err("is refused");
        (error.reason(), error.to_string())
    }

    #[test]
    fn an_inline_source_is_written_as_it_was_given() {
        let folder = shop();
        assert_eq!(fs::read_to_string(folder.0.join("app/Containerfile")).expect("reads"), "FROM scratch");
        assert_eq!(fs::read(folder.0.join("app/src/main")).expect("reads"), b"");
    }

    #[test]
    fn paths_that_are_no_plain_names_are_refused() {
        let long_name = "n".repeat(256);
        let long_path = "a/".repeat(600) + "b";
        for (path, problem) in [
            ("", "it is empty"),
            ("/etc/passwd", "it is absolute"),
            ("../up", "it has a part \"..\""),
            ("a/../../up", "it has a part \"..\""),
            ("a/..", "it has a part \"..\""),
            ("./a", "a part \".\""),
            ("a//b", "an empty part"),
            ("a/", "an empty part"),
            ("a\0b", "NUL"),
            (long_name.as_str(), "longer than 255"),
            (long_path.as_str(), "longer than 1024"),
        ] {
            let error = check_inline(&files(&[(path, "")])).expect_err("is refused");
            assert_eq!(error.reason(), "InvalidSpec");
            assert!(error.to_string().contains(problem), "{path:?}: {error}");
        }
        for path in ["..a", "a..", "a b/ü", "-flag", ".dockerignore", "a\\b"] {
            assert!(check_inline(&files(&[(path, "")])).is_ok(), "{path:?}");
        }
    }

    #[test]
    fn a_name_cannot_be_a_file_and_a_folder() {
        let error = check_inline(&files(&[("a", ""), ("a-b", ""), ("a/b", "")])).expect_err("is refused");
        assert!(error.to_string().contains("\"a\" both as a file and as a folder"), "{error}");
    }

    #[test]
    fn the_cap_counts_names_and_contents() {
        let at_cap = "x".repeat(MAX_INLINE_BYTES - 1);
        assert!(check_inline(&files(&[("a", &at_cap)])).is_ok());
        let error = check_inline(&files(&[("ab", &at_cap)])).expect_err("is refused");
        assert_eq!(error.to_string(), "spec.source.inline.files has 262145 bytes, at most 262144 are accepted");
        assert!(check_inline(&BTreeMap::new()).is_err());
    }

    #[test]
    fn nothing_is_written_through_a_symlink() {
        let (folder, outside) = (Folder::new(), Folder::new());
        symlink(&outside.0, folder.0.join("link")).expect("links");
        symlink(outside.0.join("new"), folder.0.join("file")).expect("links");
        assert!(write_inline(&folder.0, &files(&[("link/a", "x")])).is_err());
        assert!(write_inline(&folder.0, &files(&[("file", "x")])).is_err());
        assert_eq!(fs::read_dir(&outside.0).expect("lists").count(), 0);
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

    #[test]
    fn broken_pieces_are_refused() {
        for chunks in [vec![], vec!["%%%".to_owned()], vec![STANDARD.encode("not zstd")]] {
            assert!(matches!(decode_inline(&chunks), Err(SourceError::Encoding(_))), "{chunks:?}");
        }
        // A small piece that would unpack to far more than anyone may send.
        let bomb = zstd::encode_all(vec![b' '; 64 * 1024 * 1024].as_slice(), 3).expect("packs");
        let error = decode_inline(&[STANDARD.encode(bomb)]).expect_err("is refused");
        assert!(error.to_string().contains("larger than"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn an_inline_source_survives_its_way_through_the_environment(
            files in proptest::collection::btree_map(".{1,40}", ".{0,3000}", 0..20),
        ) {
            let chunks = encode_inline(&files);
            prop_assert!(chunks.iter().all(|chunk| chunk.len() < 96 * 1024 && !chunk.contains('$')));
            prop_assert_eq!(decode_inline(&chunks).expect("decodes"), files);
        }

        #[test]
        fn a_source_that_does_not_compress_is_cut_into_pieces(
            bytes in proptest::collection::vec(any::<u8>(), 90_000..130_000),
        ) {
            let noise = bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
            let files = BTreeMap::from([("noise".to_owned(), noise)]);
            let chunks = encode_inline(&files);
            prop_assert!(chunks.len() >= 2);
            prop_assert!(chunks.iter().all(|chunk| chunk.len() < 96 * 1024));
            prop_assert_eq!(decode_inline(&chunks).expect("decodes"), files);
        }
    }
}
