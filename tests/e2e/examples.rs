//! The examples are applied as they are and end as their comments say, so that they can't rot. They
//! bring their own namespaces, which stay; each Build is run once more where it had run before.

use std::{collections::BTreeMap, fs, path::Path};

use image_factory::{clock, crd::Build};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
    core::GroupVersionKind,
};
use serde::Deserialize;
use serde_json::json;

use super::{
    cluster,
    tenant::{APPLIER, condition, status},
    watching,
};

/// How each Build ends: namespace/name → phase and the reason of the condition Succeeded. That of buildpacks where
/// there is a builder.
const ENDS: [(&str, (&str, &str)); 6] = [
    ("team-a/failing", ("Failed", "BuildFailed")),
    ("team-a/greeting", ("Success", "Success")),
    ("team-a/greeting-from-git", ("Success", "Success")),
    ("team-b/greeting", ("Success", "Success")),
    ("team-c/disk", ("Success", "Success")),
    ("team-c/page", ("Success", "Success")),
];
const WITHOUT_BUILDER: (&str, (&str, &str)) = ("team-c/page", ("Failed", "MethodNotAvailable"));

fn documents() -> Vec<DynamicObject> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut files: Vec<_> = fs::read_dir(folder)
        .expect("there are examples")
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    // As `kubectl apply -f examples/` would.
    files.sort();
    let mut documents = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("an example can be read");
        for document in serde_yaml::Deserializer::from_str(&text) {
            let object = DynamicObject::deserialize(document);
            documents.push(object.unwrap_or_else(|error| unreachable!("{}: {error}", file.display())));
        }
    }
    documents
}

fn api(client: &Client, object: &DynamicObject) -> Api<DynamicObject> {
    let types = object.types.as_ref().expect("an object says its kind");
    let kind: GroupVersionKind = types.try_into().expect("a kind");
    let resource = ApiResource::from_gvk(&kind);
    match &object.metadata.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

#[tokio::test]
async fn every_example_can_be_applied_as_it_is_and_ends_as_it_says() {
    let client = cluster::client().await;
    let again = clock::new_id().to_string();
    let mut builds = BTreeMap::new();
    for object in documents() {
        let name = object.metadata.name.clone().expect("an object has a name");
        let params = PatchParams::apply(APPLIER).force();
        let api = api(&client, &object);
        let applied = api.patch(&name, &params, &Patch::Apply(&object)).await;
        applied.unwrap_or_else(|error| unreachable!("{name} is refused: {error}"));
        if object.types.is_some_and(|types| types.kind == "Build") {
            let rerun = json!({"metadata": {"annotations": {"imagefactory.dev/rerun": again}}});
            api.patch(&name, &PatchParams::default(), &Patch::Merge(rerun)).await.expect("it can be run again");
            let namespace = object.metadata.namespace.expect("a Build has a namespace");
            builds.insert(format!("{namespace}/{name}"), (namespace, name));
        }
    }
    let named: Vec<&str> = builds.keys().map(String::as_str).collect();
    assert_eq!(named, ENDS.map(|(build, _)| build), "each example's end is known here");
    let has_builder = cluster::paketo_image().await.is_some();
    for end in ENDS {
        let (build, (phase, reason)) = if end.0 == WITHOUT_BUILDER.0 && !has_builder { WITHOUT_BUILDER } else { end };
        let (namespace, name) = &builds[build];
        let api: Api<Build> = Api::namespaced(client.clone(), namespace);
        let over = |build: Option<&Build>| {
            build.is_some_and(|build| {
                status(build)["observedRerun"] == again && condition(build, "Finished").as_deref() == Some("True")
            })
        };
        let found = watching::until(&api, name, "its end", over).await.expect("it is there");
        assert_eq!(status(&found)["phase"], phase, "{build}: {:#}", status(&found));
        assert_eq!(status(&found)["conditions"][0]["reason"], reason, "{build}");
    }
}
