//! The kind BuildConcurrencyPolicy: the limits of one namespace. There is one, named `default`; where
//! there is none, the operator's own defaults hold.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// How many builds of this namespace may run at once.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "imagefactory.dev",
    version = "v1alpha1",
    kind = "BuildConcurrencyPolicy",
    plural = "buildconcurrencypolicies",
    shortname = "ifbcp",
    category = "imagefactory",
    namespaced,
    status = "BuildConcurrencyPolicyStatus",
    derive = "PartialEq",
    doc = "A BuildConcurrencyPolicy named default says how many builds of its namespace may run at once.",
    printcolumn(name = "Max builds", type_ = "integer", json_path = ".spec.maxConcurrentBuilds"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = ("self.metadata.name == 'default'", "metadata.name must be default: a namespace has one policy"),
)]
#[serde(rename_all = "camelCase")]
pub struct BuildConcurrencyPolicySpec {
    /// How many builds of the namespace may run at once. Default: the operator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_concurrent_builds: Option<i32>,
    /// How many builds of one project may run at once. Default: no limit beside the namespace's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_concurrent_per_project: Option<i32>,
    /// How many builds of one method may run at once. Default: no limit beside the namespace's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub methods: Option<MethodLimits>,
    /// Whether builds of higher spec.priority go first; otherwise the order is that of arrival.
    /// Default: false.
    #[serde(default, skip_serializing_if = "super::is_default")]
    pub priority_dispatch: bool,
    /// Minutes after which a build that still waits fails with QueueTimeout. Default: the operator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 525_600))]
    pub max_queued_wait_minutes: Option<i32>,
    /// Share of the workers among namespaces that wait: one of weight 2 runs twice as many builds as
    /// one of weight 1. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub weight: Option<i32>,
}

/// How many builds of each method may run at once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MethodLimits {
    /// Builds of method kaniko.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub kaniko: Option<i32>,
    /// Builds of method buildx.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub buildx: Option<i32>,
    /// Builds of method container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub container: Option<i32>,
    /// Builds of method packer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub packer: Option<i32>,
    /// Builds of method paketo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub paketo: Option<i32>,
}

/// Whether the policy is in force.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BuildConcurrencyPolicyStatus {
    /// The metadata.generation this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, and Stalled where the specification can't act.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
