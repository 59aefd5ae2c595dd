//! What the API server refuses by itself, asked from the real one by dry run: for each rule an object
//! that passes and one that is refused with exactly the rule's sentence. A rule without a row here
//! fails the first test, so that the table is complete.

mod cases;

use std::collections::BTreeSet;

use image_factory::crd::{self, Build};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
    core::GroupVersionKind,
};
use serde_json::{Value, json};

use super::cluster::client;
use cases::cases;

fn smallest(kind: &str) -> Value {
    let template = json!({
        "method": "buildx",
        "source": {"inline": {"files": {"Dockerfile": "FROM scratch"}}},
        "output": {"image": "localhost:5000/shop/web:1.2"},
    });
    let spec = match kind {
        "Build" => template,
        "BuildSchedule" => json!({"cron": "0 2 * * *", "template": {"spec": template}}),
        "WebhookConfig" => json!({
            "provider": "github", "secretRef": {"name": "hook", "key": "secret"}, "repository": "shop/web",
            "template": {"spec": template},
        }),
        "BuildWorker" => json!({"type": "kubernetes", "concurrentBuilds": 4}),
        "BuildConcurrencyPolicy" => json!({"maxConcurrentBuilds": 2}),
        other => unreachable!("no kind {other}"),
    };
    let name = if kind == "BuildConcurrencyPolicy" { "default" } else { "orchid" };
    json!({
        "apiVersion": "imagefactory.dev/v1alpha1", "kind": kind,
        "metadata": {"name": name, "namespace": "default"}, "spec": spec,
    })
}

/// JSON merge patch: null takes a field away.
fn merged(mut into: Value, patch: &Value) -> Value {
    match (&mut into, patch) {
        (Value::Object(fields), Value::Object(changes)) => {
            for (name, change) in changes {
                let old = fields.remove(name).unwrap_or(Value::Null);
                if !change.is_null() {
                    fields.insert(name.clone(), merged(old, change));
                }
            }
            into
        }
        _ => patch.clone(),
    }
}

async fn dry_run(client: &Client, kind: &str, object: &Value) -> kube::Result<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("imagefactory.dev", "v1alpha1", kind));
    let objects: Api<DynamicObject> = Api::namespaced_with(client.clone(), "default", &resource);
    let object = serde_json::from_value(object.clone()).expect("an object");
    objects.create(&PostParams { dry_run: true, ..PostParams::default() }, &object).await
}

fn messages(schema: &JSONSchemaProps, found: &mut BTreeSet<String>) {
    let schema = serde_json::to_value(schema).expect("a schema is JSON");
    let mut left = vec![&schema];
    while let Some(value) = left.pop() {
        match value {
            Value::Object(fields) => {
                let rules = fields.get("x-kubernetes-validations").and_then(Value::as_array);
                for rule in rules.into_iter().flatten() {
                    found.insert(rule["message"].as_str().expect("every rule has a sentence").to_owned());
                }
                left.extend(fields.values());
            }
            Value::Array(items) => left.extend(items),
            _ => {}
        }
    }
}

#[test]
fn every_rule_has_a_row_in_the_table() {
    let mut rules = BTreeSet::new();
    for definition in crd::definitions() {
        for version in definition.spec.versions {
            let schema = version.schema.and_then(|schema| schema.open_api_v3_schema).expect("a schema");
            messages(&schema, &mut rules);
        }
    }
    let cases = cases();
    let tested: BTreeSet<&str> = cases.iter().flat_map(|case| case.because.iter().copied()).collect();
    let missing: Vec<_> = rules.iter().filter(|rule| !tested.contains(rule.as_str())).collect();
    assert!(missing.is_empty(), "rules without a row: {missing:#?}");
}

#[tokio::test]
async fn each_rule_lets_the_right_object_pass_and_refuses_the_wrong_one_with_its_sentence() {
    let client = client().await;
    let mut wrong = Vec::new();
    for case in cases() {
        if let Some(accepted) = &case.accepted {
            let object = merged(smallest(case.kind), accepted);
            if let Err(error) = dry_run(&client, case.kind, &object).await {
                wrong.push(format!("should be accepted: {accepted}\n  {error}"));
            }
        }
        let refused = &case.refused;
        let shown = refused.to_string().chars().take(200).collect::<String>();
        match dry_run(&client, case.kind, &merged(smallest(case.kind), refused)).await {
            Ok(_) => wrong.push(format!("should be refused: {shown}")),
            Err(kube::Error::Api(status)) => {
                let causes = status.details.map(|details| details.causes).unwrap_or_default();
                let found: Vec<&str> = causes.iter().map(|cause| cause.message.as_str()).collect();
                let said = |sentence: &&str| found.iter().any(|message| message.ends_with(*sentence));
                if found.len() != case.because.len() || !case.because.iter().all(said) {
                    let found: Vec<String> = found.iter().map(|text| text.chars().take(300).collect()).collect();
                    wrong.push(format!("refused for other reasons: {shown}\n  {found:#?}"));
                }
            }
            Err(error) => wrong.push(format!("no answer about {shown}: {error}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn the_smallest_build_gets_its_defaults_and_counts_as_not_yet_observed() {
    let build = dry_run(&client().await, "Build", &smallest("Build")).await.expect("it is accepted");
    assert_eq!(build.data["spec"]["project"], "default");
    assert_eq!(build.data["spec"]["context"], ".");
    assert_eq!(build.data["spec"].get("dockerfile"), None);
    assert_eq!(build.data["status"], json!({"observedGeneration": -1}));
}

#[tokio::test]
async fn a_field_left_empty_in_a_template_counts_as_absent() {
    let client = client().await;
    let mut object = smallest("Build");
    for field in ["dockerfile", "target", "cache", "ssh", "scan", "worker", "timeout", "retries", "resources"] {
        object["spec"][field] = Value::Null;
    }
    object["spec"]["source"]["git"] = Value::Null;
    object["spec"]["options"] = json!({"compressedCaching": null, "format": null, "cacheTtl": null});
    dry_run(&client, "Build", &object).await.expect("it is accepted");
}

/// As `kubectl apply` asks by default.
#[tokio::test]
async fn a_field_that_no_kind_has_is_refused_by_its_path() {
    let client = client().await;
    for kind in ["Build", "BuildSchedule", "WebhookConfig", "BuildWorker", "BuildConcurrencyPolicy"] {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("imagefactory.dev", "v1alpha1", kind));
        let objects: Api<DynamicObject> = Api::namespaced_with(client.clone(), "default", &resource);
        let object = merged(smallest(kind), &json!({"spec": {"variety": "gala"}}));
        let name = object["metadata"]["name"].as_str().expect("a name");
        let strict = PatchParams::apply("orchard").dry_run().validation_strict();
        let refused = objects.patch(name, &strict, &Patch::Apply(&object)).await.expect_err(kind).to_string();
        assert!(refused.contains(".spec.variety: field not declared in schema"), "{kind}: {refused}");
    }
    let builds: Api<Build> = Api::namespaced(client, "default");
    let strict = PatchParams::apply("orchard").dry_run().validation_strict();
    builds.patch("orchid", &strict, &Patch::Apply(&smallest("Build"))).await.expect("without that field it is taken");
}
