//! The Build of a slot: the schedule's template under the slot's name. Its annotation says which row it was made for.
//! Pure.

use image_factory_core::labels;
use kube::ResourceExt;
use uuid::Uuid;

use crate::crd::{Build, BuildSchedule};

pub fn build(schedule: &BuildSchedule, name: &str, slot: Uuid) -> Build {
    let metadata = schedule.spec.template.metadata.clone().unwrap_or_default();
    metadata.build(schedule, labels::SCHEDULE, name, slot, schedule.spec.build())
}

/// Whether a Build was made for this slot.
pub fn is_of(build: &impl ResourceExt, slot: Uuid) -> bool {
    build.annotations().get(labels::ORIGIN).is_some_and(|origin| *origin == slot.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_build_is_the_template_with_its_owner_its_slot_and_the_branch() {
        let schedule: BuildSchedule = serde_json::from_value(json!({
            "metadata": {"name": "nightly", "namespace": "orchard", "uid": "u"},
            "spec": {
                "cron": "0 2 * * *", "branch": "release",
                "template": {
                    "metadata": {
                        "labels": {"fruit": "apple", "imagefactory.dev/schedule": "another"},
                        "annotations": {"why": "fresh", "imagefactory.dev/origin": "another"},
                    },
                    "spec": {
                        "method": "container",
                        "source": {"git": {"url": "https://git.test/cider.git", "revision": "v1"}},
                        "output": {"image": "registry.test/orchard/cider:1"},
                    },
                },
            },
        }))
        .unwrap();
        let slot: Uuid = "0190a5b2-7c3d-7e4f-8a1b-00001f3a9c2e".parse().unwrap();
        let build = build(&schedule, "nightly-29929080", slot);
        assert!(is_of(&build, slot) && !is_of(&build, Uuid::nil()));
        assert_eq!(
            serde_json::to_value(&build).unwrap(),
            json!({
                "apiVersion": "imagefactory.dev/v1alpha1", "kind": "Build",
                "metadata": {
                    "name": "nightly-29929080", "namespace": "orchard",
                    "labels": {"fruit": "apple", "imagefactory.dev/schedule": "nightly"},
                    "annotations": {"why": "fresh", "imagefactory.dev/origin": slot.to_string()},
                    "ownerReferences": [{
                        "apiVersion": "imagefactory.dev/v1alpha1", "kind": "BuildSchedule", "name": "nightly",
                        "uid": "u", "controller": true,
                    }],
                },
                "spec": {
                    "project": "default", "method": "container", "context": ".",
                    "source": {"git": {"url": "https://git.test/cider.git", "revision": "release"}},
                    "output": {"image": "registry.test/orchard/cider:1"},
                },
            })
        );
    }
}
