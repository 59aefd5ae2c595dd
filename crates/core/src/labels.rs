//! Labels and annotations: how the operator finds an attempt's own Job and Pod, which rows a Build was made
//! for, and how people find theirs.

/// The attempt: `builds.id`.
pub const BUILD_ID: &str = "imagefactory.dev/build-id";
pub const BUILD: &str = "imagefactory.dev/build";
pub const PROJECT: &str = "imagefactory.dev/project";
pub const METHOD: &str = "imagefactory.dev/method";
pub const WORKER: &str = "imagefactory.dev/worker";
/// Label of a Build made by a BuildSchedule: the schedule's name.
pub const SCHEDULE: &str = "imagefactory.dev/schedule";
/// Label of a Build made by a WebhookConfig: the configuration's name.
pub const WEBHOOK: &str = "imagefactory.dev/webhook";
/// Label of the Job and the Pod that look at the heads of branches for a WebhookConfig: which look it is.
pub const POLL: &str = "imagefactory.dev/poll";
/// Annotation of a Build that was made for a slot or a delivery: the row's id.
pub const ORIGIN: &str = "imagefactory.dev/origin";
/// Annotation of a Build: the user who asked for its newest run, where an admission policy of ours writes it.
pub const REQUESTED_BY: &str = "imagefactory.dev/requested-by";
/// Annotation of a BuildSchedule: a new value makes one Build now.
pub const RUN_NOW: &str = "imagefactory.dev/run-now";
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
