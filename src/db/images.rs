//! What a build pushed, written in the transaction of its last transition: the image under each of its tags
//! (`images`, `build_artifacts`), what the build's own image holds (`build_images`), the layers it shares with other
//! builds of the tenant (`layers`), and the image as it was last pushed (`image_metadata`, `image_layers`). All of it
//! follows from `build_images`; nothing is counted over earlier builds.

use std::collections::BTreeSet;

use image_factory_core::{
    inspection::{BaseFacts, ImageFacts, Inspection},
    reference::Reference,
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::results::text;
use crate::clock;

/// What `db/sql/finish.sql` writes of a push. Of none, nothing.
#[derive(Default)]
pub(super) struct Pushed {
    /// Every tag, with the ids of rows that there may be for it.
    pub tags: Vec<String>,
    pub image_ids: Vec<Uuid>,
    pub artifact_ids: Vec<Uuid>,
    pub metadata_ids: Vec<Uuid>,
    /// For each tag and layer.
    pub layer_ids: Vec<Uuid>,
    /// Rows of `build_images`.
    pub images: Vec<Value>,
    pub size_bytes: Option<i64>,
    pub uncompressed_size_bytes: Option<i64>,
}

impl Pushed {
    pub fn of(build: Uuid, inspection: &Inspection) -> Self {
        let own = Reference::new(&inspection.reference).tag.to_owned();
        let tags: BTreeSet<String> = inspection.tags.iter().cloned().chain([own]).collect();
        let layers: usize = inspection.images.iter().map(|image| image.layers.len()).sum();
        Self {
            image_ids: ids(tags.len()),
            artifact_ids: ids(tags.len()),
            metadata_ids: ids(tags.len()),
            layer_ids: ids(tags.len() * layers),
            tags: tags.into_iter().collect(),
            images: (1..).zip(&inspection.images).map(|(place, image)| row(build, place, image)).collect(),
            size_bytes: Some(number(inspection.total_size_bytes)),
            uncompressed_size_bytes: inspection.uncompressed_size_bytes().map(number),
        }
    }
}

fn ids(count: usize) -> Vec<Uuid> {
    std::iter::repeat_with(clock::new_id).take(count).collect()
}

/// The row of `build_images`, by its columns.
fn row(build: Uuid, place: i32, image: &ImageFacts) -> Value {
    let (base_name, base_tag) = match &image.base {
        Some(BaseFacts::Image { repository, tag, .. }) => (Some(repository), tag.as_ref()),
        Some(BaseFacts::Scratch) | None => (None, None),
    };
    let filled = |words: &[String]| (!words.is_empty()).then(|| words.to_vec());
    let mut row = json!({
        "build_id": build,
        "platform_number": place,
        "platform": image.platform,
        "manifest_digest": image.manifest_digest,
        "config_digest": image.config_digest,
        "layer_count": image.layer_count,
        "layer_digests": image.layers.iter().map(|layer| &layer.digest).collect::<Vec<_>>(),
        "layer_sizes_bytes": image.layers.iter().map(|layer| number(layer.size_bytes)).collect::<Vec<_>>(),
        "base_layer_count": image.base.as_ref().map(BaseFacts::layers),
        "base_image_name": base_name,
        "base_image_tag": base_tag,
        "compressed_size_bytes": number(image.compressed_size_bytes),
        "uncompressed_size_bytes": image.uncompressed_size_bytes().map(number),
        "entrypoint": filled(&image.entrypoint),
        "cmd": filled(&image.cmd),
        "env_vars": filled(&image.env),
        "working_dir": image.working_dir,
        "labels": (!image.labels.is_empty()).then_some(&image.labels),
    });
    without_nul(&mut row);
    row
}

/// What a registry says of sizes may be anything.
fn number(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// An image may say of itself what Postgres can't hold.
fn without_nul(value: &mut Value) {
    match value {
        Value::String(string) if string.contains('\0') => *string = text(string),
        Value::Array(values) => values.iter_mut().for_each(without_nul),
        Value::Object(fields) => {
            let kept = std::mem::take(fields).into_iter().map(|(name, mut value)| {
                without_nul(&mut value);
                (text(&name), value)
            });
            *fields = kept.collect();
        }
        _ => {}
    }
}
