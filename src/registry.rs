//! What was pushed, as the registry knows it. This file decides when a push counts as confirmed: the registry has the
//! digest that the builder wrote down, the tag stands for that digest, and the bytes behind it have it. Only then is what
//! was pushed described. What can't be told (a base image that can't be read, layers too large to be unpacked) is left
//! open: it never fails a build whose image is there.

mod base;
mod client;
mod credentials;
mod describe;
mod documents;
mod layer;
mod layers;
mod leavings;
mod reported;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use image_factory_core::report::PodFailure;
use image_factory_core::{
    inspection::{BaseFacts, Inspection},
    mirrors::Mirror,
    platform,
};
use oci_client::Reference;
use sha2::{Digest, Sha256};

use client::{Body, Repository};
pub use leavings::Leavings;
pub use reported::{DigestSource, ordinary_file};

const MAX_CONFIG_JSON_BYTES: u64 = 1024 * 1024;

const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";

/// Each holds the whole sentence: it goes into the Build's status as it is.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("{0}")]
    Reference(String),
    #[error("{0}")]
    NotMade(String),
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
            Self::NotMade(_) => "BuildFailed",
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

/// What a builder says it pushed, and what is needed to ask the registry about it.
#[derive(Debug)]
pub struct Pushed {
    /// Repository and tag.
    pub image: String,
    /// Further tags of the repository.
    pub tags: Vec<String>,
    /// Platforms that were asked for; none where the builder's own is as good as any.
    pub platforms: Vec<String>,
    /// What it was built from, for a method that has one.
    pub dockerfile: Option<Dockerfile>,
    /// Registries, as `host` or `host:port`, that may be spoken to without TLS or with any certificate.
    pub insecure_registries: Vec<String>,
    /// Where the base image is looked for first, as the builder has done.
    pub mirrors: Vec<Mirror>,
    /// Folder with a `config.json`; without one, or without a login for a registry in it, that is asked anonymously.
    pub docker_config: Option<PathBuf>,
}

#[derive(Debug)]
pub struct Dockerfile {
    pub path: PathBuf,
    /// The stage that was built; none for the last.
    pub target: Option<String>,
    pub build_args: BTreeMap<String, String>,
}

/// Pushes what Packer left behind, and inspects it.
pub async fn push(leavings: &Leavings, pushed: &Pushed) -> Result<Inspection, RegistryError> {
    let reference = tagged(&pushed.image)?;
    let access = Access::new(pushed)?;
    let tags: Vec<&str> = reference.tag().into_iter().chain(pushed.tags.iter().map(String::as_str)).collect();
    let left = leavings::push(leavings, &access, &reference, &tags).await?;
    let mut inspection = confirmed(pushed, left.digest).await?;
    for image in &mut inspection.images {
        image.base = Some(BaseFacts::Scratch);
    }
    Ok(Inspection { artifacts: left.artifacts, push_milliseconds: Some(left.milliseconds), ..inspection })
}

/// Confirms that what the builder says it pushed is in the registry, and describes it. `written`: where it wrote the
/// digest.
pub async fn inspect(pushed: &Pushed, written: &DigestSource) -> Result<Inspection, RegistryError> {
    confirmed(pushed, written.read()?).await
}

async fn confirmed(pushed: &Pushed, digest: String) -> Result<Inspection, RegistryError> {
    let image = &pushed.image;
    let reference = tagged(image)?;
    let tag = reference.tag().unwrap_or_default();
    let access = Access::new(pushed)?;
    let mut repository = access.repository(&reference)?;

    let body = verified_manifest(&mut repository, &digest).await.map_err(|error| match error {
        RegistryError::NotFound(_) => RegistryError::NotFound(format!(
            "the builder says that it pushed {digest}, but the registry does not have it in {}/{}",
            reference.resolve_registry(),
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
    let mut inspection = describe::describe(&mut repository, image, digest, &body).await?;
    let found = || inspection.images.iter().map(|image| image.platform.as_str());
    let missing = platform::missing(&pushed.platforms, found());
    if !missing.is_empty() {
        return Err(RegistryError::Mismatch(format!(
            "spec.platforms asks for {}, and what was pushed is for {}",
            missing.join(", "),
            found().collect::<Vec<_>>().join(", ")
        )));
    }
    let (bases, unpacked) = tokio::join!(
        base::of_each(&access, pushed, &inspection.images),
        layers::unpacked(&repository, &inspection.images)
    );
    for (image, base) in inspection.images.iter_mut().zip(bases) {
        image.base = base;
        for layer in &mut image.layers {
            layer.uncompressed_size_bytes = unpacked.get(&layer.digest).copied();
        }
    }
    for tag in &pushed.tags {
        // One that another push has taken meanwhile is another's.
        if let Ok(body) = repository.manifest(tag, ACCEPT).await
            && digest_of(&body.bytes) == inspection.digest
        {
            inspection.tags.push(tag.clone());
        }
    }
    Ok(inspection)
}

fn tagged(image: &str) -> Result<Reference, RegistryError> {
    let reference: Reference =
        image.parse().map_err(|error| RegistryError::Reference(format!("spec.output.image is {image:?}: {error}")))?;
    match (reference.digest(), reference.tag()) {
        (None, Some(_)) => Ok(reference),
        _ => Err(RegistryError::Reference(format!(
            "spec.output.image is {image:?}, and must end with a tag, not a digest"
        ))),
    }
}

/// How registries are spoken to: each with the login that is for it.
struct Access<'a> {
    config: Option<Vec<u8>>,
    insecure_registries: &'a [String],
}

impl<'a> Access<'a> {
    fn new(pushed: &'a Pushed) -> Result<Self, RegistryError> {
        let config = pushed.docker_config.as_deref().map(read_config).transpose()?.flatten();
        Ok(Self { config, insecure_registries: &pushed.insecure_registries })
    }

    fn repository(&self, reference: &Reference) -> Result<Repository, RegistryError> {
        let registry = reference.resolve_registry();
        let login =
            self.config.as_deref().map(|document| credentials::login_for(document, registry)).transpose()?.flatten();
        let insecure = self.insecure_registries.iter().any(|host| host == registry);
        Repository::new(registry, reference.repository(), insecure, login)
    }
}

async fn verified_manifest(repository: &mut Repository, digest: &str) -> Result<Body, RegistryError> {
    let body = repository.manifest(valid(digest)?, ACCEPT).await?;
    confirm(&body.bytes, digest)?;
    Ok(body)
}

async fn verified_blob(repository: &mut Repository, digest: &str) -> Result<Body, RegistryError> {
    let body = repository.blob(valid(digest)?).await?;
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

fn read_config(folder: &Path) -> Result<Option<Vec<u8>>, RegistryError> {
    let path = folder.join("config.json");
    let mut document = Vec::new();
    match File::open(&path).and_then(|file| file.take(MAX_CONFIG_JSON_BYTES).read_to_end(&mut document)) {
        Ok(_) => Ok(Some(document)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(RegistryError::Credentials(format!("failed to read {}: {error}", path.display()))),
    }
}
