//! The kind BuildSchedule: makes a Build at the times of a cron expression. The whole kind is refused
//! until schedules run; its schema stands already, so that manifests can be written and checked.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::template::BuildTemplate;

/// When a Build is made, and which.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "imagefactory.dev",
    version = "v1alpha1",
    kind = "BuildSchedule",
    plural = "buildschedules",
    shortname = "ifbs",
    category = "imagefactory",
    namespaced,
    status = "BuildScheduleStatus",
    derive = "PartialEq",
    doc = "A BuildSchedule makes a Build at the times of a cron expression.",
    printcolumn(name = "Cron", type_ = "string", json_path = ".spec.cron"),
    printcolumn(name = "Suspended", type_ = "boolean", json_path = ".spec.suspend"),
    printcolumn(name = "Next", type_ = "string", json_path = ".status.nextTriggerAt"),
    printcolumn(name = "Last build", type_ = "string", json_path = ".status.lastBuild"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = ("false", "BuildSchedule is not available in this version of Image Factory"),
)]
#[serde(rename_all = "camelCase")]
pub struct BuildScheduleSpec {
    /// Cron expression of five fields: minute, hour, day of month, month, day of week.
    #[schemars(length(min = 9, max = 256))]
    pub cron: String,
    /// IANA time zone the expression is read in, such as Europe/Berlin. Default: UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub timezone: Option<String>,
    /// True makes no Builds until it is false again. Default: false.
    #[serde(default, skip_serializing_if = "super::is_default")]
    pub suspend: bool,
    /// What happens when the last Build still runs: Allow makes another, Forbid makes none, Replace
    /// cancels it and makes another. Default: Allow.
    #[serde(default, skip_serializing_if = "super::is_default")]
    pub concurrency_policy: ConcurrencyPolicy,
    /// Seconds after which a missed time is not made up for. Default: no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub starting_deadline_seconds: Option<i64>,
    /// Branch that is built, in place of the template's revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub branch: Option<String>,
    /// True scans the image pushed last, without building. The template must have a scan. Default: false.
    #[serde(default, skip_serializing_if = "super::is_default")]
    pub rescan: bool,
    /// How many successful Builds are kept as objects; rows in Postgres stay. Default: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub successful_builds_history_limit: Option<i32>,
    /// How many failed Builds are kept as objects; rows in Postgres stay. Default: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub failed_builds_history_limit: Option<i32>,
    /// The Build to make.
    pub template: BuildTemplate,
}

/// What happens when the last Build still runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConcurrencyPolicy {
    #[default]
    Allow,
    Forbid,
    Replace,
}

/// When the schedule acted last, and when it will next.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BuildScheduleStatus {
    /// The metadata.generation this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When the next Build will be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_trigger_at: Option<Timestamp>,
    /// When the last Build was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_triggered_at: Option<Timestamp>,
    /// Name of the last Build made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_build: Option<String>,
    /// The cron expression in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Ready, and Stalled where the specification can't act.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
