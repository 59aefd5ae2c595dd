//! The documents of a registry, as far as they are read here: manifests, indexes of them, and the configuration of an
//! image. What could be read in two ways is refused.
//!
//! <https://github.com/opencontainers/image-spec/blob/v1.1.1/manifest.md>, `image-index.md` and `config.md` beside it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::RegistryError;

/// More layers than any runtime mounts.
const MAX_LAYERS: usize = 1_024;

pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, RegistryError> {
    serde_json::from_slice(bytes)
        .map_err(|error| RegistryError::Unreadable(format!("failed to read {what} of what was pushed: {error}")))
}

/// An image's manifest or an index: the parts of either that are described.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    pub(super) schema_version: u32,
    pub(super) media_type: Option<String>,
    pub(super) config: Option<Descriptor>,
    pub(super) layers: Option<Vec<Descriptor>>,
    pub(super) manifests: Option<Vec<Descriptor>>,
}

pub(super) enum Content {
    Image(Descriptor, Vec<Descriptor>),
    Index(Vec<Descriptor>),
}

impl Manifest {
    pub(super) fn media_type(&self, content_type: Option<&str>) -> String {
        self.media_type.as_deref().or(content_type).unwrap_or_default().to_owned()
    }

    /// A document that could be read as either is neither: readers would not agree on what it is.
    pub(super) fn content(self) -> Result<Content, RegistryError> {
        match (self.schema_version, self.config, self.layers, self.manifests) {
            (2, Some(config), Some(layers), None) if layers.len() <= MAX_LAYERS => Ok(Content::Image(config, layers)),
            (2, None, None, Some(manifests)) => Ok(Content::Index(manifests)),
            _ => Err(RegistryError::Unreadable("what was pushed is neither an image nor an index of images".into())),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    pub(super) media_type: Option<String>,
    pub(super) digest: String,
    pub(super) size: u64,
    pub(super) platform: Option<Platform>,
    #[serde(default)]
    pub(super) annotations: Option<BTreeMap<String, String>>,
}

impl Descriptor {
    /// BuildKit puts provenance and SBOMs beside the images of an index, under no platform.
    pub(super) fn is_attestation(&self) -> bool {
        let unknown = self.platform.as_ref().is_some_and(|platform| {
            platform.os.as_deref() == Some("unknown") && platform.architecture.as_deref() == Some("unknown")
        });
        unknown || self.annotation("vnd.docker.reference.type") == Some("attestation-manifest")
    }

    pub(super) fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(name).map(String::as_str)
    }
}

#[derive(Deserialize)]
pub(super) struct Platform {
    pub(super) os: Option<String>,
    pub(super) architecture: Option<String>,
    pub(super) variant: Option<String>,
}

impl Platform {
    /// Whether an image for this platform runs as `os/architecture[/variant]`. A variant counts where both name one.
    pub(super) fn is_of(&self, platform: &str) -> bool {
        let wanted: Vec<&str> = platform.split('/').collect();
        let own = self.name();
        let own: Vec<&str> = own.split('/').collect();
        own.iter().zip(&wanted).all(|(own, wanted)| own == wanted)
    }

    pub(super) fn name(&self) -> String {
        let part = |part: &Option<String>| part.clone().filter(|text| !text.is_empty());
        let mut name = part(&self.os).unwrap_or_else(|| "unknown".into());
        name.push('/');
        name.push_str(&part(&self.architecture).unwrap_or_else(|| "unknown".into()));
        if let Some(variant) = part(&self.variant) {
            name.push('/');
            name.push_str(&variant);
        }
        name
    }
}

#[derive(Deserialize)]
pub(super) struct ImageConfig {
    pub(super) os: Option<String>,
    pub(super) architecture: Option<String>,
    pub(super) variant: Option<String>,
    pub(super) created: Option<String>,
    pub(super) config: Option<Settings>,
    pub(super) history: Option<Vec<History>>,
    pub(super) rootfs: Option<RootFs>,
}

#[derive(Deserialize)]
pub(super) struct RootFs {
    pub(super) diff_ids: Option<Vec<String>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Settings {
    pub(super) entrypoint: Option<Vec<String>>,
    pub(super) cmd: Option<Vec<String>>,
    pub(super) env: Option<Vec<String>>,
    pub(super) working_dir: Option<String>,
    pub(super) labels: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
pub(super) struct History {
    pub(super) created_by: Option<String>,
    pub(super) empty_layer: Option<bool>,
}
