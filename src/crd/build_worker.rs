//! The kind BuildWorker: a place where builds run, and how many it takes. The whole kind is refused
//! until workers are more than the cluster itself; its schema stands already.

use std::collections::BTreeMap;

use image_factory_core::method::Method;
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::Toleration,
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Condition},
};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::reference::{SecretKeyReference, SecretReference};

/// A place where builds run.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "imagefactory.dev",
    version = "v1alpha1",
    kind = "BuildWorker",
    plural = "buildworkers",
    shortname = "ifbw",
    category = "imagefactory",
    namespaced,
    status = "BuildWorkerStatus",
    derive = "PartialEq",
    doc = "A BuildWorker is a place where builds run. One in the operator's own namespace serves every namespace.",
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.type"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Running", type_ = "integer", json_path = ".status.currentBuilds"),
    printcolumn(name = "Limit", type_ = "integer", json_path = ".spec.concurrentBuilds"),
    printcolumn(name = "Zone", type_ = "string", json_path = ".spec.zone", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = ("false", "BuildWorker is not available in this version of Image Factory"),
)]
#[serde(rename_all = "camelCase")]
pub struct BuildWorkerSpec {
    /// kubernetes: Jobs on nodes of this cluster. docker: a BuildKit daemon elsewhere, or one the
    /// operator runs. local: a process on a host.
    #[serde(rename = "type")]
    pub worker_type: WorkerType,
    /// How many builds the worker takes at once.
    #[schemars(range(min = 1, max = 100_000))]
    pub concurrent_builds: i32,
    /// Zone of the worker, matched by a Build's spec.worker.zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub zone: Option<String>,
    /// Labels of the worker, matched by a Build's spec.worker.selector. At most 64.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub labels: BTreeMap<String, String>,
    /// Methods the worker takes. Default: all its type can run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub methods: Vec<Method>,
    /// True takes no new builds; running ones go on. Default: false.
    #[serde(default, skip_serializing_if = "super::is_default")]
    pub cordon: bool,
    /// Labels of the nodes its Jobs run on. Type kubernetes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub node_selector: BTreeMap<String, String>,
    /// Taints of the nodes its Jobs tolerate. Type kubernetes; at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub tolerations: Vec<Toleration>,
    /// Address of a BuildKit daemon, such as tcp://buildkit.example.com:1234. Type docker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub endpoint: Option<String>,
    /// Secret with ca.crt, tls.crt and tls.key for the endpoint, in each Build's own namespace. Type
    /// docker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_secret: Option<SecretReference>,
    /// A BuildKit daemon that the operator runs, in place of an endpoint. Type docker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed: Option<ManagedDaemon>,
    /// The entry of a Secret with the token the process on the host presents. Type local.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_secret: Option<SecretKeyReference>,
}

/// What kind of place a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WorkerType {
    Docker,
    Kubernetes,
    Local,
}

/// A BuildKit daemon that the operator runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManagedDaemon {
    /// Size of the volume for its cache, such as 50Gi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "quantity")]
    pub storage: Option<Quantity>,
}

fn quantity(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"x-kubernetes-int-or-string": true, "maxLength": 32})
}

/// How the worker is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BuildWorkerStatus {
    /// The metadata.generation this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How the worker is: healthy, busy (at its limit), degraded or offline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<WorkerState>,
    /// Builds that run on it now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_builds: Option<i32>,
    /// When the worker was last heard of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_heartbeat: Option<Timestamp>,
    /// Share of the last seven days in which the worker was not offline, from 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uptime_percent: Option<f64>,
    /// Ready, and Stalled where the specification can't act.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// How a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WorkerState {
    Healthy,
    Busy,
    Degraded,
    Offline,
}
