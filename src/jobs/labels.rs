//! Labels of a Job and its Pod: how the collector finds its attempt, and people their Pods.

use std::collections::BTreeMap;

use super::Launch;

/// The attempt: `builds.id`.
pub const BUILD_ID: &str = "imagefactory.dev/build-id";
pub const BUILD: &str = "imagefactory.dev/build";
pub const PROJECT: &str = "imagefactory.dev/project";
pub const METHOD: &str = "imagefactory.dev/method";
pub const WORKER: &str = "imagefactory.dev/worker";
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

pub(super) fn of(launch: &Launch) -> BTreeMap<String, String> {
    BTreeMap::from(
        [
            (BUILD_ID, launch.id.to_string()),
            (BUILD, launch.build.clone()),
            (PROJECT, launch.project.clone()),
            (METHOD, launch.spec.method.as_str().to_owned()),
            (WORKER, launch.worker.clone()),
            (MANAGED_BY, "image-factory".to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value)),
    )
}
