//! What was pushed, described: each image of it with its layers, history and configuration, from documents that have
//! been checked against the digests they were asked for by. Attestations beside the images of an index are no images.

use image_factory_core::environment::{masked, masked_command, masked_value};
use image_factory_core::inspection::{
    Attestation, AttestationKind, HistoryEntry, ImageFacts, Inspection, LayerFacts, ManifestKind,
};

use super::client::{Body, Repository};
use super::documents::{Content, Descriptor, History, ImageConfig, Manifest, Platform, parse};
use super::{RegistryError, valid, verified_blob, verified_manifest};

/// Far more platforms than anyone builds for.
const MAX_IMAGES: usize = 32;

pub(super) async fn describe(
    repository: &mut Repository,
    image: &str,
    digest: String,
    body: &Body,
) -> Result<Inspection, RegistryError> {
    let manifest: Manifest = parse(&body.bytes, "the manifest")?;
    let media_type = manifest.media_type(body.content_type.as_deref());
    let mut attestations = Vec::new();
    let (kind, images) = match manifest.content()? {
        Content::Image(config, layers) => {
            let facts = image_facts(repository, digest.clone(), config, layers, None).await?;
            (ManifestKind::Image, vec![facts])
        }
        Content::Index(entries) => {
            let mut images = Vec::new();
            let (beside, entries): (Vec<_>, Vec<_>) = entries.into_iter().partition(Descriptor::is_attestation);
            for entry in entries {
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
            for entry in beside.into_iter().take(MAX_IMAGES) {
                for statement in statements(repository, &entry, &images).await? {
                    // The rows of a build name each once.
                    if !attestations.contains(&statement) {
                        attestations.push(statement);
                    }
                }
            }
            (ManifestKind::Index, images)
        }
    };
    Ok(Inspection { attestations, ..Inspection::new(image.to_owned(), digest, media_type, kind, images) })
}

/// What a manifest of attestations holds: each statement is a layer of it, and the entry of the index says of which
/// image.
async fn statements(
    repository: &mut Repository,
    entry: &Descriptor,
    images: &[ImageFacts],
) -> Result<Vec<Attestation>, RegistryError> {
    let subject = entry.annotation("vnd.docker.reference.digest").unwrap_or_default();
    let Some(image) = images.iter().find(|image| image.manifest_digest == subject) else { return Ok(Vec::new()) };
    let body = verified_manifest(repository, &entry.digest).await?;
    let manifest: Manifest = parse(&body.bytes, "a manifest of attestations")?;
    let Content::Image(_, layers) = manifest.content()? else { return Ok(Vec::new()) };
    let mut statements = Vec::new();
    for layer in layers {
        let kind = layer.annotation("in-toto.io/predicate-type").and_then(AttestationKind::of);
        if let Some(kind) = kind {
            valid(&layer.digest)?;
            let platform = image.platform.clone();
            statements.push(Attestation { kind, platform, digest: layer.digest, size_bytes: layer.size });
        }
    }
    Ok(statements)
}

async fn image_facts(
    repository: &mut Repository,
    manifest_digest: String,
    config: Descriptor,
    layers: Vec<Descriptor>,
    platform: Option<&Platform>,
) -> Result<ImageFacts, RegistryError> {
    let image: ImageConfig = parse(&verified_blob(repository, &config.digest).await?.bytes, "the configuration")?;
    for layer in &layers {
        valid(&layer.digest)?;
    }
    Ok(facts(manifest_digest, config.digest, layers, platform, image))
}

pub(super) fn facts(
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
    let labels = settings.labels.unwrap_or_default().into_iter().map(|(name, value)| {
        let value = masked_value(&name, &value);
        (name, value)
    });
    ImageFacts {
        platform: platform.unwrap_or(&own).name(),
        manifest_digest,
        config_digest,
        layer_count: layers.len() as u64,
        compressed_size_bytes: layers.iter().fold(0, |sum, layer| sum.saturating_add(layer.size_bytes)),
        layers,
        base: None,
        history,
        entrypoint: masked_command(&settings.entrypoint.unwrap_or_default()),
        cmd: masked_command(&settings.cmd.unwrap_or_default()),
        env: settings.env.unwrap_or_default().iter().map(|variable| masked(variable)).collect(),
        working_dir: settings.working_dir.filter(|folder| !folder.is_empty()),
        created: image.created,
        labels: labels.collect(),
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
