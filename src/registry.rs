//! What was pushed, as the registry knows it. This file decides when a push counts as confirmed: the registry has the
//! digest that the builder wrote down, the tag stands for that digest, and the bytes behind it have it. Only then are
//! manifest, configuration and layers read, each of them checked against the digest it was asked for by.

mod client;
mod credentials;
mod reported;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use image_factory_core::environment::masked;
use image_factory_core::inspection::{HistoryEntry, ImageFacts, Inspection, LayerFacts, ManifestKind};
use image_factory_core::report::PodFailure;
use oci_client::Reference;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use client::{Body, Repository};
pub use reported::DigestSource;

const MAX_CONFIG_JSON_BYTES: u64 = 1024 * 1024;
/// Far more platforms than anyone builds for, and layers than any runtime mounts.
const MAX_IMAGES: usize = 32;
const MAX_LAYERS: usize = 1_024;

const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";

/// Each holds the whole sentence: it goes into the Build's status as it is.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("{0}")]
    Reference(String),
    #[error("{0}")]
    NotReported(String),
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Denied(String),
    #[error("{0}")]
    Credentials(String),
    #[error("{0}")]
    Mismatch(String),
    #[error("{0}")]
    Unavailable(String),
    #[error("{0}")]
    Unreadable(String),
}

impl RegistryError {
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Reference(_) => "InvalidSpec",
            Self::NotReported(_) | Self::NotFound(_) | Self::Unreadable(_) => "PushFailed",
            Self::Denied(_) | Self::Credentials(_) => "PushDenied",
            Self::Mismatch(_) => "DigestMismatch",
            Self::Unavailable(_) => "RegistryUnavailable",
        }
    }
}

impl From<&RegistryError> for PodFailure {
    fn from(error: &RegistryError) -> Self {
        Self::new(error.reason(), error.to_string())
    }
}

/// Confirms that `image` (repository and tag) is what the builder says it pushed, and describes it. `docker_config` is a
/// folder with a `config.json`; without one, or without a login for this registry in it, the registry is asked anonymously.
pub async fn inspect(
    image: &str,
    pushed: &DigestSource,
    insecure: bool,
    docker_config: Option<&Path>,
) -> Result<Inspection, RegistryError> {
    let reference: Reference =
        image.parse().map_err(|error| RegistryError::Reference(format!("spec.output.image is {image:?}: {error}")))?;
    let (None, Some(tag)) = (reference.digest(), reference.tag()) else {
        return Err(RegistryError::Reference(format!(
            "spec.output.image is {image:?}, and must end with a tag, not a digest"
        )));
    };
    let digest = pushed.read()?;
    let registry = reference.resolve_registry();
    let login = match docker_config {
        Some(folder) => {
            read_config(folder)?.map_or(Ok(None), |document| credentials::login_for(&document, registry))?
        }
        None => None,
    };
    let mut repository = Repository::new(registry, reference.repository(), insecure, login)?;

    let body = verified_manifest(&mut repository, &digest).await.map_err(|error| match error {
        RegistryError::NotFound(_) => RegistryError::NotFound(format!(
            "the builder says that it pushed {digest}, but the registry does not have it in {registry}/{}",
            reference.repository()
        )),
        other => other,
    })?;
    let tagged = digest_of(&repository.manifest(tag, ACCEPT).await?.bytes);
    if tagged != digest {
        return Err(RegistryError::Mismatch(format!(
            "the builder pushed {digest}, but in the registry {image} is {tagged}: another push came in between, or the builder pushed elsewhere"
        )));
    }
    describe(&mut repository, image, digest, &body).await
}

async fn describe(
    repository: &mut Repository,
    image: &str,
    digest: String,
    body: &Body,
) -> Result<Inspection, RegistryError> {
    let manifest: Manifest = parse(&body.bytes, "the manifest")?;
    let media_type = manifest.media_type(body.content_type.as_deref());
    let (kind, images) = match manifest.content()? {
        Content::Image(config, layers) => {
            let facts = image_facts(repository, digest.clone(), config, layers, None).await?;
            (ManifestKind::Image, vec![facts])
        }
        Content::Index(entries) => {
            let mut images = Vec::new();
            for entry in entries.into_iter().filter(|entry| !entry.is_attestation()) {
                if images.len() == MAX_IMAGES {
                    return Err(RegistryError::Unreadable(format!(
                        "what was pushed has more than {MAX_IMAGES} images"
                    )));
                }
                let body = verified_manifest(repository, &entry.digest).await?;
                let manifest: Manifest = parse(&body.bytes, "the manifest of a platform")?;
                let Content::Image(config, layers) = manifest.content()? else {
                    return Err(RegistryError::Unreadable(
                        "what was pushed is an index of indexes, not of images".into(),
                    ));
                };
                images.push(image_facts(repository, entry.digest, config, layers, entry.platform.as_ref()).await?);
            }
            (ManifestKind::Index, images)
        }
    };
    Ok(Inspection::new(image.to_owned(), digest, media_type, kind, images))
}

async fn image_facts(
    repository: &mut Repository,
    manifest_digest: String,
    config: Descriptor,
    layers: Vec<Descriptor>,
    platform: Option<&Platform>,
) -> Result<ImageFacts, RegistryError> {
    let body = repository.blob(valid(&config.digest)?).await?;
    confirm(&body.bytes, &config.digest)?;
    let image: ImageConfig = parse(&body.bytes, "the configuration")?;
    Ok(facts(manifest_digest, config.digest, layers, platform, image))
}

fn facts(
    manifest_digest: String,
    config_digest: String,
    layers: Vec<Descriptor>,
    platform: Option<&Platform>,
    image: ImageConfig,
) -> ImageFacts {
    let own = Platform { os: image.os, architecture: image.architecture, variant: image.variant };
    let history = history(image.history.unwrap_or_default(), layers.len());
    // Another number of them can't say which is which.
    let mut diff_ids = image.rootfs.and_then(|rootfs| rootfs.diff_ids).unwrap_or_default();
    if diff_ids.len() != layers.len() {
        diff_ids.clear();
    }
    let mut diff_ids = diff_ids.into_iter();
    let layers: Vec<LayerFacts> = layers
        .into_iter()
        .map(|layer| LayerFacts {
            digest: layer.digest,
            size_bytes: layer.size,
            media_type: layer.media_type.unwrap_or_default(),
            diff_id: diff_ids.next(),
            uncompressed_size_bytes: None,
        })
        .collect();
    let settings = image.config.unwrap_or_default();
    ImageFacts {
        platform: platform.unwrap_or(&own).name(),
        manifest_digest,
        config_digest,
        layer_count: layers.len() as u64,
        compressed_size_bytes: layers.iter().fold(0, |sum, layer| sum.saturating_add(layer.size_bytes)),
        layers,
        base: None,
        history,
        entrypoint: settings.entrypoint.unwrap_or_default(),
        cmd: settings.cmd.unwrap_or_default(),
        env: settings.env.unwrap_or_default().iter().map(|variable| masked(variable)).collect(),
        working_dir: settings.working_dir.filter(|folder| !folder.is_empty()),
        created: image.created,
        labels: settings.labels.unwrap_or_default(),
    }
}

/// The history as the image tells it. Where it does not tell of as many layers as there are, nobody can say which
/// instruction made which.
fn history(entries: Vec<History>, layers: usize) -> Vec<HistoryEntry> {
    let makes_layer = |entry: &History| !entry.empty_layer.unwrap_or_default();
    let fits = entries.iter().filter(|entry| makes_layer(entry)).count() == layers;
    let mut places = 0..;
    entries
        .into_iter()
        .map(|entry| HistoryEntry {
            layer: if fits && makes_layer(&entry) { places.next() } else { None },
            created_by: entry.created_by.filter(|text| !text.is_empty()),
        })
        .collect()
}

async fn verified_manifest(repository: &mut Repository, digest: &str) -> Result<Body, RegistryError> {
    let body = repository.manifest(valid(digest)?, ACCEPT).await?;
    confirm(&body.bytes, digest)?;
    Ok(body)
}

fn confirm(bytes: &[u8], digest: &str) -> Result<(), RegistryError> {
    let found = digest_of(bytes);
    if found == digest {
        return Ok(());
    }
    Err(RegistryError::Mismatch(format!("the registry was asked for {digest} and sent something else, {found}")))
}

fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// A digest becomes part of a URL, so only one form is let through.
fn valid(digest: &str) -> Result<&str, RegistryError> {
    let valid = reported::is_digest(digest);
    valid
        .then_some(digest)
        .ok_or_else(|| RegistryError::Unreadable("what was pushed refers to something by no sha256 digest".into()))
}

fn parse<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, RegistryError> {
    serde_json::from_slice(bytes)
        .map_err(|error| RegistryError::Unreadable(format!("failed to read {what} of what was pushed: {error}")))
}

fn read_config(folder: &Path) -> Result<Option<Vec<u8>>, RegistryError> {
    let path = folder.join("config.json");
    let mut document = Vec::new();
    match File::open(&path).and_then(|file| file.take(MAX_CONFIG_JSON_BYTES).read_to_end(&mut document)) {
        Ok(_) => Ok(Some(document)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(RegistryError::Credentials(format!("failed to read {}: {error}", path.display()))),
    }
}

/// An image's manifest or an index: the parts of either that are described.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
}

enum Content {
    Image(Descriptor, Vec<Descriptor>),
    Index(Vec<Descriptor>),
}

impl Manifest {
    fn media_type(&self, content_type: Option<&str>) -> String {
        self.media_type.as_deref().or(content_type).unwrap_or_default().to_owned()
    }

    /// A document that could be read as either is neither: readers would not agree on what it is.
    fn content(self) -> Result<Content, RegistryError> {
        match (self.schema_version, self.config, self.layers, self.manifests) {
            (2, Some(config), Some(layers), None) if layers.len() <= MAX_LAYERS => Ok(Content::Image(config, layers)),
            (2, None, None, Some(manifests)) => Ok(Content::Index(manifests)),
            _ => Err(RegistryError::Unreadable("what was pushed is neither an image nor an index of images".into())),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: Option<String>,
    digest: String,
    size: u64,
    platform: Option<Platform>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

impl Descriptor {
    /// BuildKit puts provenance and SBOMs beside the images of an index, under no platform.
    fn is_attestation(&self) -> bool {
        let unknown = self.platform.as_ref().is_some_and(|platform| {
            platform.os.as_deref() == Some("unknown") && platform.architecture.as_deref() == Some("unknown")
        });
        let annotations = self.annotations.iter().flatten();
        unknown
            || annotations
                .into_iter()
                .any(|(key, value)| key == "vnd.docker.reference.type" && value == "attestation-manifest")
    }
}

#[derive(Deserialize)]
struct Platform {
    os: Option<String>,
    architecture: Option<String>,
    variant: Option<String>,
}

impl Platform {
    fn name(&self) -> String {
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
struct ImageConfig {
    os: Option<String>,
    architecture: Option<String>,
    variant: Option<String>,
    created: Option<String>,
    config: Option<Settings>,
    history: Option<Vec<History>>,
    rootfs: Option<RootFs>,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Option<Vec<String>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
struct Settings {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    working_dir: Option<String>,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct History {
    created_by: Option<String>,
    empty_layer: Option<bool>,
}
