//! What makes a run, and what does not: a Build lives well in Git, where the same is applied again and
//! again. That nothing happened is proved by the number of the next run.

use std::pin::pin;

use futures::TryStreamExt;
use image_factory::crd::Build;
use image_factory_core::labels;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{
    rows,
    tenant::{Tenant, phase, status, tenant},
    watching::PATIENCE,
};

/// Changes what is no input, and waits until the controller has seen it.
async fn seen(tenant: &Tenant, manifest: &Value) -> Build {
    let mut manifest = manifest.clone();
    manifest["spec"]["timeout"] = json!("6m");
    let generation = tenant.apply(&manifest).await.metadata.generation;
    let name = manifest["metadata"]["name"].as_str().expect("a name");
    tenant
        .until(name, "the new generation in the status", |build| {
            build.status.as_ref().is_some_and(|status| status.observed_generation == generation)
        })
        .await
}

#[tokio::test]
async fn only_a_change_of_inputs_and_a_new_value_of_rerun_make_a_run() {
    tenant("runs", "baseline", async |tenant| {
        let mut manifest = tenant.manifest("cider", "container", "FROM BASE\n");
        tenant.apply(&manifest).await;
        let first = tenant.finished("cider", 1).await;

        let again = tenant.apply(&manifest).await;
        assert_eq!(again.metadata.generation, first.metadata.generation);
        let build = seen(tenant, &manifest).await;
        assert_eq!((&status(&build)["run"], phase(&build)), (&json!(1), json!("Success")));

        manifest["metadata"]["annotations"] = json!({"imagefactory.dev/rerun": "monday"});
        tenant.apply(&manifest).await;
        let build = tenant.finished("cider", 2).await;
        assert_eq!(status(&build)["observedRerun"], "monday");
        tenant.apply(&manifest).await;

        manifest["metadata"]["annotations"] = json!({});
        tenant.apply(&manifest).await;
        let build = seen(tenant, &manifest).await;
        assert!(!build.annotations().contains_key("imagefactory.dev/rerun"));
        assert_eq!(status(&build)["run"], 2, "taking the annotation away is no change");

        manifest["spec"]["output"]["labels"] = json!({"org.example.variety": "gala"});
        tenant.apply(&manifest).await;
        let build = tenant.finished("cider", 3).await;
        let attempts = tenant.attempts(&build).await;
        let numbers: Vec<_> = attempts.iter().map(|row| (&row["run"], &row["build_number"])).collect();
        assert_eq!(numbers, [1, 2, 3].map(|number| (json!(number), json!(number))).each_ref().map(|(a, b)| (a, b)));
        for attempt in &attempts {
            let way = rows::history(&tenant.pool, rows::id(attempt)).await;
            assert_eq!(way, "queued → in_progress → success");
        }
    })
    .await;
}

#[tokio::test]
async fn a_new_run_takes_the_place_of_the_one_that_runs_after_its_pod_has_ended() {
    tenant("supersede", "baseline", async |tenant| {
        let dockerfile = "FROM BASE\nRUN echo \"at work\" && sleep 300\n";
        let build = tenant.apply(&tenant.manifest("cider", "container", dockerfile)).await;
        let old = tenant.prints(&build, "at work").await;
        let of_builds = watcher::Config::default().labels(labels::BUILD_ID);
        let mut pods = pin!(watcher(tenant.pods(), of_builds).default_backoff());

        let manifest = tenant.manifest("cider", "container", "FROM BASE\nRUN echo \"done\"\n");
        let (waiting, _) = tokio::join!(
            tenant.until("cider", "run 2 to wait for run 1", |build| {
                status(build)["run"] == 2 && status(build)["queue"]["waitingFor"] == "PreviousRun"
            }),
            tenant.apply(&manifest)
        );
        assert_eq!(phase(&waiting), "Queued");

        // The watch tells in their order: the old Pod's end, then the new Pod.
        let in_order = async {
            let mut old_has_ended = false;
            while let Some(event) = pods.try_next().await.expect("Pods can be watched") {
                let (pod, gone) = match event {
                    watcher::Event::Apply(pod) | watcher::Event::InitApply(pod) => (pod, false),
                    watcher::Event::Delete(pod) => (pod, true),
                    watcher::Event::Init | watcher::Event::InitDone => continue,
                };
                if pod.labels().get(labels::BUILD_ID) == Some(&old.to_string()) {
                    old_has_ended |= gone || build_container_ended(&pod);
                } else {
                    return old_has_ended;
                }
            }
            false
        };
        let in_order = timeout(PATIENCE, in_order).await.expect("run 2 gets its Pod");
        assert!(in_order, "the Pod of run 2 was made while that of run 1 still ran");

        let build = tenant.finished("cider", 2).await;
        assert_eq!(phase(&build), "Success");
        let attempts = tenant.attempts(&build).await;
        assert_eq!(attempts.len(), 2);
        assert_eq!(attempts[0]["cancel_reason"], "Superseded");
        assert!(attempts[0]["completed_at"].as_str() <= attempts[1]["started_at"].as_str());
        assert_eq!(rows::history(&tenant.pool, old).await, "queued → in_progress → cancelled");
        let result = rows::build_results(&tenant.pool, old).await;
        assert_eq!((&result["status"], &result["failure_reason"]), (&json!("cancelled"), &json!("Superseded")));
        assert_eq!(tenant.jobs_of(old).await.len(), 0, "the Job of run 1 is gone");
        let log = rows::log(&tenant.pool, old).await;
        assert!(log.iter().any(|line| line == "at work"), "what run 1 had printed is kept: {log:?}");
    })
    .await;
}

fn build_container_ended(pod: &Pod) -> bool {
    let statuses = pod.status.as_ref().and_then(|status| status.init_container_statuses.as_ref());
    statuses
        .into_iter()
        .flatten()
        .any(|status| status.name == "build" && status.state.as_ref().is_some_and(|state| state.terminated.is_some()))
}
