//! Attempts after the first: an evicted Pod, a failure that only `on: Any` tries again, and a run that is stopped
//! between two attempts.

use k8s_openapi::api::events::v1::Event;
use kube::{
    Api, ResourceExt,
    api::{EvictParams, ListParams},
};
use serde_json::{Value, json};

use super::{
    rows,
    tenant::{Tenant, condition, phase, status, tenant},
};

/// With `spec.retries`.
fn retried(tenant: &Tenant, name: &str, dockerfile: &str, retries: &Value) -> Value {
    let mut manifest = tenant.manifest(name, "container", dockerfile);
    manifest["spec"]["retries"] = retries.clone();
    manifest
}

async fn reasons_told(tenant: &Tenant, build: &str) -> Vec<String> {
    let events: Api<Event> = Api::namespaced(tenant.client.clone(), &tenant.namespace);
    let of_build = ListParams::default().fields(&format!("regarding.kind=Build,regarding.name={build}"));
    let events = events.list(&of_build).await.expect("Events can be listed");
    events.items.into_iter().filter_map(|event| event.reason).collect()
}

#[tokio::test]
async fn an_evicted_pod_is_retried_to_success() {
    tenant("evicted", "baseline", async |tenant| {
        let dockerfile = "FROM BASE\nRUN echo \"at work\" && sleep 6\n";
        let build = tenant.apply(&retried(tenant, "cider", dockerfile, &json!({"limit": 2}))).await;
        let first = tenant.prints(&build, "at work").await;
        let pod = tenant.pods_of(first).await.remove(0).name_any();
        tenant.pods().evict(&pod, &EvictParams::default()).await.expect("it can be evicted");

        let between = tenant.until("cider", "its second attempt", |build| status(build)["attempt"] == 2).await;
        assert_eq!(condition(&between, "Finished").as_deref(), Some("False"));
        assert_eq!(condition(&between, "Reconciling").as_deref(), Some("True"));
        let ended = tenant.finished("cider", 1).await;
        assert_eq!((phase(&ended), &status(&ended)["attempt"]), (json!("Success"), &json!(2)), "{:#}", status(&ended));

        let attempts = tenant.attempts(&build).await;
        assert_eq!(attempts.iter().map(|row| row["status"].clone()).collect::<Vec<_>>(), ["failed", "success"]);
        let second = rows::id(&attempts[1]);
        assert_eq!(rows::history(&tenant.pool, first).await, "queued → in_progress → failed");
        assert_eq!(rows::history(&tenant.pool, second).await, "queued → in_progress → success");
        let (failed, succeeded) =
            (rows::build_results(&tenant.pool, first).await, rows::build_results(&tenant.pool, second).await);
        assert_eq!((&failed["failure_reason"], &failed["is_retry"]), (&json!("Evicted"), &json!(false)));
        assert_eq!(
            (&succeeded["is_retry"], &succeeded["retry_count"], &succeeded["original_build_id"]),
            (&json!(true), &json!(1), &json!(first))
        );
        assert_eq!(rows::build_triggers(&tenant.pool, second).await["trigger_source"], json!(first));
        let told = reasons_told(tenant, "cider").await;
        assert!(told.contains(&"Retrying".to_owned()) && told.contains(&"Succeeded".to_owned()), "{told:?}");
    })
    .await;
}

#[tokio::test]
async fn a_build_that_fails_is_tried_again_only_where_any_failure_is_and_not_beyond_its_limit() {
    tenant("any", "baseline", async |tenant| {
        let failing = "FROM BASE\nRUN exit 3\n";
        let stubborn = tenant.apply(&retried(tenant, "stubborn", failing, &json!({"limit": 1, "on": "Any"}))).await;
        let modest = tenant.apply(&retried(tenant, "modest", failing, &json!({"limit": 5}))).await;
        for (build, attempts) in [(&stubborn, 2), (&modest, 1)] {
            let name = build.name_any();
            let ended = tenant.finished(&name, 1).await;
            let status = status(&ended);
            assert_eq!((&status["phase"], &status["attempt"]), (&json!("Failed"), &json!(attempts)), "{name}");
            assert_eq!(status["failure"]["reason"], "BuildFailed");
            assert_eq!(tenant.attempts(build).await.len(), attempts, "{name}");
        }
    })
    .await;
}

#[tokio::test]
async fn cancelling_between_two_attempts_ends_the_run() {
    tenant("between", "baseline", async |tenant| {
        let failing = "FROM BASE\nRUN exit 3\n";
        let build = tenant.apply(&retried(tenant, "cider", failing, &json!({"limit": 9, "on": "Any"}))).await;
        // Its third attempt waits ten seconds at least.
        let backing_off = |build: &_| {
            let status = status(build);
            status["attempt"] == 3 && status["queue"]["waitingFor"] == "BackingOff"
        };
        let waiting = tenant.until("cider", "it to back off", backing_off).await;
        let message = status(&waiting)["queue"]["message"].as_str().unwrap_or_default().to_owned();
        assert!(message.contains("attempt 2 failed (BuildFailed)"), "{message}");
        tenant.merge("cider", &json!({"spec": {"cancel": true}})).await;
        let ended = tenant.finished("cider", 1).await;
        assert_eq!((phase(&ended), &status(&ended)["attempt"]), (json!("Cancelled"), &json!(3)));
        let ways: Vec<Value> = tenant.attempts(&build).await.into_iter().map(|row| row["status"].clone()).collect();
        assert_eq!(ways, ["failed", "failed", "cancelled"]);
    })
    .await;
}
