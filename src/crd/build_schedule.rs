//! The kind BuildSchedule: makes a Build at the times of a cron expression. Whether the expression and its time
//! zone can be read is no rule of the API, and stands in the status.

use image_factory_core::retention::Limits;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{build::BuildSpec, template::BuildTemplate, unavailable};

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
    validation = ("size(self.metadata.name) <= 41", "metadata.name must be at most 41 characters: the names of its Builds add the minute; shorten it"),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "!has(self.branch) || has(self.template.spec.source.git)",
    "spec.branch is for a template whose source is git; remove it"
))]
#[x_kube(validation = (
    "!has(self.template.spec.cancel) || !self.template.spec.cancel",
    "spec.template.spec.cancel would hold back every Build that is made; remove it, or set spec.suspend"
))]
#[x_kube(validation = unavailable("spec.rescan", "!has(self.rescan) || !self.rescan"))]
pub struct BuildScheduleSpec {
    /// Cron expression of five fields: minute, hour, day of month, month, day of week.
    #[schemars(length(min = 9, max = 256))]
    #[x_kube(validation = (
        r"self.matches('^[ \\t]*([^ \\t]+[ \\t]+){4}[^ \\t]+[ \\t]*$')",
        "spec.cron must have five fields: minute, hour, day of month, month and day of week, such as `0 2 * * *`"
    ))]
    pub cron: String,
    /// IANA time zone the expression is read in, such as Europe/Berlin. Default: UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub timezone: Option<String>,
    /// True makes no Builds until it is false again, but for those asked for by the annotation
    /// imagefactory.dev/run-now. Times that pass meanwhile are not made up for. Default: false.
    #[serde(default, skip_serializing_if = "super::is_default")]
    pub suspend: bool,
    /// What happens when a Build made before has not ended: Allow makes another, Forbid makes none, Replace
    /// cancels it and makes another when it has ended. Default: Allow.
    #[serde(default, skip_serializing_if = "super::is_default")]
    pub concurrency_policy: ConcurrencyPolicy,
    /// Seconds after which a missed time is not made up for. Default: no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub starting_deadline_seconds: Option<i64>,
    /// Branch that is built, in place of the template's revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = (
        r"self.matches('^[A-Za-z0-9_][A-Za-z0-9._/+@-]*$') && !self.matches(r'[.][.]|//|/$|[.]lock$')",
        "spec.branch must be a branch: letters, digits and ._/+@- that start with a letter, digit or `_`, without `..` or `//` and not ending with `/` or `.lock`"
    ))]
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

impl BuildScheduleSpec {
    pub fn starting_deadline(&self) -> Option<SignedDuration> {
        self.starting_deadline_seconds.map(SignedDuration::from_secs)
    }

    /// How many ended Builds are kept.
    pub fn history(&self) -> Limits {
        Limits::of(self.successful_builds_history_limit, self.failed_builds_history_limit)
    }

    /// The specification of a Build made for it.
    pub fn build(&self) -> BuildSpec {
        let mut spec = self.template.spec.clone();
        if let (Some(git), Some(branch)) = (&mut spec.source.git, &self.branch) {
            git.revision = Some(branch.clone());
        }
        spec
    }
}

/// What happens when a Build made before has not ended.
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
