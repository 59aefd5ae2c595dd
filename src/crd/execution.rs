//! How a build is carried out, apart from what it builds: which worker, how often it is tried again,
//! how much it may use, and how long its traces stay. Only [`Resources`] is an input of the build; a
//! change of the others is no new run.

use std::collections::BTreeMap;

use image_factory_core::{placement, retry};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::{KubeSchema, core::Duration};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which workers may take the build. Every field that is set must fit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// Name of a BuildWorker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,
    /// Zone of the worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub zone: Option<String>,
    /// Labels the worker must have, with these values. At most 16.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub selector: BTreeMap<String, String>,
}

impl Placement {
    /// `None` where it asks for nothing.
    pub fn into_core(self) -> Option<placement::Placement> {
        let Self { name, zone, selector } = self;
        let placement = placement::Placement { name, zone, selector };
        (placement != placement::Placement::default()).then_some(placement)
    }
}

/// When a failed build is tried again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retries {
    /// Attempts after the first, from 0 to 10. Default: 0.
    #[serde(default, skip_serializing_if = "super::is_default")]
    #[schemars(range(min = 0, max = 10))]
    pub limit: i32,
    /// Which failures are tried again: those of the infrastructure (evicted, node lost, registry
    /// unavailable), or any.
    #[serde(default, skip_serializing_if = "super::is_default")]
    pub on: RetryOn,
}

impl Retries {
    pub const fn into_core(self) -> retry::Retries {
        let Self { limit, on } = self;
        let on = match on {
            RetryOn::Infrastructure => retry::On::Infrastructure,
            RetryOn::Any => retry::On::Any,
        };
        retry::Retries { limit, on }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RetryOn {
    #[default]
    Infrastructure,
    Any,
}

/// What the build container asks for and may use. Only cpu, memory and ephemeral-storage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "!has(self.requests) || !has(self.limits) || self.requests.all(name, !(name in self.limits) \
     || quantity(string(self.requests[name])).compareTo(quantity(string(self.limits[name]))) <= 0)",
    "each of spec.resources.requests must be at most its limit in spec.resources.limits"
))]
pub struct Resources {
    /// What must be free on a node, such as `cpu: 500m` or `memory: 1Gi`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8))]
    #[schemars(schema_with = "quantities")]
    #[x_kube(validation = (
        "self.all(name, name in ['cpu', 'memory', 'ephemeral-storage'])",
        "spec.resources.requests takes only cpu, memory and ephemeral-storage"
    ))]
    #[x_kube(validation = (
        "self.all(name, isQuantity(string(self[name])) && sign(quantity(string(self[name]))) >= 0)",
        "each of spec.resources.requests must be a quantity of at least 0, such as 500m or 1Gi"
    ))]
    pub requests: BTreeMap<String, Quantity>,
    /// What the build is stopped at, such as `memory: 4Gi`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8))]
    #[schemars(schema_with = "quantities")]
    #[x_kube(validation = (
        "self.all(name, name in ['cpu', 'memory', 'ephemeral-storage'])",
        "spec.resources.limits takes only cpu, memory and ephemeral-storage"
    ))]
    #[x_kube(validation = (
        "self.all(name, isQuantity(string(self[name])) && sign(quantity(string(self[name]))) > 0)",
        "each of spec.resources.limits must be a quantity above 0, such as 2 or 4Gi"
    ))]
    pub limits: BTreeMap<String, Quantity>,
}

/// The description Kubernetes itself gives to a quantity is pages long; this says what is needed.
fn quantities(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "additionalProperties": {"x-kubernetes-int-or-string": true, "maxLength": 32},
    })
}

/// How long what a build leaves behind is kept. Rows in Postgres stay.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    /// How long the build's artifacts are to be kept, counted from the end of the build. After that nothing promises
    /// that they are there: build_artifacts.is_available is false. The registry is left as it is. Default: permanent.
    #[serde(default, skip_serializing_if = "super::is_default")]
    pub artifacts: ArtifactRetention,
    /// Whether expired artifacts are deleted from the registry too. Default: false.
    #[serde(default, skip_serializing_if = "super::is_default")]
    pub delete_from_registry: bool,
    /// How long the finished Job and its Pod stay, once the log is stored, such as 30s, 10m or 1h30m;
    /// at most 24h. Default: 10m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", length(min = 2, max = 24))]
    #[x_kube(validation = (
        "self.matches('^([0-9]{1,5}h)?([0-9]{1,5}m)?([0-9]{1,5}s)?$') && duration(self) <= duration('24h')",
        "spec.retention.jobTtl must be a duration of at most 24h, such as 30s, 10m or 1h30m"
    ))]
    pub job_ttl: Option<Duration>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ArtifactRetention {
    #[default]
    Permanent,
    #[serde(rename = "days_30")]
    Days30,
    #[serde(rename = "days_90")]
    Days90,
    #[serde(rename = "days_365")]
    Days365,
    DeleteOnSuccess,
}
