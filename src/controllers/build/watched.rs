//! What the watch keeps of a Build: whose it is, what it asks for and what its status has told. The spec
//! itself is kept nowhere: whoever acts reads it live. So the operator's memory does not grow with
//! what people write into their specs, nor with what became of their builds.

use std::{
    borrow::Cow,
    hash::{DefaultHasher, Hash, Hasher},
};

use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Resource, core::DeserializeGuard};
use serde::Deserialize;

use super::{plan::Desired, told::Told};
use crate::crd::Build;

/// An object that can't be read as a Build stops nothing but itself.
pub type Guarded = DeserializeGuard<Watched>;

#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Build")]
pub struct Watched {
    pub metadata: ObjectMeta,
    pub desired: Desired,
    /// What its status has told; `None` where it has no status.
    pub told: Option<Told>,
}

impl TryFrom<Build> for Watched {
    type Error = serde_json::Error;

    fn try_from(mut build: Build) -> Result<Self, serde_json::Error> {
        let desired = Desired::of(&build)?;
        forget_the_rest(&mut build.metadata);
        Ok(Self { metadata: build.metadata, desired, told: build.status.as_ref().map(Told::of) })
    }
}

/// Leaves what identifies an object and its version. An annotation may hold the whole spec again.
pub fn forget_the_rest(metadata: &mut ObjectMeta) {
    *metadata = ObjectMeta {
        name: metadata.name.take(),
        namespace: metadata.namespace.take(),
        uid: metadata.uid.take(),
        generation: metadata.generation.take(),
        resource_version: metadata.resource_version.take(),
        creation_timestamp: metadata.creation_timestamp.take(),
        ..ObjectMeta::default()
    };
}

/// Changes exactly when a person has asked for something else, not with the status.
pub fn asked(build: &Guarded) -> Option<u64> {
    let rerun = build.0.as_ref().ok().and_then(|build| build.desired.rerun.as_deref());
    let mut hasher = DefaultHasher::new();
    (build.meta().generation, rerun).hash(&mut hasher);
    Some(hasher.finish())
}

impl Resource for Watched {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind(dynamic: &()) -> Cow<'_, str> {
        Build::kind(dynamic)
    }

    fn group(dynamic: &()) -> Cow<'_, str> {
        Build::group(dynamic)
    }

    fn version(dynamic: &()) -> Cow<'_, str> {
        Build::version(dynamic)
    }

    fn plural(dynamic: &()) -> Cow<'_, str> {
        Build::plural(dynamic)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn manifest() -> Value {
        json!({
            "metadata": {
                "name": "cider", "namespace": "orchard", "uid": "u", "generation": 3, "resourceVersion": "7",
                "annotations": {"imagefactory.dev/rerun": "monday", "last-applied": "a whole spec"},
                "managedFields": [{"manager": "orchard"}],
                "labels": {"variety": "gala"},
            },
            "spec": {
                "method": "container",
                "source": {"inline": {"files": {"Dockerfile": "FROM scratch"}}},
                "output": {"image": "registry.test/orchard/cider:1"},
            },
            "status": {"phase": "Success", "observedGeneration": 3},
        })
    }

    fn read(manifest: Value) -> Guarded {
        serde_json::from_value(manifest).unwrap()
    }

    #[test]
    fn the_watch_keeps_what_a_build_asks_for_and_not_its_spec() {
        let whole: Build = serde_json::from_value(manifest()).unwrap();
        let watched = read(manifest()).0.unwrap();
        assert_eq!(watched.desired, Desired::of(&whole).unwrap());
        assert_eq!(watched.told, whole.status.as_ref().map(Told::of));
        let kept =
            json!({"name": "cider", "namespace": "orchard", "uid": "u", "generation": 3, "resourceVersion": "7"});
        assert_eq!(serde_json::to_value(&watched.metadata).unwrap(), kept);
    }

    #[test]
    fn a_build_is_reconciled_again_when_something_else_is_asked_and_not_for_its_status() {
        let before = asked(&read(manifest()));
        for (pointer, value, changes) in [
            ("/status/phase", json!("Failed"), false),
            ("/metadata/resourceVersion", json!("8"), false),
            ("/metadata/labels/variety", json!("fuji"), false),
            ("/metadata/generation", json!(4), true),
            ("/metadata/annotations/imagefactory.dev~1rerun", json!("tuesday"), true),
        ] {
            let mut changed = manifest();
            *changed.pointer_mut(pointer).unwrap() = value;
            assert_eq!(asked(&read(changed)) != before, changes, "{pointer}");
        }
    }

    #[test]
    fn what_is_no_build_still_has_a_name() {
        let mut broken = manifest();
        broken["spec"]["method"] = json!("alchemy");
        let broken = read(broken);
        assert!(broken.0.as_ref().unwrap_err().error.contains("alchemy"));
        assert_eq!(broken.meta().name.as_deref(), Some("cider"));
    }
}
