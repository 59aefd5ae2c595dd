//! `spec.cancel`: stops what runs, takes out what waits, and holds back what is new until it is false.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::{
    limits::limit,
    rows,
    tenant::{condition, phase, status, tenant},
    watching,
};

#[tokio::test]
async fn cancel_stops_a_running_build_and_its_pod_ends() {
    tenant("cancel", "privileged", async |tenant| {
        for method in ["buildx", "container"] {
            let mut manifest = tenant.manifest(method, method, "FROM BASE\nRUN echo \"at work\" && sleep 300\n");
            let build = tenant.apply(&manifest).await;
            let id = tenant.prints(&build, "at work").await;
            let pod = tenant.pods_of(id).await.pop().expect("it has a Pod").name_any();

            manifest["spec"]["cancel"] = json!(true);
            tenant.apply(&manifest).await;
            let build = tenant.finished(method, 1).await;
            assert_eq!(phase(&build), "Cancelled", "{:#}", status(&build));
            assert_eq!(rows::history(&tenant.pool, id).await, "queued → in_progress → cancelled");
            let result = rows::build_results(&tenant.pool, id).await;
            assert_eq!((&result["status"], &result["failure_reason"]), (&json!("cancelled"), &json!("Cancelled")));
            let conditions = ["Succeeded", "Finished", "Reconciling", "Stalled"].map(|kind| condition(&build, kind));
            assert_eq!(conditions, [Some("False".to_owned()), Some("True".to_owned()), None, None]);
            assert_eq!(tenant.jobs_of(id).await.len(), 0);
            watching::until(&tenant.pods(), &pod, "the Pod to go", |pod: Option<&Pod>| pod.is_none()).await;
            assert!(rows::log(&tenant.pool, id).await.iter().any(|line| line.ends_with("at work")));
        }
    })
    .await;
}

#[tokio::test]
async fn cancel_takes_a_build_out_of_the_queue_at_once() {
    tenant("cancel-queued", "baseline", async |tenant| {
        limit(tenant, 1).await;
        let running = tenant.manifest("first", "container", "FROM BASE\nRUN echo \"at work\" && sleep 300\n");
        let running = tenant.apply(&running).await;
        tenant.prints(&running, "at work").await;
        let mut manifest = tenant.manifest("second", "container", "FROM BASE\n");
        tenant.apply(&manifest).await;
        tenant.until("second", "it to be queued", |build| phase(build) == "Queued").await;

        manifest["spec"]["cancel"] = json!(true);
        tenant.apply(&manifest).await;
        let build = tenant.finished("second", 1).await;
        assert_eq!(phase(&build), "Cancelled");
        let id = rows::id(&tenant.attempts(&build).await[0]);
        assert_eq!(rows::history(&tenant.pool, id).await, "queued → cancelled");
        let result = rows::build_results(&tenant.pool, id).await;
        assert_eq!((&result["status"], &result["failure_reason"]), (&json!("cancelled"), &json!("Cancelled")));
        let first = tenant.builds().get("first").await.expect("it is there");
        assert_eq!(phase(&first), "InProgress", "the other build runs on");
    })
    .await;
}

#[tokio::test]
async fn a_build_cancelled_from_the_first_is_held_back_until_it_is_not() {
    tenant("held-back", "baseline", async |tenant| {
        let mut manifest = tenant.manifest("cider", "container", "FROM BASE\n");
        manifest["spec"]["cancel"] = json!(true);
        tenant.apply(&manifest).await;
        let build = tenant
            .until("cider", "its status to say that it is held back", |build| {
                let conditions = build.status.iter().flat_map(|status| &status.conditions);
                conditions.into_iter().any(|condition| condition.reason == "HeldBack")
            })
            .await;
        assert_eq!(tenant.attempts(&build).await, Vec::<Value>::new(), "no row");
        assert_eq!(phase(&build), Value::Null);
        assert_ne!(condition(&build, "Finished").as_deref(), Some("True"));

        manifest["spec"]["cancel"] = json!(false);
        tenant.apply(&manifest).await;
        let build = tenant.finished("cider", 1).await;
        assert_eq!(phase(&build), "Success");
        assert_eq!(tenant.attempts(&build).await.len(), 1);

        manifest["spec"]["cancel"] = json!(true);
        manifest["spec"]["output"]["labels"] = json!({"org.example.variety": "gala"});
        let generation = tenant.apply(&manifest).await.metadata.generation;
        let build = tenant
            .until("cider", "its status to be about the new inputs", |build| {
                build.status.as_ref().is_some_and(|status| status.observed_generation == generation)
            })
            .await;
        let conditions = ["Succeeded", "Finished"].map(|kind| condition(&build, kind));
        assert_eq!(conditions, ["Unknown", "False"].map(|word| Some(word.to_owned())), "{:#}", status(&build));
        assert_eq!((phase(&build), &status(&build)["run"]), (Value::Null, &json!(1)));
    })
    .await;
}
