//! What `inspect` found in the registry: the digest as the registry confirms it, and every image under it with its
//! layers and configuration. One JSON document, printed as one line. This file decides its fields, which environment
//! values are hidden, and what is left out when an image describes itself at unreasonable length.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::report::{ReportError, VERSION, decode, json, shortened};

/// Far over what any ordinary image needs, and small enough to be read from a Pod's log in one piece.
pub const MAX_BYTES: usize = 1024 * 1024;

const MASK: &str = "***";
/// What a text is shortened to, where the whole document would otherwise be too long.
const SHORT_TEXT_BYTES: usize = 120;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    pub version: u32,
    /// Repository and tag that were asked for.
    pub reference: String,
    /// The digest under which the registry keeps what was pushed: equal to the builder's own word, or there is no inspection.
    pub digest: String,
    pub media_type: String,
    pub kind: ManifestKind,
    pub images: Vec<ImageFacts>,
    /// Compressed layers of all images together, a layer they share counted once.
    pub total_size_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ManifestKind {
    Image,
    Index,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFacts {
    /// `os/architecture` or `os/architecture/variant`.
    pub platform: String,
    pub manifest_digest: String,
    pub config_digest: String,
    pub layers: Vec<LayerFacts>,
    pub compressed_size_bytes: u64,
    #[serde(default)]
    pub entrypoint: Vec<String>,
    #[serde(default)]
    pub cmd: Vec<String>,
    /// `NAME=value`; the value of a name that looks secret is masked.
    #[serde(default)]
    pub env: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// RFC 3339, as the builder wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerFacts {
    pub digest: String,
    pub size_bytes: u64,
    pub media_type: String,
    /// The instruction that made it, from the image's own history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
}

impl Inspection {
    /// One line of at most [`MAX_BYTES`]. An image that describes itself at greater length keeps its digests and sizes
    /// and loses the rest of its words.
    pub fn encode(&self) -> Result<String, ReportError> {
        let whole = json(self);
        if whole.len() <= MAX_BYTES {
            return Ok(whole);
        }
        let mut brief = self.clone();
        for image in &mut brief.images {
            for texts in [&mut image.entrypoint, &mut image.cmd, &mut image.env] {
                texts.clear();
            }
            image.labels.clear();
            image.working_dir = image.working_dir.as_deref().map(|text| shortened(text, SHORT_TEXT_BYTES));
            image.created = image.created.as_deref().map(|text| shortened(text, SHORT_TEXT_BYTES));
            for layer in &mut image.layers {
                layer.created_by = layer.created_by.as_deref().map(|text| shortened(text, SHORT_TEXT_BYTES));
            }
        }
        let brief = json(&brief);
        if brief.len() <= MAX_BYTES {
            return Ok(brief);
        }
        Err(ReportError::Unwritable { found: brief.len(), limit: MAX_BYTES })
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, ReportError> {
        decode(bytes, MAX_BYTES)
    }

    pub fn new(
        reference: String,
        digest: String,
        media_type: String,
        kind: ManifestKind,
        images: Vec<ImageFacts>,
    ) -> Self {
        let distinct: BTreeMap<&str, u64> = images
            .iter()
            .flat_map(|image| &image.layers)
            .map(|layer| (layer.digest.as_str(), layer.size_bytes))
            .collect();
        let total_size_bytes = distinct.values().fold(0, |sum: u64, size| sum.saturating_add(*size));
        Self { version: VERSION, reference, digest, media_type, kind, images, total_size_bytes }
    }
}

/// `NAME=value` with the value hidden where the name looks as if it held a secret. An image's environment is public to
/// whoever can pull it, and still no reason to copy a password into a database.
pub fn masked(variable: &str) -> String {
    match variable.split_once('=') {
        Some((name, value)) if !value.is_empty() && looks_secret(name) => format!("{name}={MASK}"),
        _ => variable.to_owned(),
    }
}

/// Whether one of the words of a variable's name says that its value is a secret.
fn looks_secret(name: &str) -> bool {
    const WORDS: [&str; 12] = [
        "password",
        "passwd",
        "passphrase",
        "secret",
        "token",
        "credential",
        "credentials",
        "apikey",
        "auth",
        "pwd",
        "pass",
        "key",
    ];
    let name = name.to_ascii_lowercase();
    name.split(|character: char| !character.is_ascii_alphanumeric()).any(|word| WORDS.contains(&word))
        || ["password", "passwd", "secret", "token", "apikey"].iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(layers: Vec<LayerFacts>) -> ImageFacts {
        ImageFacts {
            platform: "linux/arm64/v8".into(),
            manifest_digest: "sha256:a".into(),
            config_digest: "sha256:b".into(),
            compressed_size_bytes: layers.iter().map(|layer| layer.size_bytes).sum(),
            layers,
            entrypoint: vec!["/server".into()],
            cmd: vec![],
            env: vec!["PATH=/bin".into()],
            working_dir: Some("/".into()),
            created: None,
            labels: BTreeMap::from([("team".into(), "shop".into())]),
        }
    }

    fn layer(digest: &str, size_bytes: u64) -> LayerFacts {
        LayerFacts { digest: digest.into(), size_bytes, media_type: "m".into(), created_by: Some("RUN make".into()) }
    }

    fn inspection(images: Vec<ImageFacts>) -> Inspection {
        Inspection::new(
            "registry.example/shop/web:1".into(),
            "sha256:c".into(),
            "t".into(),
            ManifestKind::Index,
            images,
        )
    }

    #[test]
    fn an_inspection_is_one_line_and_survives_it() {
        let found = inspection(vec![image(vec![layer("sha256:1", 10)])]);
        let line = found.encode().expect("encodes");
        assert!(!line.contains('\n'));
        assert_eq!(Inspection::decode(line.as_bytes()), Ok(found));
    }

    #[test]
    fn a_layer_that_platforms_share_is_counted_once() {
        let found = inspection(vec![
            image(vec![layer("sha256:1", 10), layer("sha256:2", 5)]),
            image(vec![layer("sha256:1", 10)]),
        ]);
        assert_eq!(found.total_size_bytes, 15);
    }

    #[test]
    fn an_image_that_says_too_much_keeps_its_digests() {
        let mut wordy = image(vec![layer("sha256:1", 10)]);
        wordy.layers[0].created_by = Some("x".repeat(MAX_BYTES));
        wordy.labels.insert("story".into(), "y".repeat(MAX_BYTES));
        let line = inspection(vec![wordy]).encode().expect("encodes");
        assert!(line.len() <= MAX_BYTES);
        let read = Inspection::decode(line.as_bytes()).expect("decodes");
        assert_eq!(read.images[0].layers[0].digest, "sha256:1");
        assert!(read.images[0].labels.is_empty());
    }

    #[test]
    fn values_whose_names_look_secret_are_masked() {
        for (variable, expected) in [
            ("DB_PASSWORD=hunter2", "DB_PASSWORD=***"),
            ("GITHUB_TOKEN=abc", "GITHUB_TOKEN=***"),
            ("npm_token=abc", "npm_token=***"),
            ("MYSECRET=x", "MYSECRET=***"),
            ("AWS_SECRET_ACCESS_KEY=a=b", "AWS_SECRET_ACCESS_KEY=***"),
            ("API_KEY=k", "API_KEY=***"),
            ("PATH=/usr/bin", "PATH=/usr/bin"),
            ("KEYBOARD=us", "KEYBOARD=us"),
            ("AUTHOR=team", "AUTHOR=team"),
            ("EMPTY_TOKEN=", "EMPTY_TOKEN="),
            ("no equals sign", "no equals sign"),
        ] {
            assert_eq!(masked(variable), expected);
        }
    }
}
