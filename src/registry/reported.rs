//! The digest that a builder wrote down, from the file it wrote it into. The folder is the builder's, so nothing there is
//! trusted: only an ordinary file is read, only so much of it, and it is never repeated in a sentence.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::RegistryError;

/// buildx writes provenance into its document too.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// Where a builder writes the digest of what it pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DigestSource {
    /// `file:PATH`: nothing but the digest.
    File(PathBuf),
    /// `buildx:PATH`: the document of `--metadata-file`.
    Buildx(PathBuf),
    /// `lifecycle:PATH`: the document of the exporter's `-report`.
    Lifecycle(PathBuf),
}

impl FromStr for DigestSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            Some(("buildx", path)) if !path.is_empty() => Ok(Self::Buildx(path.into())),
            Some(("lifecycle", path)) if !path.is_empty() => Ok(Self::Lifecycle(path.into())),
            _ => Err("it must be file:PATH, buildx:PATH or lifecycle:PATH".into()),
        }
    }
}

impl DigestSource {
    pub fn read(&self) -> Result<String, RegistryError> {
        let (path, digest) = match self {
            Self::File(path) => (path, read(path)?.trim_ascii().to_owned()),
            Self::Buildx(path) => {
                let document: serde_json::Value = serde_json::from_slice(&read(path)?).unwrap_or_default();
                (path, document["containerimage.digest"].as_str().unwrap_or_default().as_bytes().to_owned())
            }
            Self::Lifecycle(path) => {
                let text = String::from_utf8(read(path)?).unwrap_or_default();
                let report: toml::Table = toml::from_str(&text).unwrap_or_default();
                let digest = report.get("image").and_then(|image| image.get("digest")).and_then(toml::Value::as_str);
                (path, digest.unwrap_or_default().as_bytes().to_owned())
            }
        };
        let digest = String::from_utf8(digest).unwrap_or_default();
        is_digest(&digest).then_some(digest).ok_or_else(|| {
            RegistryError::NotReported(format!(
                "the builder ended well, but what it left in {} holds no sha256 digest",
                path.display()
            ))
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, RegistryError> {
    ordinary_file(path, MAX_FILE_BYTES).map_err(|problem| {
        RegistryError::NotReported(format!(
            "the builder ended well, but the digest of what it pushed is not in {}: {problem}",
            path.display()
        ))
    })
}

/// What a file of the volume holds, or why it is not read.
pub fn ordinary_file(path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    // Without following: a link could lead to a file of ours, a pipe would never end.
    let found = fs::symlink_metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => "it wrote no such file".to_owned(),
        _ => error.to_string(),
    })?;
    if !found.is_file() {
        return Err("that is not an ordinary file".to_owned());
    }
    if found.len() > limit {
        return Err("that file is too large".to_owned());
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)).map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// `sha256:` and 64 hexadecimal digits in lower case.
pub fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    struct Out(PathBuf);

    impl Out {
        fn new(test: &str) -> Self {
            let path = std::env::temp_dir().join(format!("reported-test-{test}-{}", std::process::id()));
            fs::create_dir_all(&path).expect("makes the folder");
            Self(path)
        }

        fn source(&self, kind: &str, text: &str) -> DigestSource {
            fs::write(self.0.join("file"), text).expect("writes");
            format!("{kind}:{}", self.0.join("file").display()).parse().expect("parses")
        }
    }

    impl Drop for Out {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn each_builder_has_its_own_way_to_write_it_down() {
        let out = Out::new("ways");
        assert_eq!(out.source("file", DIGEST).read().expect("reads"), DIGEST);
        assert_eq!(out.source("file", &format!("{DIGEST}\n")).read().expect("reads"), DIGEST);
        let document = format!(r#"{{"containerimage.digest": "{DIGEST}", "image.name": "reg.example/a:1"}}"#);
        assert_eq!(out.source("buildx", &document).read().expect("reads"), DIGEST);
        let report = format!("[build]\n\n[image]\n  tags = [\"reg.example/a:1\"]\n  digest = \"{DIGEST}\"\n");
        assert_eq!(out.source("lifecycle", &report).read().expect("reads"), DIGEST);
    }

    #[test]
    fn what_is_no_digest_is_refused_and_not_repeated() {
        let out = Out::new("refused");
        let upper = DIGEST.to_uppercase();
        let long = format!("{DIGEST}0");
        for (kind, text) in [
            ("file", ""),
            ("file", "hunter2"),
            ("file", &DIGEST[..70]),
            ("file", &long),
            ("file", &upper),
            ("file", "sha512:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"),
            ("buildx", DIGEST),
            ("buildx", "{}"),
            ("buildx", r#"{"containerimage.digest": "hunter2"}"#),
            ("buildx", r#"{"containerimage.digest": ["hunter2"]}"#),
            ("lifecycle", DIGEST),
            ("lifecycle", "[image]\ndigest = \"hunter2\""),
            ("lifecycle", "digest = \"hunter2\""),
        ] {
            let error = out.source(kind, text).read().expect_err("is refused");
            assert_eq!(error.reason(), "PushFailed");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn only_an_ordinary_file_is_read() {
        let out = Out::new("ordinary");
        fs::write(out.0.join("secret"), DIGEST).expect("writes");
        symlink(out.0.join("secret"), out.0.join("link")).expect("links");
        for (name, problem) in
            [("missing", "no such file"), ("link", "not an ordinary file"), ("", "not an ordinary file")]
        {
            let error = DigestSource::File(out.0.join(name)).read().expect_err("is refused");
            assert!(error.to_string().contains(problem), "{name}: {error}");
        }
    }

    #[test]
    fn other_sources_are_refused() {
        for text in ["", "file", "file:", "stdout:/x", "/x"] {
            assert!(text.parse::<DigestSource>().is_err(), "{text:?}");
        }
    }
}
