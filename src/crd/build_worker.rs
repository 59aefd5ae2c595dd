//! The kind BuildWorker: a place where builds run, and how many it takes. Labels and taints are held to what
//! Kubernetes itself takes, so that no Job is refused for its worker.

use std::collections::BTreeMap;

use image_factory_core::{method::Method, worker_health};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Condition};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    reference::{SecretKeyReference, SecretReference},
    unavailable,
};

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
    printcolumn(name = "Cordon", type_ = "boolean", json_path = ".spec.cordon"),
    printcolumn(name = "Zone", type_ = "string", json_path = ".spec.zone", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = (
        "size(self.metadata.name) <= 63",
        "metadata.name must have at most 63 characters: it is a label of the worker's Jobs"
    ),
    validation = (
        "self.metadata.name != 'cluster'",
        "metadata.name cluster is the built-in worker's, which is set by the operator's configuration; choose another"
    ),
)]
#[serde(rename_all = "camelCase")]
// What is in the API and does not act yet. Delete a line when its type does.
#[x_kube(validation = unavailable("spec.type docker", "self.type != 'docker'"))]
#[x_kube(validation = unavailable("spec.type local", "self.type != 'local'"))]
#[x_kube(validation = unavailable("spec.endpoint", "!has(self.endpoint)"))]
#[x_kube(validation = unavailable("spec.tlsSecret", "!has(self.tlsSecret)"))]
#[x_kube(validation = unavailable("spec.managed", "!has(self.managed)"))]
#[x_kube(validation = unavailable("spec.tokenSecret", "!has(self.tokenSecret)"))]
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
    #[x_kube(validation = (
        "self.matches('^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$')",
        "spec.zone must hold only letters, digits, `-`, `_` and `.`, and start and end with a letter or digit"
    ))]
    pub zone: Option<String>,
    /// Labels of the worker, matched by a Build's spec.worker.selector. At most 64.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    #[schemars(schema_with = "label_values")]
    #[x_kube(validation = (
        "self.all(key, !format.qualifiedName().validate(key).hasValue())",
        "each key of spec.labels must be a label's key as Kubernetes has it: [prefix/]name, the name at most 63 letters, digits, `-`, `_` and `.`"
    ))]
    #[x_kube(validation = (
        "self.all(key, !format.labelValue().validate(self[key]).hasValue())",
        "each value in spec.labels must be a label's value as Kubernetes has it: at most 63 letters, digits, `-`, `_` and `.`"
    ))]
    pub labels: BTreeMap<String, String>,
    /// Methods the worker takes. Default: all its type can run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub methods: Vec<Method>,
    /// True takes no new builds; running ones go on. Default: false.
    #[serde(default, skip_serializing_if = "super::is_default")]
    pub cordon: bool,
    /// Labels of the nodes its Jobs run on. Default: any node. Type kubernetes; at most 64.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    #[schemars(schema_with = "label_values")]
    #[x_kube(validation = (
        "self.all(key, !format.qualifiedName().validate(key).hasValue())",
        "each key of spec.nodeSelector must be a label's key as Kubernetes has it: [prefix/]name, the name at most 63 letters, digits, `-`, `_` and `.`"
    ))]
    #[x_kube(validation = (
        "self.all(key, !format.labelValue().validate(self[key]).hasValue())",
        "each value in spec.nodeSelector must be a label's value as Kubernetes has it: at most 63 letters, digits, `-`, `_` and `.`"
    ))]
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

fn label_values(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "additionalProperties": {"type": "string", "maxLength": 63},
    })
}

/// What kind of place a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WorkerType {
    Docker,
    Kubernetes,
    Local,
}

/// A taint of nodes that does not keep the worker's Jobs away; the fields are those of a Pod's toleration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.key) || (has(self.operator) && self.operator == 'Exists')",
    "each of spec.tolerations without a key must have the operator Exists: it tolerates every taint"
))]
#[x_kube(validation = (
    "!has(self.value) || self.value == '' || !has(self.operator) || self.operator != 'Exists'",
    "each of spec.tolerations with the operator Exists takes no value; remove it"
))]
#[x_kube(validation = (
    "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
    "each of spec.tolerations with tolerationSeconds must have the effect NoExecute"
))]
pub struct Toleration {
    /// Key of the taint. Default: every key, which needs the operator Exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 317))]
    #[x_kube(validation = (
        "!format.qualifiedName().validate(self).hasValue()",
        "the key of each of spec.tolerations must be a label's key as Kubernetes has it, such as example.com/gpu"
    ))]
    pub key: Option<String>,
    /// Whether the value must be equal, or any value does. Default: Equal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<TolerationOperator>,
    /// Value of the taint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    #[x_kube(validation = (
        "!format.labelValue().validate(self).hasValue()",
        "the value of each of spec.tolerations must be a label's value as Kubernetes has it: at most 63 letters, digits, `-`, `_` and `.`"
    ))]
    pub value: Option<String>,
    /// Effect of the taint. Default: every effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<worker_health::Effect>,
    /// How long a Pod stays on a node that gets the taint. Default: for ever. Effect NoExecute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toleration_seconds: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TolerationOperator {
    Equal,
    Exists,
}

impl From<&Toleration> for worker_health::Toleration {
    fn from(toleration: &Toleration) -> Self {
        let Toleration { key, operator, value, effect, toleration_seconds: _ } = toleration.clone();
        let any_value = operator == Some(TolerationOperator::Exists);
        Self { key, value: (!any_value).then(|| value.unwrap_or_default()), effect }
    }
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
