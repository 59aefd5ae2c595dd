//! The labels of an attempt's Job and Pod.

use std::collections::BTreeMap;

use image_factory_core::labels::{BUILD, BUILD_ID, MANAGED_BY, METHOD, PROJECT, WORKER};

use super::Launch;

pub(super) fn of(launch: &Launch) -> BTreeMap<String, String> {
    BTreeMap::from(
        [
            (BUILD_ID, launch.id.to_string()),
            (BUILD, launch.build.clone()),
            (PROJECT, launch.project.clone()),
            (METHOD, launch.spec.method.as_str().to_owned()),
            (WORKER, launch.worker.name.clone()),
            (MANAGED_BY, "image-factory".to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value)),
    )
}
