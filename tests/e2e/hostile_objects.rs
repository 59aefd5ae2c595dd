//! Objects nobody means well: whatever the API server lets through ends with a status and a row, and
//! the operator neither falls over nor forgets an object.
//!
//! The namespace enforces the restricted level, so that no method may run in it: what is accepted is
//! refused by the operator, and 300 objects make no Pod.

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, api::ListParams, api::PostParams};
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, TestRng, TestRunner},
};
use serde_json::{Value, json};

use super::{
    rights,
    tenant::{status, tenant},
    watching,
};

const OBJECTS: usize = 300;

/// Text that breaks what takes it for granted.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("$(DOCKER_CONFIG) $$ ${PATH} `id`".to_owned()),
        Just("--upload-pack=touch /tmp/x".to_owned()),
        Just("../../etc/passwd".to_owned()),
        Just("a\u{0}b".to_owned()),
        Just("\u{202e}\u{feff}\u{1f4a3}\u{300}".to_owned()),
        Just("'; drop table builds; --".to_owned()),
        Just("line\r\nline\ttab\u{1b}[31m".to_owned()),
        Just("x".repeat(5_000)),
        Just("ü".repeat(3_000)),
        "[ -~]{1,40}",
        ".{1,20}",
    ]
}

/// Any JSON where a text or a number is expected.
fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        8 => text().prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => Just(Value::Null),
        1 => Just(json!([])),
        1 => Just(json!({"a": {"b": [null, "c"]}})),
    ]
}

/// A Build with one to three fields turned hostile.
fn manifest(image: String) -> impl Strategy<Value = Value> {
    let fields = [
        "/spec/project",
        "/spec/context",
        "/spec/dockerfile",
        "/spec/target",
        "/spec/buildArgs",
        "/spec/buildArgs/A",
        "/spec/environment",
        "/spec/environment/A",
        "/spec/output/image",
        "/spec/output/labels",
        "/spec/output/labels/a",
        "/spec/output/tags",
        "/spec/output/tags/0",
        "/spec/source",
        "/spec/source/inline/files",
        "/spec/source/inline/files/Dockerfile",
        "/spec/timeout",
        "/spec/resources",
        "/spec/cache",
        "/spec/cancel",
        "/spec/retention",
        "/metadata/annotations",
        "/metadata/annotations/imagefactory.dev~1rerun",
        "/metadata/labels",
    ];
    let method = prop::sample::select(vec!["kaniko", "buildx", "container", "paketo", "packer"]);
    let hostile = prop::collection::vec((prop::sample::select(fields.to_vec()), value()), 1..4);
    (method, hostile).prop_map(move |(method, hostile)| {
        let mut manifest = json!({
            "apiVersion": "imagefactory.dev/v1alpha1", "kind": "Build",
            "metadata": {"annotations": {"imagefactory.dev/rerun": "1"}, "labels": {"a": "b"}},
            "spec": {
                "project": "p", "method": method, "context": ".",
                "source": {"inline": {"files": {"Dockerfile": "FROM scratch"}}},
                "output": {"image": image, "tags": ["t"], "labels": {"a": "b"}},
                "environment": {"A": "b"}, "timeout": "1m",
            },
        });
        if !matches!(method, "paketo" | "packer") {
            manifest["spec"]["buildArgs"] = json!({"A": "b"});
        }
        for (field, value) in hostile {
            if let Some(place) = manifest.pointer_mut(field) {
                *place = value;
            }
        }
        manifest
    })
}

#[tokio::test]
async fn of_three_hundred_hostile_objects_each_is_refused_or_ends_with_a_row_and_a_status() {
    tenant("hostile", "restricted", async |tenant| {
        let operators: Api<Pod> = Api::namespaced(tenant.client.clone(), rights::NAMESPACE);
        let selector = ListParams::default().labels("app.kubernetes.io/name=image-factory");
        let restarts = async || -> i32 {
            let pods = operators.list(&selector).await.expect("Pods can be listed");
            let statuses = pods.items.iter().filter_map(|pod| pod.status.as_ref()?.container_statuses.as_ref());
            statuses.flatten().map(|status| status.restart_count).sum()
        };
        let before = restarts().await;
        // The same objects at every run.
        let rng = TestRng::deterministic_rng(Config::default().rng_algorithm);
        let mut runner = TestRunner::new_with_rng(Config::default(), rng);
        let builds: Api<kube::core::DynamicObject> = Api::namespaced_with(
            tenant.client.clone(),
            &tenant.namespace,
            &kube::core::ApiResource::erase::<image_factory::crd::Build>(&()),
        );
        let strategy = manifest(tenant.image("hostile", "1"));
        let mut accepted = Vec::new();
        for index in 0..OBJECTS {
            let mut manifest = strategy.new_tree(&mut runner).expect("a manifest").current();
            manifest["metadata"]["name"] = json!(format!("hostile-{index}"));
            manifest["metadata"]["namespace"] = json!(tenant.namespace);
            let Ok(object) = serde_json::from_value(manifest.clone()) else { continue };
            match builds.create(&PostParams::default(), &object).await {
                Ok(created) => accepted.push(created.name_any()),
                Err(kube::Error::Api(error)) => assert!(
                    matches!(error.code, 400 | 413 | 422),
                    "refused as what it is: {} {} {manifest}",
                    error.code,
                    error.message
                ),
                Err(error) => panic!("the API server answers: {error} {manifest}"),
            }
        }
        assert!(accepted.len() > 30 && accepted.len() < OBJECTS - 30, "{} of {OBJECTS} pass", accepted.len());
        for name in &accepted {
            let held_or_ended = |build: &image_factory::crd::Build| {
                !status(build)["failure"].is_null() || (build.spec.cancel && !status(build)["conditions"].is_null())
            };
            let build = tenant.until(name, "a status", held_or_ended).await;
            let rows = tenant.attempts(&build).await.len();
            assert_eq!(rows, usize::from(!build.spec.cancel), "{name}");
        }
        let jobs = tenant.jobs().list_metadata(&ListParams::default()).await.expect("Jobs can be listed");
        assert!(jobs.items.is_empty(), "no Job was made");
        let alive = watching::eventually("an operator", async || Some(restarts().await)).await;
        assert_eq!(alive, before, "the operator did not fall over");
    })
    .await;
}
