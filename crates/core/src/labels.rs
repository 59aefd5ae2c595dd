//! Labels of a Job and its Pod: how the operator finds an attempt's own, and people theirs.

/// The attempt: `builds.id`.
pub const BUILD_ID: &str = "imagefactory.dev/build-id";
pub const BUILD: &str = "imagefactory.dev/build";
pub const PROJECT: &str = "imagefactory.dev/project";
pub const METHOD: &str = "imagefactory.dev/method";
pub const WORKER: &str = "imagefactory.dev/worker";
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
