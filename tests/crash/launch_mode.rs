//! An operator that makes the Pods of builds itself and ends their Jobs, where Kubernetes' Job controller
//! does nothing: killed at every hop of that, and with everything that may happen to such a Pod.

use std::process::{Output, Stdio};

use image_factory::clock;
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{Pod, ResourceQuota},
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, PostParams},
};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, process::Command};
use uuid::Uuid;

use super::{
    audit,
    chart::{self, NAMESPACE},
    cluster,
    history::{self, Jobs, Pods},
    hops::{Way, error_then_crash},
    operator::{Operator, Settings},
    rows,
    stage::stage,
    tenant::{Tenant, phase, status, tenant},
    watching,
};

macro_rules! hops {
    ($($test:ident: $place:literal, $way:ident;)*) => {$(
        #[tokio::test]
        async fn $test() {
            error_then_crash($place, 0, Way::$way, Settings::launching()).await;
        }
    )*};
}

hops! {
    after_a_job_is_created: "launch.after-create", Run;
    before_a_pod_is_created: "launch.before-pod", Run;
    after_a_pod_is_created: "launch.after-pod", Run;
    after_a_jobs_creation_is_recorded: "launch.after-job-created", Run;
    before_a_job_is_ended: "close.before-patch", Run;
    after_a_job_is_ended: "close.after-patch", Run;
    before_a_job_is_cleaned_away: "clean.before-delete", RunAndClean;
    after_a_job_is_stopped: "stop.after-delete", Stop;
}

/// Who asks in these tests: the operator is a process with the cluster's own kubeconfig, like the test itself.
const OPERATOR: &str = "admin";
const JOB_CONTROLLER: &str = "system:serviceaccount:kube-system:job-controller";

/// Of the requests about one build those that only its launch in this mode makes: two writes, in place of the Job
/// controller's.
#[tokio::test]
async fn making_the_pod_costs_two_writes_and_the_job_controller_none() {
    let stage = stage().await;
    let operator = Operator::start(&stage, &Settings::launching());
    tenant("launch-budget", "baseline", async |tenant| {
        let since = clock::now();
        let build = tenant.apply(&tenant.manifest("counted", "container", "FROM BASE\nRUN echo counted\n")).await;
        tenant.finished("counted", 1).await;
        let id = history::only_attempt(tenant, &build).await;
        job(tenant, id, "Complete").await;
        let asked = audit::requests(OPERATOR, &tenant.namespace);
        let counted = |request: &str| asked.get(request).copied().unwrap_or_default();
        let launch = ["create jobs", "create pods", "patch jobs/status"].map(counted);
        assert_eq!(launch, [1, 1, 1], "{asked:?}");
        let step_patches = audit::step_patches(since, clock::now());
        assert!(counted("patch builds/status") <= 3 + step_patches, "{asked:?}");
        let others =
            ["update jobs", "patch jobs", "update jobs/status", "patch pods", "patch pods/status"].map(counted);
        assert_eq!(others, [0; 5], "{asked:?}");
        let controller = audit::requests(JOB_CONTROLLER, &tenant.namespace);
        assert!(controller.keys().all(|request| request.starts_with("get ")), "{controller:?}");
    })
    .await;
    operator.stop().await;
}

/// The Job of an attempt when it has this condition, as `kubectl wait` sees it.
async fn job(tenant: &Tenant, id: Uuid, condition: &str) -> Job {
    let name = tenant.jobs_of(id).await.pop().expect("it has a Job").name_any();
    let what = format!("the Job to be {condition}");
    let has = |job: &Job| {
        let conditions = job.status.iter().flat_map(|status| &status.conditions).flatten();
        conditions.into_iter().any(|found| found.type_ == condition && found.status == "True")
    };
    watching::until(&tenant.jobs(), &name, &what, |job| job.is_some_and(has)).await.expect("it is there")
}

async fn kubectl(tenant: &Tenant, words: &[&str]) -> String {
    let run = Command::new("kubectl").args(["-n", &tenant.namespace]).args(words).output().await;
    let Output { status, stdout, stderr } = run.expect("kubectl can be run");
    assert!(status.success(), "{words:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8_lossy(&stdout).into_owned()
}

#[tokio::test]
async fn a_job_that_the_operator_manages_is_to_kubectl_as_any_other() {
    let stage = stage().await;
    let operator = Operator::start(&stage, &Settings::launching());
    tenant("launch", "baseline", async |tenant| {
        let (jobs, pods) = (Jobs::watch(tenant), Pods::watch(tenant));
        tenant.apply(&history::ticking(tenant, "good")).await;
        tenant.apply(&tenant.manifest("bad", "container", "FROM BASE\nRUN exit 3\n")).await;
        history::succeeded(tenant, &jobs, &["good"]).await;
        let good = history::only_attempt(tenant, &tenant.builds().get("good").await.expect("it is there")).await;
        let ended = job(tenant, good, "Complete").await;
        let (name, told) = (ended.name_any(), ended.status.expect("it has a status"));
        assert!(told.start_time <= told.completion_time && told.start_time.is_some(), "{told:?}");
        assert_eq!((told.succeeded, told.failed.unwrap_or_default()), (Some(1), 0));
        let pod = tenant.pods_of(good).await.pop().expect("it has a Pod");
        let template = ended.spec.expect("it has a spec").template.metadata.expect("it has metadata");
        assert_eq!(pod.metadata.labels, template.labels, "the Job controller's labels and ours");
        assert_eq!((pods.of(good), pod.name_any()), (1, name.clone()));
        let of_job = format!("job/{name}");
        kubectl(tenant, &["wait", "--for=condition=complete", "--timeout=5s", &of_job]).await;
        assert!(kubectl(tenant, &["logs", &of_job, "-c", "build"]).await.contains("tick 30"));

        let build = tenant.finished("bad", 1).await;
        assert_eq!(status(&build)["failure"]["reason"], "BuildFailed", "{:#}", status(&build));
        let bad = history::only_attempt(tenant, &build).await;
        let told = job(tenant, bad, "Failed").await.status.expect("it has a status");
        assert_eq!((told.failed, told.completion_time, pods.of(bad)), (Some(1), None, 1));
        history::holds().await;
    })
    .await;
    operator.stop().await;
}

#[tokio::test]
async fn what_is_stopped_deleted_or_cleaned_away_takes_its_pod_with_it() {
    let stage = stage().await;
    let operator = Operator::start(&stage, &Settings::launching());
    tenant("launch-gone", "baseline", async |tenant| {
        let jobs = Jobs::watch(tenant);
        let mut short = history::ticking(tenant, "short");
        short["spec"]["retention"] = json!({"jobTtl": "1s"});
        tenant.apply(&short).await;
        for name in ["stopped", "deleted"] {
            let build = tenant.apply(&history::endless(tenant, name)).await;
            tenant.prints(&build, "tick 3").await;
        }
        tenant.merge("stopped", &json!({"spec": {"cancel": true}})).await;
        let deleted = tenant.builds().get("deleted").await.expect("it is there");
        tenant.builds().delete("deleted", &DeleteParams::background()).await.expect("it can be deleted");
        history::cancelled(tenant, &jobs, &["stopped"]).await;
        let deleted = history::only_attempt(tenant, &deleted).await;
        let reason = async || rows::build_results(&tenant.pool, deleted).await["failure_reason"].clone();
        watching::eventually("the end of the deleted", async || (reason().await == "Deleted").then_some(())).await;
        history::succeeded(tenant, &jobs, &["short"]).await;
        watching::eventually("every Pod to go", async || {
            let pods = tenant.pods().list(&kube::api::ListParams::default()).await.expect("Pods can be listed");
            pods.items.is_empty().then_some(())
        })
        .await;
        history::holds().await;
    })
    .await;
    operator.stop().await;
}

/// The chart's rights in this mode, bound to an account of their own.
async fn rights() -> Value {
    let objects = chart::rendered("crash-rights", "templates/rights.yaml", "operator").await;
    json!({"apiVersion": "v1", "kind": "List", "items": objects})
}

/// The cluster's kubeconfig, by which one is that account.
async fn kubeconfig_of(account: &str) -> String {
    let own = std::fs::read(cluster::variable("KUBECONFIG")).expect("the kubeconfig can be read");
    let mut config: Value = serde_yaml::from_slice(&own).expect("a kubeconfig");
    config["users"][0]["user"]["as"] = format!("system:serviceaccount:{NAMESPACE}:{account}").into();
    config["users"][0]["user"]["as-groups"] = json!(["system:serviceaccounts", "system:authenticated"]);
    let path = format!("{}/{account}.kubeconfig", env!("CARGO_TARGET_TMPDIR"));
    tokio::fs::write(&path, config.to_string()).await.expect("a file can be written");
    path
}

/// One that builds, one that is stopped, and their Jobs cleaned away: all by the rights that the chart gives.
#[tokio::test]
async fn the_rights_that_the_chart_gives_for_this_mode_are_enough() {
    let stage = stage().await;
    let rights = rights().await.to_string();
    let change = async |words: &[&str]| {
        let mut child = Command::new("kubectl").args(words).args(["-f", "-"]).stdin(Stdio::piped()).spawn();
        let child = child.as_mut().expect("kubectl can be run");
        child.stdin.take().expect("it is piped").write_all(rights.as_bytes()).await.expect("it is read");
        assert!(child.wait().await.expect("it ends").success(), "{words:?}");
    };
    change(&["apply"]).await;
    let kubeconfig = kubeconfig_of("crash-rights-image-factory").await;
    let operator = Operator::start(&stage, &Settings { kubeconfig, ..Settings::launching() });
    tenant("launch-rights", "baseline", async |tenant| {
        let jobs = Jobs::watch(tenant);
        let mut short = history::ticking(tenant, "short");
        short["spec"]["retention"] = json!({"jobTtl": "1s"});
        tenant.apply(&short).await;
        let stopped = tenant.apply(&history::endless(tenant, "stopped")).await;
        tenant.prints(&stopped, "tick 3").await;
        tenant.merge("stopped", &json!({"spec": {"cancel": true}})).await;
        history::cancelled(tenant, &jobs, &["stopped"]).await;
        history::succeeded(tenant, &jobs, &["short"]).await;
        watching::eventually("every Job to go", async || {
            let jobs = tenant.jobs().list(&kube::api::ListParams::default()).await.expect("Jobs can be listed");
            jobs.items.is_empty().then_some(())
        })
        .await;
        history::holds().await;
    })
    .await;
    assert!(!operator.said("forbidden"), "it asks for nothing that it may not");
    operator.stop().await;
    change(&["delete"]).await;
}

async fn delete_pod(tenant: &Tenant, id: Uuid) {
    let pod = tenant.pods_of(id).await.pop().expect("it has a Pod").name_any();
    tenant.pods().delete(&pod, &DeleteParams::default().grace_period(0)).await.expect("it can be deleted");
    watching::until(&tenant.pods(), &pod, "the Pod to go", |pod: Option<&Pod>| pod.is_none()).await;
}

/// The Build fails, its Job says so, and no second Pod was ever made.
async fn is_lost(tenant: &Tenant, name: &str, pods: &Pods) {
    let build = tenant.finished(name, 1).await;
    assert_eq!(status(&build)["failure"]["reason"], "JobDeleted", "{:#}", status(&build));
    let id = history::only_attempt(tenant, &build).await;
    job(tenant, id, "Failed").await;
    assert_eq!(pods.of(id), 1, "one Pod, ever");
}

#[tokio::test]
async fn a_pod_that_was_deleted_is_not_made_again() {
    let stage = stage().await;
    let operator = Operator::start(&stage, &Settings::launching());
    tenant("launch-lost", "baseline", async |tenant| {
        let pods = Pods::watch(tenant);
        let build = tenant.apply(&history::endless(tenant, "lost")).await;
        let id = tenant.prints(&build, "tick 3").await;
        delete_pod(tenant, id).await;
        is_lost(tenant, "lost", &pods).await;
        history::holds().await;
    })
    .await;
    operator.stop().await;
}

/// Nobody of ours has ever seen that Pod: only the API server knows that it was there.
#[tokio::test]
async fn a_pod_that_was_deleted_before_anyone_had_noted_it_is_not_made_again() {
    let stage = stage().await;
    tenant("launch-unseen", "baseline", async |tenant| {
        let pods = Pods::watch(tenant);
        let failpoints = "launch.after-pod=return(crash)".to_owned();
        let operator = Operator::start(&stage, &Settings { failpoints, ..Settings::launching() });
        let build = tenant.apply(&history::endless(tenant, "unseen")).await;
        operator.crashed("launch.after-pod").await;
        let id = history::only_attempt(tenant, &build).await;
        delete_pod(tenant, id).await;
        let operator = Operator::start(&stage, &Settings::launching());
        is_lost(tenant, "unseen", &pods).await;
        history::holds().await;
        operator.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_pod_that_a_quota_refuses_sends_its_build_back_to_the_queue() {
    let stage = stage().await;
    let operator = Operator::start(&stage, &Settings::launching());
    tenant("launch-quota", "baseline", async |tenant| {
        let quotas: Api<ResourceQuota> = Api::namespaced(tenant.client.clone(), &tenant.namespace);
        let none = json!({"metadata": {"name": "no-pods"}, "spec": {"hard": {"pods": "0"}}});
        let none: ResourceQuota = serde_json::from_value(none).expect("a quota");
        quotas.create(&PostParams::default(), &none).await.expect("it can be made");
        watching::until(&quotas, "no-pods", "the quota to be in force", |quota: Option<&ResourceQuota>| {
            quota.and_then(|quota| quota.status.as_ref()).is_some_and(|status| status.hard.is_some())
        })
        .await;
        let (jobs, pods) = (Jobs::watch(tenant), Pods::watch(tenant));
        let build = tenant.apply(&history::ticking(tenant, "patient")).await;
        let id = watching::eventually("its return to the queue", async || {
            let id = rows::id(tenant.attempts(&build).await.last()?);
            (rows::history(&tenant.pool, id).await == "queued → in_progress → queued").then_some(id)
        })
        .await;
        assert_eq!(tenant.jobs_of(id).await.len(), 0, "it waits without a Job");
        quotas.delete("no-pods", &DeleteParams::default()).await.expect("it can be deleted");
        let build = tenant.finished("patient", 1).await;
        assert_eq!(phase(&build), "Success", "{:#}", status(&build));
        assert_eq!((jobs.of(id), pods.of(id)), (2, 1), "the Job that had no Pod, and the one that had");
        history::holds().await;
    })
    .await;
    operator.stop().await;
}
