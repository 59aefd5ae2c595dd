//! Builds that run and fail: what the person who applied them is told, and that the rows say the same.

use image_factory::crd::Build;
use serde_json::{Value, json};

use super::{
    cluster, rows,
    tenant::{Tenant, condition, phase, status, tenant},
};

/// The failure a Build ended with, after checking that status, conditions and rows tell the same story.
pub async fn failure(tenant: &Tenant, build: &Build) -> Value {
    assert_eq!(phase(build), "Failed", "{:#}", status(build));
    let attempt = tenant.attempts(build).await.pop().expect("a row");
    let id = rows::id(&attempt);
    assert_eq!(rows::history(&tenant.pool, id).await, "queued → in_progress → failed");
    let failure = status(build)["failure"].clone();
    let result = rows::build_results(&tenant.pool, id).await;
    assert_eq!(attempt["status"], "failed");
    assert_eq!(attempt["error_message"], failure["message"]);
    assert_eq!(result["failure_reason"], failure["reason"]);
    assert_eq!(result["failure_stage"], failure["stage"]);
    assert_eq!(result["exit_code"], failure["exitCode"]);
    assert_eq!((&result["output_image_url"], &result["output_image_digest"]), (&Value::Null, &Value::Null));
    assert_eq!(rows::artifacts(&tenant.pool, id).await, Vec::<Value>::new());
    let conditions = ["Succeeded", "Finished", "Reconciling", "Stalled"].map(|kind| condition(build, kind));
    let [no, yes] = ["False", "True"].map(|text| Some(text.to_owned()));
    assert_eq!(conditions, [no, yes.clone(), None, yes]);
    failure
}

/// Reason, stage and exit code.
pub type Told<'a> = (&'a str, &'a str, Option<i64>);

pub fn told(failure: &Value) -> Told<'_> {
    let text = |field: &str| failure[field].as_str().unwrap_or_default();
    (text("reason"), text("stage"), failure["exitCode"].as_i64())
}

/// Applies all of these, and waits for each to fail as it says: what is `told`, and words of its message.
pub async fn each_fails(tenant: &Tenant, cases: &[(Value, Told<'_>, &str)]) {
    for (manifest, ..) in cases {
        tenant.apply(manifest).await;
    }
    for (manifest, expected, words) in cases {
        let name = manifest["metadata"]["name"].as_str().expect("a name");
        let build = tenant.finished(name, 1).await;
        let failure = failure(tenant, &build).await;
        assert_eq!(told(&failure), *expected, "{name}: {failure:#}");
        assert!(failure["message"].as_str().unwrap_or_default().contains(words), "{name}: {failure:#}");
    }
}

#[tokio::test]
async fn a_failing_instruction_is_told_with_its_exit_code_and_the_last_lines() {
    tenant("run-fails", "privileged", async |tenant| {
        let dockerfile = "FROM BASE\nRUN echo \"the tests begin\" && echo \"expected 4, found 5\" && exit 3\n";
        for method in ["buildx", "container"] {
            tenant.apply(&tenant.manifest(method, method, dockerfile)).await;
        }
        for method in ["buildx", "container"] {
            let build = tenant.finished(method, 1).await;
            let failure = failure(tenant, &build).await;
            assert_eq!(told(&failure), ("BuildFailed", "build", Some(3)), "{failure:#}");
            let tail = failure["logTail"].to_string();
            assert!(tail.contains("expected 4, found 5"), "{tail}");
            let log = rows::log(&tenant.pool, rows::id(&tenant.attempts(&build).await[0])).await.join("\n");
            assert!(log.contains("the tests begin") && !log.contains("lines of this log were lost"), "{log}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_line_that_no_builder_understands_is_quoted() {
    tenant("syntax", "privileged", async |tenant| {
        for method in ["buildx", "container"] {
            tenant.apply(&tenant.manifest(method, method, "FROM BASE\nPRESS apples\n")).await;
        }
        for method in ["buildx", "container"] {
            let build = tenant.finished(method, 1).await;
            let failure = failure(tenant, &build).await;
            let (reason, stage, _) = told(&failure);
            assert_eq!((reason, stage), ("BuildFailed", "build"), "{method}: {failure:#}");
            let message = failure["message"].as_str().unwrap_or_default();
            assert!(message.to_uppercase().contains("PRESS"), "{method}: {failure:#}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_path_that_leads_nowhere_is_told_before_the_builder_starts() {
    tenant("no-path", "baseline", async |tenant| {
        let mut elsewhere = tenant.manifest("elsewhere", "container", "FROM BASE");
        elsewhere["spec"]["dockerfile"] = json!("Presses");
        let mut nowhere = tenant.manifest("nowhere", "container", "FROM BASE");
        nowhere["spec"]["context"] = json!("orchard");
        for (manifest, reason, words) in [
            (&elsewhere, "DockerfileNotFound", ["Presses", "Dockerfile"]),
            (&nowhere, "InvalidSpec", ["orchard", "spec.context"]),
        ] {
            let name = manifest["metadata"]["name"].as_str().expect("a name");
            tenant.apply(manifest).await;
            let build = tenant.finished(name, 1).await;
            let failure = failure(tenant, &build).await;
            assert_eq!(told(&failure), (reason, "compile", Some(1)), "{failure:#}");
            let message = failure["message"].as_str().unwrap_or_default();
            assert!(words.iter().all(|word| message.contains(word)), "{message}");
            let log = rows::log(&tenant.pool, rows::id(&tenant.attempts(&build).await[0])).await;
            assert_eq!(log.last().map(String::as_str), Some(message), "the sentence is the log's last line");
        }
    })
    .await;
}

#[tokio::test]
async fn a_build_that_takes_longer_than_its_timeout_is_ended_and_told_so() {
    tenant("timeout", "privileged", async |tenant| {
        for method in ["buildx", "container"] {
            let mut manifest = tenant.manifest(method, method, "FROM BASE\nRUN echo \"at work\" && sleep 300\n");
            manifest["spec"]["timeout"] = json!("3s");
            tenant.apply(&manifest).await;
        }
        for method in ["buildx", "container"] {
            let build = tenant.finished(method, 1).await;
            let failure = failure(tenant, &build).await;
            assert_eq!(told(&failure), ("TimedOut", "build", None), "{failure:#}");
            let result = rows::build_results(&tenant.pool, rows::id(&tenant.attempts(&build).await[0])).await;
            assert_eq!(result["status"], "timeout");
            // The wait for the daemon counts as well.
            assert!(result["build_execution_milliseconds"].as_i64() >= Some(2_000), "{result:#}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_registry_that_does_not_answer_fails_the_push_not_the_build() {
    tenant("no-registry", "privileged", async |tenant| {
        let host = cluster::registry();
        let silent = format!("{}:9", host.split(':').next().unwrap_or_default());
        for method in ["buildx", "container"] {
            let mut manifest = tenant.manifest(method, method, "FROM BASE\nRUN echo \"at work\"\n");
            manifest["spec"]["output"]["image"] = json!(format!("{silent}/cider/{method}:1"));
            tenant.apply(&manifest).await;
        }
        for method in ["buildx", "container"] {
            let build = tenant.finished(method, 1).await;
            let failure = failure(tenant, &build).await;
            let (reason, stage, _) = told(&failure);
            assert_eq!((reason, stage), ("PushFailed", "push"), "{failure:#}");
            assert!(failure["message"].as_str().unwrap_or_default().contains(&silent), "{failure:#}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_base_image_that_is_nowhere_is_named() {
    tenant("no-base", "privileged", async |tenant| {
        let dockerfile = format!("FROM {}/cider/never-pushed:7\n", cluster::registry());
        for method in ["buildx", "container"] {
            tenant.apply(&tenant.manifest(method, method, &dockerfile)).await;
        }
        for method in ["buildx", "container"] {
            let build = tenant.finished(method, 1).await;
            let failure = failure(tenant, &build).await;
            let (reason, stage, _) = told(&failure);
            assert_eq!((reason, stage), ("BuildFailed", "build"), "{failure:#}");
            assert!(failure["message"].as_str().unwrap_or_default().contains("cider/never-pushed:7"), "{failure:#}");
        }
    })
    .await;
}
