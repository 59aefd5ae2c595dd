//! Objects nobody means well: whatever the API server lets through ends with a status and a row, and
//! the operator neither falls over nor forgets an object.
//!
//! Most are in a namespace that enforces the restricted level, and of methods that may not run in it: what is
//! accepted is refused by the operator, and 300 objects make no Pod. A few more may run.

use std::collections::BTreeMap;

use image_factory::crd::Build;
use image_factory_core::reason::Reason;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, api::ListParams, api::PostParams};
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, TestRng, TestRunner},
};
use serde_json::{Value, json};

use super::{
    chart, cluster, rows,
    tenant::{Tenant, condition, phase, status, tenant},
};

const OBJECTS: usize = 300;
const OBJECTS_TO_RUN: usize = 70;

const PRESS: &str = "variable \"juice\" {\n  default = \"\"\n}\nsource \"file\" \"press\" {\n  \
    content = var.juice\n  target  = \"juice.txt\"\n}\nbuild {\n  sources = [\"source.file.press\"]\n  \
    post-processor \"manifest\" {}\n}\n";

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

/// A Build with one to three fields turned hostile, by one of these methods.
fn manifest(methods: &[&'static str], image: String) -> impl Strategy<Value = Value> {
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
        "/spec/source/git",
        "/spec/source/git/url",
        "/spec/source/git/revision",
        "/spec/source/git/depth",
        "/spec/source/git/credentialsSecret",
        "/spec/source/git/credentialsSecret/name",
        "/spec/secrets",
        "/spec/secrets/0",
        "/spec/secrets/0/id",
        "/spec/secrets/0/secretRef/name",
        "/spec/secrets/0/secretRef/key",
        "/spec/output/credentialsSecret",
        "/spec/output/credentialsSecret/name",
        "/spec/timeout",
        "/spec/resources",
        "/spec/cache",
        "/spec/cancel",
        "/spec/retention",
        "/spec/packer",
        "/spec/packer/template",
        "/spec/packer/variables",
        "/spec/packer/variables/juice",
        "/metadata/annotations",
        "/metadata/annotations/imagefactory.dev~1rerun",
        "/metadata/labels",
    ];
    let method = prop::sample::select(methods.to_vec());
    // No Secret of these names is there, and no repository.
    let extras = (prop::bool::weighted(0.3), prop::bool::weighted(0.2), prop::bool::weighted(0.2));
    let repository = format!("{}/hostile.git", cluster::variable("GIT_URL"));
    let hostile = prop::collection::vec((prop::sample::select(fields.to_vec()), value()), 1..4);
    (method, extras, hostile).prop_map(move |(method, (git, secrets, credentials), hostile)| {
        let mut manifest = json!({
            "apiVersion": "imagefactory.dev/v1alpha1", "kind": "Build",
            "metadata": {"annotations": {"imagefactory.dev/rerun": "1"}, "labels": {"a": "b"}},
            "spec": {
                "project": "p", "method": method, "context": ".",
                "source": {"inline": {"files": {"Dockerfile": "FROM scratch"}}},
                "output": {"image": image, "tags": ["t"], "labels": {"a": "b"}, "insecure": true},
                "environment": {"A": "b"}, "timeout": "1m",
            },
        });
        if !matches!(method, "paketo" | "packer") {
            manifest["spec"]["buildArgs"] = json!({"A": "b"});
            if secrets {
                manifest["spec"]["secrets"] = json!([{"id": "s", "secretRef": {"name": "nowhere", "key": "k"}}]);
            }
        }
        if method == "packer" {
            manifest["spec"]["packer"] = json!({"template": PRESS, "variables": {"juice": "j"}});
        }
        if git {
            let from =
                json!({"url": repository, "revision": "main", "depth": 1, "credentialsSecret": {"name": "nowhere"}});
            manifest["spec"]["source"] = json!({"git": from});
        }
        if credentials {
            manifest["spec"]["output"]["credentialsSecret"] = json!({"name": "nowhere"});
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
        let before = restarts(tenant).await;
        let accepted = accepted(tenant, &["kaniko", "buildx", "container"], OBJECTS).await;
        assert!(accepted.len() > 30 && accepted.len() < OBJECTS - 30, "{} of {OBJECTS} pass", accepted.len());
        for name in &accepted {
            let held_or_ended = |build: &Build| {
                !status(build)["failure"].is_null() || (build.spec.cancel && !status(build)["conditions"].is_null())
            };
            let build = tenant.until(name, "a status", held_or_ended).await;
            let rows = tenant.attempts(&build).await.len();
            assert_eq!(rows, usize::from(!build.spec.cancel), "{name}");
        }
        let jobs = tenant.jobs().list_metadata(&ListParams::default()).await.expect("Jobs can be listed");
        assert!(jobs.items.is_empty(), "no Job was made");
        assert_eq!(restarts(tenant).await, before, "the operator did not fall over");
    })
    .await;
}

/// As many that pass run, or more.
const RUNNING: usize = 20;

#[tokio::test]
async fn hostile_objects_that_may_run_end_each_with_an_image_or_a_reason_that_is_no_fault_of_ours() {
    tenant("hostile-runs", "baseline", async |tenant| {
        let before = restarts(tenant).await;
        let accepted = accepted(tenant, &["container", "packer"], OBJECTS_TO_RUN).await;
        assert!(accepted.len() >= RUNNING, "{} of {OBJECTS_TO_RUN} pass", accepted.len());
        let mut ends = BTreeMap::<String, usize>::new();
        for name in &accepted {
            let held_or_ended =
                |build: &Build| build.spec.cancel || condition(build, "Finished").as_deref() == Some("True");
            let build = tenant.until(name, "its end", held_or_ended).await;
            if build.spec.cancel {
                continue;
            }
            let attempt = tenant.attempts(&build).await.pop().expect("a row");
            let result = rows::build_results(&tenant.pool, rows::id(&attempt)).await;
            let failure = &status(&build)["failure"];
            let reason = failure["reason"].as_str().unwrap_or("Success").to_owned();
            assert_eq!(phase(&build), if failure.is_null() { "Success" } else { "Failed" }, "{name}");
            assert_eq!(result["failure_reason"], failure["reason"], "{name}");
            if !failure.is_null() {
                reason.parse::<Reason>().expect("a reason of ours");
                assert!(!matches!(reason.as_str(), "Internal" | "AgentLost" | "JobDeleted"), "{name}: {failure:#}");
                assert!(failure["message"].as_str().is_some_and(|message| message.len() > 10), "{name}: {failure:#}");
            }
            *ends.entry(reason).or_default() += 1;
        }
        eprintln!("{ends:?}");
        assert!(ends.len() > 2, "they do not all end alike: {ends:?}");
        assert_eq!(restarts(tenant).await, before, "the operator did not fall over");
    })
    .await;
}

/// How often a container of the operator's Pods was started again.
async fn restarts(tenant: &Tenant) -> i32 {
    let operators: Api<Pod> = Api::namespaced(tenant.client.clone(), chart::NAMESPACE);
    let selector = ListParams::default().labels("app.kubernetes.io/name=image-factory");
    let pods = operators.list(&selector).await.expect("Pods can be listed");
    let statuses = pods.items.iter().filter_map(|pod| pod.status.as_ref()?.container_statuses.as_ref());
    statuses.flatten().map(|status| status.restart_count).sum()
}

/// Creates so many, the same at every run; the names of those that the API server lets through.
async fn accepted(tenant: &Tenant, methods: &[&'static str], objects: usize) -> Vec<String> {
    let rng = TestRng::deterministic_rng(Config::default().rng_algorithm);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let builds: Api<kube::core::DynamicObject> =
        Api::namespaced_with(tenant.client.clone(), &tenant.namespace, &kube::core::ApiResource::erase::<Build>(&()));
    let strategy = manifest(methods, tenant.image("hostile", "1"));
    let mut accepted = Vec::new();
    for index in 0..objects {
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
            Err(error) => unreachable!("the API server answers: {error} {manifest}"),
        }
    }
    accepted
}
