//! The inline source: how it travels (JSON, zstd, base64, in pieces small enough for environment variables), which paths
//! it may have, and how it is written without leaving its folder.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::SourceError;

/// Of all files of an inline source together: names and contents.
pub const MAX_INLINE_BYTES: usize = 256 * 1024;

/// An environment variable with its name stays under the kernel's 128 KiB with room to spare.
const MAX_CHUNK_BYTES: usize = 96 * 1024 - 1;

/// JSON may write a byte as six; nothing honest is longer.
const MAX_DOCUMENT_BYTES: usize = 8 * MAX_INLINE_BYTES;
const MAX_PATH_BYTES: usize = 1_024;

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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::super::scratch::Folder;
    use super::*;

    fn files(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn an_inline_source_is_written_as_it_was_given() {
        let folder = Folder::new();
        write_inline(&folder.0, &files(&[("app/Containerfile", "FROM scratch"), ("app/src/main", "")]))
            .expect("writes");
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
