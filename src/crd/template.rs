//! The Build that a BuildSchedule or a WebhookConfig makes: a specification and what is written on
//! its metadata. Its name and owner are the maker's, so a template has neither.

use std::collections::BTreeMap;

use image_factory_core::labels;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{KubeSchema, Resource, ResourceExt};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::build::{Build, BuildSpec};

/// The Build to make.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BuildTemplate {
    /// Labels and annotations of the Builds made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<TemplateMetadata>,
    /// Specification of the Builds made.
    pub spec: BuildSpec,
}

/// Labels and annotations of the Builds made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateMetadata {
    /// Labels. At most 64.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub labels: BTreeMap<String, String>,
    /// Annotations. At most 64.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub annotations: BTreeMap<String, String>,
}

impl TemplateMetadata {
    /// The Build that `maker` makes: owned by it, so that it goes with it as a `CronJob`'s Jobs do, with the maker's name
    /// as this label, and with the row it is made for as its annotation.
    pub fn build(
        self,
        maker: &impl Resource<DynamicType = ()>,
        label: &str,
        name: &str,
        origin: Uuid,
        spec: BuildSpec,
    ) -> Build {
        let with = |mut map: BTreeMap<String, String>, key: &str, value: String| {
            map.insert(key.to_owned(), value);
            Some(map)
        };
        Build {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: maker.namespace(),
                labels: with(self.labels, label, maker.name_any()),
                annotations: with(self.annotations, labels::ORIGIN, origin.to_string()),
                owner_references: maker.controller_owner_ref(&()).map(|owner| vec![owner]),
                ..ObjectMeta::default()
            },
            spec,
            status: None,
        }
    }
}

/// The row that a Build says it was made for.
pub fn origin(build: &impl ResourceExt) -> Option<Uuid> {
    build.annotations().get(labels::ORIGIN)?.parse().ok()
}
