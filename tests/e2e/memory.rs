//! What a run uses, counted in the container that does the work, and what becomes of one that uses more than it may.

use image_factory_core::report::{AgentReport, Usage};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::{
    failing_builds::{failure, told},
    rows,
    tenant::{Tenant, phase, status, tenant},
};

const MEBIBYTE: u64 = 1024 * 1024;

/// Takes so many MiB of memory for a while: dd fills a buffer of that size.
fn taking(mebibytes: u64) -> String {
    format!("FROM BASE\nRUN dd if=/dev/zero of=/dev/null bs={mebibytes}M count=4\n")
}

/// What the agent of the newest attempt says that was used.
async fn usage(tenant: &Tenant, name: &str) -> Usage {
    let build = tenant.builds().get(name).await.expect("the Build is there");
    let attempt = rows::id(&tenant.attempts(&build).await[0]);
    let pod: &Pod = &tenant.pods_of(attempt).await[0];
    let statuses = pod.status.as_ref().and_then(|status| status.init_container_statuses.as_ref());
    let build = statuses.into_iter().flatten().find(|status| status.name == "build").expect("it ran");
    let end = build.state.as_ref().and_then(|state| state.terminated.as_ref()).expect("it ended");
    AgentReport::decode(end.message.as_deref().unwrap_or_default().as_bytes()).expect("it left a report").usage
}

#[tokio::test]
async fn what_a_run_uses_is_counted_where_its_work_is_done() {
    tenant("usage", "privileged", async |tenant| {
        for method in ["buildx", "container"] {
            tenant.apply(&tenant.manifest(method, method, &taking(300))).await;
        }
        for method in ["buildx", "container"] {
            let build = tenant.finished(method, 1).await;
            assert_eq!(phase(&build), "Success", "{:#}", status(&build));
            let usage = usage(tenant, method).await;
            assert!(usage.memory_peak_bytes > Some(300 * MEBIBYTE), "{method}: {usage:?}");
            assert!(usage.cpu_microseconds > Some(10_000) && usage.milliseconds > Some(100), "{method}: {usage:?}");
            assert_eq!(usage.oom_kills, Some(0), "{method}: {usage:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_build_that_takes_more_memory_than_it_may_is_told_so() {
    tenant("out-of-memory", "privileged", async |tenant| {
        for method in ["buildx", "container"] {
            let mut manifest = tenant.manifest(method, method, &taking(900));
            manifest["spec"]["resources"] = json!({"requests": {"memory": "64Mi"}, "limits": {"memory": "256Mi"}});
            tenant.apply(&manifest).await;
        }
        for method in ["buildx", "container"] {
            let build = tenant.finished(method, 1).await;
            let failure = failure(tenant, &build).await;
            let (reason, stage, _) = told(&failure);
            assert_eq!((reason, stage), ("OutOfMemory", "build"), "{method}: {failure:#}");
            let message = failure["message"].as_str().unwrap_or_default();
            assert!(message.contains("spec.resources.limits.memory"), "{message}");
            let usage = usage(tenant, method).await;
            assert!(usage.oom_kills > Some(0), "{method}: {usage:?}");
            assert!(usage.memory_peak_bytes <= Some(256 * MEBIBYTE), "{method}: {usage:?}");
        }
    })
    .await;
}
