//! Deleting a Build, or its whole namespace, in the midst of a run: the run ends, its rows stay.

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{Api, ResourceExt, api::DeleteParams};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    rows,
    tenant::{Tenant, tenant},
    watching,
};

/// Starts two builds and waits until each is at work; their ids.
async fn at_work(tenant: &Tenant) -> Vec<Uuid> {
    let mut ids = Vec::new();
    for method in ["buildx", "container"] {
        let manifest = tenant.manifest(method, method, "FROM BASE\nRUN echo \"at work\" && sleep 300\n");
        let build = tenant.apply(&manifest).await;
        ids.push(tenant.prints(&build, "at work").await);
    }
    ids
}

async fn result(tenant: &Tenant, id: Uuid) -> Value {
    watching::eventually("the end of the build", async || {
        let result = rows::build_results(&tenant.pool, id).await;
        (result != Value::Null).then_some(result)
    })
    .await
}

async fn ended_as_deleted(tenant: &Tenant, id: Uuid) {
    let result = result(tenant, id).await;
    assert_eq!((&result["status"], &result["failure_reason"]), (&json!("cancelled"), &json!("Deleted")), "{result:#}");
    assert_eq!(rows::history(&tenant.pool, id).await, "queued → in_progress → cancelled");
    let log = rows::log(&tenant.pool, id).await;
    assert!(log.iter().any(|line| line.ends_with("at work")), "what was read of the log is kept: {log:?}");
    assert_ne!(rows::build_configs(&tenant.pool, id).await, Value::Null);
    assert_ne!(rows::build_triggers(&tenant.pool, id).await, Value::Null);
}

#[tokio::test]
async fn deleting_a_build_ends_its_run_and_keeps_its_rows() {
    tenant("deleted", "privileged", async |tenant| {
        let ids = at_work(tenant).await;
        let mut pods = Vec::new();
        for id in &ids {
            pods.extend(tenant.pods_of(*id).await);
        }
        for name in ["buildx", "container"] {
            tenant.builds().delete(name, &DeleteParams::default()).await.expect("it can be deleted");
        }
        for id in ids {
            ended_as_deleted(tenant, id).await;
            watching::eventually("its Job to go", async || tenant.jobs_of(id).await.is_empty().then_some(())).await;
        }
        for pod in pods {
            let name = pod.name_any();
            watching::until(&tenant.pods(), &name, "the Pod to go", |pod: Option<&Pod>| pod.is_none()).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_job_deleted_by_hand_fails_its_build_and_says_so() {
    tenant("job-deleted", "privileged", async |tenant| {
        for id in at_work(tenant).await {
            let job = tenant.jobs_of(id).await.pop().expect("it has a Job").name_any();
            tenant.jobs().delete(&job, &DeleteParams::background()).await.expect("it can be deleted");
            let result = result(tenant, id).await;
            assert_eq!((&result["status"], &result["failure_reason"]), (&json!("failed"), &json!("JobDeleted")));
            assert_eq!(rows::history(&tenant.pool, id).await, "queued → in_progress → failed");
            assert_eq!(tenant.jobs_of(id).await.len(), 0, "no second Job is made");
        }
    })
    .await;
}

#[tokio::test]
async fn deleting_the_namespace_ends_its_runs_and_the_namespace_goes() {
    tenant("namespace-deleted", "privileged", async |tenant| {
        let ids = at_work(tenant).await;
        let namespaces: Api<Namespace> = Api::all(tenant.client.clone());
        namespaces.delete(&tenant.namespace, &DeleteParams::default()).await.expect("it can be deleted");
        for id in ids {
            ended_as_deleted(tenant, id).await;
        }
        let gone = |namespace: Option<&Namespace>| namespace.is_none();
        watching::until(&namespaces, &tenant.namespace, "the namespace to go", gone).await;
    })
    .await;
}
