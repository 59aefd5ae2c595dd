//! What a build pushed, as the statement of its end takes it (`db/sql/finish.sql`): the rows of `build_images`, which
//! keeps what the build's own image holds. All else follows from them: the image under each of its tags (`images`,
//! `build_artifacts`, with what else the build left), the layers it shares with other builds of the tenant (`layers`), the
//! image as it was last pushed (`image_metadata`, `image_layers`). Nothing is counted over earlier builds.

use std::collections::{BTreeMap, BTreeSet};

use image_factory_core::{
    inspection::{Artifact, BaseFacts, ImageFacts, Inspection},
    reference::Reference,
    storable,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::clock;

/// More is no measure: the limit of `build_metrics.compression_ratio`.
const MAX_COMPRESSION_RATIO: f64 = 999_999.0;

/// Empty for a build that pushed nothing.
#[derive(Debug)]
pub(super) struct Pushed {
    /// Rows of `build_images`, by column.
    pub images: Value,
    /// Rows of `build_artifacts` for what was pushed beside them, what they hold by name, and what was made elsewhere, by
    /// column.
    pub further: Value,
    /// Every tag, in their order.
    pub tags: Vec<String>,
    /// One for each row that is made from these: image, artifact, metadata and layers of each tag.
    pub ids: Vec<Uuid>,
    pub compressed_size: Option<i64>,
    pub uncompressed_size: Option<i64>,
    pub compression_ratio: Option<f64>,
}

impl Pushed {
    pub fn of(build: Uuid, inspection: Option<&Inspection>) -> Self {
        let images = inspection.map_or(&[][..], |inspection| &inspection.images);
        let tags: BTreeSet<&str> = inspection
            .into_iter()
            .flat_map(|found| found.tags.iter().map(String::as_str).chain([Reference::new(&found.reference).tag]))
            .collect();
        let layers: usize = images.iter().map(|image| image.layers.len()).sum();
        Self {
            images: (1..).zip(images).map(|(place, image)| row(build, place, image)).collect(),
            further: inspection.into_iter().flat_map(|found| statements(found).chain(artifacts(found))).collect(),
            ids: ids(tags.len() * (3 + layers)),
            tags: tags.into_iter().map(str::to_owned).collect(),
            compressed_size: inspection.map(|found| number(found.total_size_bytes)),
            uncompressed_size: inspection.and_then(Inspection::uncompressed_size_bytes).map(number),
            compression_ratio: inspection.and_then(compression_ratio),
        }
    }
}

/// The attestations, each as a row by its columns.
fn statements(inspection: &Inspection) -> impl Iterator<Item = Value> {
    inspection.attestations.iter().map(|statement| {
        storable::json(json!({
            "id": clock::new_id(),
            "artifact_type": statement.kind.as_str(),
            "artifact_name": format!("{} {}", statement.platform, statement.digest),
            "artifact_size_bytes": number(statement.size_bytes),
            "sha256_digest": statement.digest,
        }))
    })
}

/// Compressed by uncompressed size, where there is something to compare.
#[expect(clippy::cast_precision_loss, reason = "a ratio with four digits is asked for")]
fn compression_ratio(image: &Inspection) -> Option<f64> {
    let unpacked = image.uncompressed_size_bytes().filter(|size| *size > 0)?;
    let ratio = image.total_size_bytes as f64 / unpacked as f64;
    (ratio <= MAX_COMPRESSION_RATIO).then_some(ratio)
}

/// What Packer made. One a name: two sources of a template may give theirs the same.
fn artifacts(inspection: &Inspection) -> impl Iterator<Item = Value> {
    let place = format!("{}@{}", inspection.reference, inspection.digest);
    let by_name: BTreeMap<&str, &Artifact> =
        inspection.artifacts.iter().map(|artifact| (artifact.name.as_str(), artifact)).collect();
    by_name.into_values().map(move |artifact| {
        storable::json(json!({
            "id": clock::new_id(),
            "artifact_type": "packer_artifact",
            "artifact_name": artifact.name,
            "artifact_location": artifact.id.as_ref().unwrap_or(&place),
            "artifact_size_bytes": artifact.size_bytes.map(number),
            "sha256_digest": artifact.digest,
        }))
    })
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
    // An image may say of itself what Postgres can't hold.
    storable::json(json!({
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
    }))
}

/// What a registry says of sizes may be anything.
fn number(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use image_factory_core::inspection::ManifestKind;

    use super::*;

    #[test]
    fn of_two_artifacts_of_one_name_one_is_a_row_and_a_file_is_where_its_image_is() {
        let artifact = |name: &str, id: Option<&str>| Artifact {
            name: name.to_owned(),
            id: id.map(str::to_owned),
            size_bytes: id.is_none().then_some(7),
            digest: id.is_none().then(|| "sha256:a".to_owned()),
        };
        let mut found = Inspection::new(
            "registry.test/a:1".to_owned(),
            "sha256:c".to_owned(),
            "m".to_owned(),
            ManifestKind::Image,
            Vec::new(),
        );
        found.artifacts = vec![
            artifact("press.web", Some("eu-1:ami-1")),
            artifact("out/disk.img", None),
            artifact("press.web", Some("eu-1:ami-2")),
        ];
        let mut rows: Value = artifacts(&found).collect();
        let ids: BTreeSet<String> =
            rows.as_array_mut().unwrap().iter_mut().map(|row| row["id"].take().to_string()).collect();
        assert_eq!(ids.len(), 2);
        let expected = |name: &str, location: &str, size: Option<u64>, digest: Option<&str>| {
            json!({"id": null, "artifact_type": "packer_artifact", "artifact_name": name, "artifact_location": location,
                "artifact_size_bytes": size, "sha256_digest": digest})
        };
        let file = expected("out/disk.img", "registry.test/a:1@sha256:c", Some(7), Some("sha256:a"));
        assert_eq!(rows, json!([file, expected("press.web", "eu-1:ami-2", None, None)]));
    }
}
