//! What `inspect` found in the registry: the digest as the registry confirms it, and every image under it with its
//! layers, history and configuration. One JSON document, printed as one line. This file decides its fields and what is
//! left out, in which order, when an image describes itself at unreasonable length.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::report::{ReportError, VERSION, decode, json, shortened};

/// Far over what any ordinary image needs, and small enough to be read from a Pod's log in one piece.
pub const MAX_BYTES: usize = 1024 * 1024;

/// What the text of an instruction is shortened to, where the whole document would otherwise be too long.
const SHORT_TEXT_BYTES: usize = 120;
/// Names of fixed form, which an image could still write at any length.
const MAX_NAME_BYTES: usize = 128;
/// The longest path that Linux takes.
const MAX_PATH_BYTES: usize = 4096;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    pub version: u32,
    /// Repository and tag that were asked for.
    pub reference: String,
    /// The further tags of that repository that stand for the same digest, of those that were asked for.
    #[serde(default)]
    pub tags: Vec<String>,
    /// The digest under which the registry keeps what was pushed: equal to the builder's own word, or there is no inspection.
    pub digest: String,
    pub media_type: String,
    pub kind: ManifestKind,
    pub images: Vec<ImageFacts>,
    /// What was pushed beside the images and tells of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attestations: Vec<Attestation>,
    /// Compressed layers of all images together, a layer they share counted once.
    pub total_size_bytes: u64,
    /// What the build left behind beside the image: what Packer says that it made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<Artifact>,
    /// How long the push took, where it was made here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push_milliseconds: Option<u64>,
    /// What this document does not say because it would have been too long.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<Part>,
}

/// An in-toto statement about one of the images, kept as a layer of a manifest of its own:
/// <https://github.com/moby/buildkit/blob/v0.28.1/docs/attestations/attestation-storage.md>.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attestation {
    pub kind: AttestationKind,
    /// Of the image it tells of.
    pub platform: String,
    /// Of the statement itself, and its length.
    pub digest: String,
    pub size_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttestationKind {
    Sbom,
    Provenance,
}

impl AttestationKind {
    /// Of a statement whose predicate is of this type; none where it is of another kind.
    pub fn of(predicate_type: &str) -> Option<Self> {
        if predicate_type.starts_with("https://spdx.dev/") || predicate_type.starts_with("https://cyclonedx.org/") {
            Some(Self::Sbom)
        } else if predicate_type.starts_with("https://slsa.dev/provenance/") {
            Some(Self::Provenance)
        } else {
            None
        }
    }

    /// `build_artifacts.artifact_type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sbom => "sbom",
            Self::Provenance => "provenance",
        }
    }
}

/// Something that a build left: a file of its image, or what it made elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Path in the image; builder and source of what is elsewhere: `amazon-ebs.web`.
    pub name: String,
    /// What it is called elsewhere: `eu-central-1:ami-0abc`. None for a file of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// `sha256:…` of the file's content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ManifestKind {
    Image,
    Index,
}

/// A part that is left out of a document that is too long, the first of them first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// The labels, and the ends of long instructions.
    Labels,
    /// Entrypoint, cmd, environment and working directory.
    Configuration,
    History,
    /// The layers of all images but the first; `layer_count` stays.
    Layers,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFacts {
    /// `os/architecture` or `os/architecture/variant`.
    pub platform: String,
    pub manifest_digest: String,
    pub config_digest: String,
    /// The lowest first.
    pub layers: Vec<LayerFacts>,
    #[serde(default)]
    pub layer_count: u64,
    /// Sum of the layers, as the registry keeps them.
    pub compressed_size_bytes: u64,
    /// What the image is built on. None where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<BaseFacts>,
    /// Every instruction that the image's configuration tells of, base image included, the oldest first.
    #[serde(default)]
    pub history: Vec<HistoryEntry>,
    #[serde(default)]
    pub entrypoint: Vec<String>,
    #[serde(default)]
    pub cmd: Vec<String>,
    /// `NAME=value`, the value masked where it looks like a secret ([`crate::environment::masked`]).
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

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerFacts {
    /// Of the layer as the registry keeps it.
    pub digest: String,
    pub size_bytes: u64,
    pub media_type: String,
    /// Digest of the layer unpacked, by which the same content is known however it was compressed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff_id: Option<String>,
    /// Its size unpacked. None where it was not read, or not to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uncompressed_size_bytes: Option<u64>,
}

/// An instruction of the image's history.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// In the builder's own words: `RUN /bin/sh -c make # buildkit`, `/bin/sh -c make`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Which of the image's layers it made, counted from 0. None where it made none, and throughout where the history
    /// does not tell of as many layers as there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<u32>,
}

/// What the final stage is built `FROM`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum BaseFacts {
    /// On nothing: no layer is a base layer.
    Scratch,
    Image {
        /// With its registry, as it was written otherwise: `docker.io/library/alpine`.
        repository: String,
        /// None where it was named by its digest alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tag: Option<String>,
        /// How many of the lowest layers are its.
        layers: u64,
    },
}

impl BaseFacts {
    /// How many of the lowest layers of the image are base layers.
    pub fn layers(&self) -> u64 {
        match self {
            Self::Scratch => 0,
            Self::Image { layers, .. } => *layers,
        }
    }
}

impl ImageFacts {
    /// Its layers together as they are unpacked. None unless each was read.
    pub fn uncompressed_size_bytes(&self) -> Option<u64> {
        let is_complete = self.layers.len() as u64 == self.layer_count;
        let sizes = self.layers.iter().map(|layer| layer.uncompressed_size_bytes);
        is_complete.then(|| sizes.sum())?
    }

    /// Holds what has a fixed form to a length at which no image makes the document too long by it.
    fn shorten_names(&mut self) {
        for name in [&mut self.platform, &mut self.manifest_digest, &mut self.config_digest] {
            *name = shortened(name, MAX_NAME_BYTES);
        }
        self.created = self.created.as_deref().map(|text| shortened(text, MAX_NAME_BYTES));
        self.working_dir = self.working_dir.as_deref().map(|text| shortened(text, MAX_PATH_BYTES));
        for layer in &mut self.layers {
            layer.digest = shortened(&layer.digest, MAX_NAME_BYTES);
            layer.media_type = shortened(&layer.media_type, MAX_NAME_BYTES);
            layer.diff_id = layer.diff_id.as_deref().map(|digest| shortened(digest, MAX_NAME_BYTES));
        }
    }

    fn leave_out(&mut self, part: Part, is_first: bool) {
        match part {
            Part::Labels => {
                self.labels.clear();
                for entry in &mut self.history {
                    entry.created_by = entry.created_by.as_deref().map(|text| shortened(text, SHORT_TEXT_BYTES));
                }
            }
            Part::Configuration => {
                for texts in [&mut self.entrypoint, &mut self.cmd, &mut self.env] {
                    texts.clear();
                }
                self.working_dir = None;
            }
            Part::History => self.history.clear(),
            Part::Layers if is_first => {}
            Part::Layers => self.layers.clear(),
        }
    }
}

impl Inspection {
    /// One line of at most [`MAX_BYTES`]. An image that describes itself at greater length loses one [`Part`] after the
    /// other until it fits; digests and sizes always stay.
    pub fn encode(&self) -> Result<String, ReportError> {
        let mut document = self.clone();
        document.media_type = shortened(&document.media_type, MAX_NAME_BYTES);
        document.images.iter_mut().for_each(ImageFacts::shorten_names);
        for attestation in &mut document.attestations {
            attestation.platform = shortened(&attestation.platform, MAX_NAME_BYTES);
        }
        for artifact in &mut document.artifacts {
            artifact.name = shortened(&artifact.name, MAX_PATH_BYTES);
            artifact.id = artifact.id.as_deref().map(|id| shortened(id, MAX_PATH_BYTES));
        }
        let mut line = json(&document);
        for part in [Part::Labels, Part::Configuration, Part::History, Part::Layers] {
            if line.len() <= MAX_BYTES {
                return Ok(line);
            }
            document.left_out.push(part);
            for (place, image) in document.images.iter_mut().enumerate() {
                image.leave_out(part, place == 0);
            }
            line = json(&document);
        }
        if line.len() <= MAX_BYTES {
            Ok(line)
        } else {
            Err(ReportError::Unwritable { found: line.len(), limit: MAX_BYTES })
        }
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
        let total_size_bytes =
            distinct(&images).values().fold(0, |sum: u64, layer| sum.saturating_add(layer.size_bytes));
        Self {
            version: VERSION,
            reference,
            tags: Vec::new(),
            digest,
            media_type,
            kind,
            images,
            attestations: Vec::new(),
            total_size_bytes,
            artifacts: Vec::new(),
            push_milliseconds: None,
            left_out: Vec::new(),
        }
    }

    /// Layers of all images together as they are unpacked, a layer they share counted once. None unless each was read.
    pub fn uncompressed_size_bytes(&self) -> Option<u64> {
        let is_complete = self.images.iter().all(|image| image.uncompressed_size_bytes().is_some());
        let sizes = distinct(&self.images).into_values().map(|layer| layer.uncompressed_size_bytes);
        is_complete.then(|| sizes.sum())?
    }
}

fn distinct(images: &[ImageFacts]) -> BTreeMap<&str, &LayerFacts> {
    images.iter().flat_map(|image| &image.layers).map(|layer| (layer.digest.as_str(), layer)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn image(layers: Vec<LayerFacts>) -> ImageFacts {
        ImageFacts {
            platform: "linux/arm64/v8".into(),
            manifest_digest: "sha256:a".into(),
            config_digest: "sha256:b".into(),
            layer_count: layers.len() as u64,
            compressed_size_bytes: layers.iter().map(|layer| layer.size_bytes).sum(),
            layers,
            history: vec![HistoryEntry { created_by: Some("RUN make".into()), layer: Some(0) }],
            entrypoint: vec!["/server".into()],
            env: vec!["PATH=/bin".into()],
            working_dir: Some("/".into()),
            labels: BTreeMap::from([("team".into(), "shop".into())]),
            ..ImageFacts::default()
        }
    }

    fn layer(digest: &str, size_bytes: u64) -> LayerFacts {
        LayerFacts {
            digest: digest.into(),
            size_bytes,
            media_type: "m".into(),
            diff_id: Some(format!("{digest}u")),
            uncompressed_size_bytes: Some(3 * size_bytes),
        }
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
        let mut found = inspection(vec![image(vec![layer("sha256:1", 10)])]);
        found.images[0].base =
            Some(BaseFacts::Image { repository: "reg.example/base".into(), tag: Some("1".into()), layers: 1 });
        let line = found.encode().expect("encodes");
        assert!(!line.contains('\n'));
        assert_eq!(Inspection::decode(line.as_bytes()), Ok(found));
    }

    #[test]
    fn what_an_older_inspect_printed_is_still_read() {
        let line = r#"{"version":1,"reference":"r:1","digest":"sha256:c","media_type":"m","kind":"image","images":[
            {"platform":"linux/amd64","manifest_digest":"sha256:c","config_digest":"sha256:b","compressed_size_bytes":5,
             "layers":[{"digest":"sha256:1","size_bytes":5,"media_type":"m","created_by":"RUN make"}]}],"total_size_bytes":5}"#;
        let read = Inspection::decode(line.as_bytes()).expect("decodes");
        assert_eq!((read.images[0].layers[0].size_bytes, read.images[0].base.as_ref()), (5, None));
        assert_eq!(read.uncompressed_size_bytes(), None);
    }

    #[test]
    fn a_layer_that_platforms_share_is_counted_once() {
        let mut found = inspection(vec![
            image(vec![layer("sha256:1", 10), layer("sha256:2", 5)]),
            image(vec![layer("sha256:1", 10)]),
        ]);
        assert_eq!((found.total_size_bytes, found.uncompressed_size_bytes()), (15, Some(45)));
        found.images[0].layers[1].uncompressed_size_bytes = None;
        assert_eq!(found.uncompressed_size_bytes(), None, "a part is not the whole");
    }

    #[test]
    fn what_is_too_long_loses_its_parts_in_their_order() {
        let long = "x".repeat(MAX_BYTES);
        let many =
            |count: usize| (0..count).map(|number| layer(&format!("sha256:{number:064}"), 1)).collect::<Vec<_>>();
        let mut story = image(vec![layer("sha256:1", 10)]);
        story.labels.insert("story".into(), long.clone());
        story.history[0].created_by = Some(long.clone());
        let mut environment = story.clone();
        environment.env.push(format!("STORY={long}"));
        let mut history = environment.clone();
        history.history = vec![HistoryEntry { created_by: Some("RUN make".into()), layer: None }; 60_000];
        let platforms = vec![image(many(1_024)); 32];
        let all = [Part::Labels, Part::Configuration, Part::History, Part::Layers];
        for (images, left_out) in [
            (vec![image(many(3))], &all[..0]),
            (vec![story], &all[..1]),
            (vec![environment], &all[..2]),
            (vec![history], &all[..3]),
            (platforms, &all[..4]),
        ] {
            let found = inspection(images);
            let line = found.encode().expect("fits");
            assert!(line.len() <= MAX_BYTES);
            let read = Inspection::decode(line.as_bytes()).expect("decodes");
            assert_eq!(read.left_out, left_out);
            assert_eq!(read.total_size_bytes, found.total_size_bytes);
            assert_eq!(read.images[0].layers, found.images[0].layers);
            for (read, found) in read.images.iter().zip(&found.images) {
                assert_eq!((&read.manifest_digest, read.layer_count), (&found.manifest_digest, found.layer_count));
                assert_eq!(read.env.is_empty(), left_out.contains(&Part::Configuration));
            }
        }
    }

    proptest! {
        // Each case is megabytes.
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn whatever_an_image_says_of_itself_the_line_stays_under_its_cap(
            images in prop::collection::vec((0_usize..1_024, 0_usize..50_000, "[\\PC\\x00]{0,100}"), 1..32)
        ) {
            let images = images.into_iter().map(|(layers, length, text)| ImageFacts {
                platform: text.repeat(50),
                created: Some(text.repeat(50)),
                working_dir: Some("\u{1}".repeat(length)),
                cmd: vec![text.clone()],
                ..image(vec![LayerFacts { media_type: text.repeat(3), ..layer(&"d".repeat(71), 1) }; layers])
            }).collect();
            let line = inspection(images).encode().expect("fits");
            prop_assert!(line.len() <= MAX_BYTES);
            prop_assert!(Inspection::decode(line.as_bytes()).is_ok());
        }
    }
}
