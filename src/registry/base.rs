//! The base image of what was pushed, and which of its layers are the base's. The Dockerfile says which image it is built
//! on, and the registry which layers that one has: they are base layers where all of them, in their order, are the lowest
//! of what was pushed. Where the base can't be read any more, or its tag stands for other layers by now, the base is not
//! known, and nothing is said of it.

use std::path::Path;
use std::time::Duration;

use image_factory_core::base::{self, Base};
use image_factory_core::inspection::{BaseFacts, ImageFacts};
use image_factory_core::mirrors::{self, Mirror};
use oci_client::Reference;

use super::client::Repository;
use super::documents::{Content, ImageConfig, Manifest, Platform, parse};
use super::reported::ordinary_file;
use super::{ACCEPT, Access, Pushed, RegistryError, confirm, verified_blob, verified_manifest};

const MAX_DOCKERFILE_BYTES: u64 = 1024 * 1024;
/// A registry that does not answer holds no build up for longer.
const MAX_TIME: Duration = Duration::from_secs(5);

/// The base of each image, in their order.
pub async fn of_each(access: &Access<'_>, pushed: &Pushed, images: &[ImageFacts]) -> Vec<Option<BaseFacts>> {
    let mut bases = vec![None; images.len()];
    let Some(dockerfile) = &pushed.dockerfile else { return images.iter().map(of_run_image).collect() };
    let Some(text) = text(&dockerfile.path) else { return bases };
    let _ = tokio::time::timeout(MAX_TIME, async {
        for (base, image) in bases.iter_mut().zip(images) {
            let written = base::of(&text, dockerfile.target.as_deref(), &dockerfile.build_args, &image.platform);
            *base = match written {
                Some(Base::Scratch) => Some(BaseFacts::Scratch),
                Some(Base::Image(reference)) => of(access, &pushed.mirrors, &reference, image).await,
                None => None,
            };
        }
    })
    .await;
    bases
}

/// The lifecycle writes down which run image it built on, and the highest of its layers.
fn of_run_image(image: &ImageFacts) -> Option<BaseFacts> {
    let own: Option<Vec<&str>> = image.layers.iter().map(|layer| layer.diff_id.as_deref()).collect();
    let (reference, layers) = base::of_lifecycle(image.labels.get(base::LIFECYCLE_LABEL)?, &own?)?;
    let reference: Reference = reference.parse().ok()?;
    Some(BaseFacts::Image {
        repository: format!("{}/{}", reference.registry(), reference.repository()),
        tag: reference.tag().map(str::to_owned),
        layers,
    })
}

/// As with what the builder left: the volume is not trusted.
fn text(path: &Path) -> Option<String> {
    String::from_utf8(ordinary_file(path, MAX_DOCKERFILE_BYTES).ok()?).ok()
}

/// The base keeps the name it has in the Dockerfile, wherever it was read.
async fn of(access: &Access<'_>, mirrors: &[Mirror], reference: &str, image: &ImageFacts) -> Option<BaseFacts> {
    let reference: Reference = reference.parse().ok()?;
    let content = from_any(access, mirrors, &reference, &image.platform).await?;
    let own: Option<Vec<&str>> = image.layers.iter().map(|layer| layer.diff_id.as_deref()).collect();
    let lowest = own?.into_iter().zip(&content).filter(|(own, base)| *own == base.as_str()).count();
    (lowest == content.len()).then(|| BaseFacts::Image {
        repository: format!("{}/{}", reference.registry(), reference.repository()),
        tag: reference.tag().map(str::to_owned),
        layers: lowest as u64,
    })
}

async fn from_any(
    access: &Access<'_>,
    mirrors: &[Mirror],
    reference: &Reference,
    platform: &str,
) -> Option<Vec<String>> {
    let version = match (reference.digest(), reference.tag()) {
        (Some(digest), _) => format!("@{digest}"),
        (None, tag) => format!(":{}", tag?),
    };
    let places = mirrors::repositories(mirrors, reference.registry(), reference.repository());
    // One that is silent leaves time for the next.
    let patience = MAX_TIME / u32::try_from(places.len()).unwrap_or(u32::MAX);
    for place in places {
        let Ok(reference) = format!("{place}{version}").parse::<Reference>() else { continue };
        let Ok(mut repository) = access.repository(&reference) else { continue };
        let read = tokio::time::timeout(patience, contents(&mut repository, &reference, platform));
        if let Ok(Ok(content)) = read.await {
            return Some(content);
        }
    }
    None
}

/// The digests of the base's layers, unpacked, the lowest first.
async fn contents(
    repository: &mut Repository,
    reference: &Reference,
    platform: &str,
) -> Result<Vec<String>, RegistryError> {
    let body = repository.manifest(reference.digest().or(reference.tag()).unwrap_or_default(), ACCEPT).await?;
    if let Some(digest) = reference.digest() {
        confirm(&body.bytes, digest)?;
    }
    let mut manifest: Manifest = parse(&body.bytes, "the manifest")?;
    let content = match manifest.content()? {
        Content::Index(entries) => {
            let fits = |found: Option<&Platform>| found.is_some_and(|found| found.is_of(platform));
            let entry = entries.into_iter().find(|entry| fits(entry.platform.as_ref()));
            let entry = entry.ok_or_else(|| RegistryError::NotFound(format!("the base has no image of {platform}")))?;
            manifest = parse(&verified_manifest(repository, &entry.digest).await?.bytes, "the manifest of a platform")?;
            manifest.content()?
        }
        image @ Content::Image(..) => image,
    };
    let Content::Image(config, _) = content else {
        return Err(RegistryError::Unreadable("the base is an index of indexes".into()));
    };
    let config: ImageConfig = parse(&verified_blob(repository, &config.digest).await?.bytes, "the configuration")?;
    let contents = config.rootfs.and_then(|rootfs| rootfs.diff_ids);
    contents.ok_or_else(|| RegistryError::Unreadable("the base does not say what its layers hold".into()))
}
