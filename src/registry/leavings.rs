//! What Packer left behind, pushed as an image: a layer for each file that its manifest names, under the path that it has
//! in the context, and one for the document that says what was made, here and elsewhere. So it outlives the Pod, and is
//! confirmed as any other image is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use image_factory_core::inspection::Artifact;
use image_factory_core::packer::{self, File, manifest, manifest::Made};
use oci_client::Reference;
use serde_json::json;

use super::layer::{self, Layer};
use super::reported::ordinary_file;
use super::{Access, RegistryError, digest_of};

/// Where the document stands in the image.
pub const DOCUMENT: &str = "packer-artifacts.json";

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const MAX_MANIFEST_BYTES: u64 = 4 * 1024 * 1024;
/// An image has few more layers than this, and the document of an inspection no room for more.
const MAX_ARTIFACTS: usize = 100;

/// Where it is, and what becomes of it.
#[derive(Debug)]
pub struct Leavings {
    /// The folder that Packer ran in.
    pub context: PathBuf,
    /// Manifests, relative to it.
    pub manifests: Vec<String>,
    pub labels: BTreeMap<String, String>,
}

/// What was pushed.
#[derive(Debug)]
pub struct Pushed {
    pub digest: String,
    pub artifacts: Vec<Artifact>,
    pub milliseconds: u64,
}

/// Pushes under every tag.
pub(super) async fn push(
    leavings: &Leavings,
    access: &Access<'_>,
    reference: &Reference,
    tags: &[&str],
) -> Result<Pushed, RegistryError> {
    let began = Instant::now();
    let (made, layers) = gather(leavings)?;
    let files = layers.iter().map(|(path, layer)| {
        (path.clone(), File { size_bytes: layer.file_bytes(), digest: layer.file_digest.clone() })
    });
    let files: BTreeMap<String, File> = files.collect();
    let document = layer::of_text(DOCUMENT, &packer::document(&made, &files)).unwrap_or_default();
    let document_digest = digest_of(&document);

    let mut repository = access.repository(reference)?.for_pushing();
    let mut descriptors = Vec::new();
    for layer in layers.values() {
        repository.push_blob(&layer.digest, layer).await?;
        descriptors.push(descriptor(layer::MEDIA_TYPE, &layer.digest, super::client::Content::size(layer)));
    }
    repository.push_blob(&document_digest, &document[..]).await?;
    descriptors.push(descriptor(layer::MEDIA_TYPE, &document_digest, document.len() as u64));
    let config = configuration(&layers, &document_digest, &leavings.labels);
    let config_digest = digest_of(config.as_bytes());
    repository.push_blob(&config_digest, config.as_bytes()).await?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": descriptor(CONFIG_TYPE, &config_digest, config.len() as u64),
        "layers": descriptors,
    })
    .to_string();
    for tag in tags {
        repository.push_manifest(tag, MANIFEST_TYPE, manifest.as_bytes()).await?;
    }
    let milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(Pushed { digest: digest_of(manifest.as_bytes()), artifacts: artifacts(&made, files), milliseconds })
}

/// What the manifests tell, its files by their path in the image.
fn gather(leavings: &Leavings) -> Result<(Vec<Made>, BTreeMap<String, Layer>), RegistryError> {
    let context = leavings.context.canonicalize();
    let context = context.map_err(|error| RegistryError::NotMade(format!("failed to find the context: {error}")))?;
    let mut made = read_manifests(&context, &leavings.manifests)?;
    let mut layers = BTreeMap::new();
    for file in made.iter_mut().flat_map(|made| &mut made.files) {
        let (found, path) = inside(&context, file).map_err(|why| {
            RegistryError::NotMade(format!(
                "Packer's manifest names {file:?}, {why}: only files in spec.context outlive the builder"
            ))
        })?;
        if !layers.contains_key(&path) {
            layers.insert(path.clone(), Layer::of(&found, &path)?);
        }
        *file = path;
    }
    if layers.len() > MAX_ARTIFACTS || made.len() > MAX_ARTIFACTS {
        return Err(RegistryError::NotMade(format!(
            "Packer's manifest names more than {MAX_ARTIFACTS} files or artifacts: pack them into one, as the \
             post-processor compress does, before the manifest"
        )));
    }
    Ok((made, layers))
}

fn read_manifests(context: &Path, manifests: &[String]) -> Result<Vec<Made>, RegistryError> {
    let mut made = Vec::new();
    let mut problem = "it has no post-processor \"manifest\"".to_owned();
    let mut found = false;
    for name in manifests {
        let read = inside(context, name).and_then(|(path, _)| {
            let text = ordinary_file(&path, MAX_MANIFEST_BYTES)?;
            manifest::read(&text)
        });
        match read {
            Ok(of_one) => {
                found = true;
                made.extend(of_one);
            }
            // One for sources that were not built is not written.
            Err(why) => problem = format!("{name}, {why}"),
        }
    }
    if !found {
        return Err(RegistryError::NotMade(format!("Packer ended well, but its manifest can't be read: {problem}")));
    }
    if made.is_empty() {
        return Err(RegistryError::NotMade(
            "Packer ended well, but its manifest names neither a file nor an artifact elsewhere: there is nothing to \
             keep. Name files of the builder null by the post-processor artifice, before the manifest"
                .to_owned(),
        ));
    }
    // Two manifests may tell of the same.
    made.sort_by(|one, other| (&one.builder, &one.name, &one.files).cmp(&(&other.builder, &other.name, &other.files)));
    made.dedup();
    Ok(made)
}

/// The real file and its path in the context, or why it is not taken.
fn inside(context: &Path, name: &str) -> Result<(PathBuf, String), String> {
    let found = context.join(name).canonicalize().map_err(|error| format!("which can't be found ({error})"))?;
    let path = found.strip_prefix(context).map_err(|_| "which is not in the context".to_owned())?;
    if !found.is_file() {
        return Err("which is no file".to_owned());
    }
    let path = path.to_str().ok_or_else(|| "whose path is no text".to_owned())?.to_owned();
    Ok((found, path))
}

fn descriptor(media_type: &str, digest: &str, size: u64) -> serde_json::Value {
    json!({"mediaType": media_type, "digest": digest, "size": size})
}

fn configuration(layers: &BTreeMap<String, Layer>, document: &str, labels: &BTreeMap<String, String>) -> String {
    let digests: Vec<&str> = layers.values().map(|layer| layer.digest.as_str()).chain([document]).collect();
    let paths = layers.keys().map(String::as_str).chain([DOCUMENT]);
    let history: Vec<_> = paths.map(|path| json!({"created_by": format!("packer {path}")})).collect();
    // Without labels the member is left out, as by other builders.
    let config = if labels.is_empty() { json!({}) } else { json!({"Labels": labels}) };
    json!({
        "architecture": architecture(),
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": digests},
        "history": history,
    })
    .to_string()
}

/// As images name it, of the node: files have none, and an image must.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn artifacts(made: &[Made], files: BTreeMap<String, File>) -> Vec<Artifact> {
    let elsewhere = made.iter().filter_map(|made| {
        Some(Artifact {
            name: format!("{}.{}", made.builder, made.name),
            id: Some(made.id.clone()?),
            size_bytes: None,
            digest: None,
        })
    });
    let here = files.into_iter().map(|(name, file)| Artifact {
        name,
        id: None,
        size_bytes: Some(file.size_bytes),
        digest: Some(file.digest),
    });
    here.chain(elsewhere).collect()
}
