//! A worker that goes between the claim of a build and its launch: what has no Job waits for another worker, what
//! has one after all follows its Pod.

use image_factory::crd::BuildWorker;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{
    history::{self, Jobs},
    operator::{Operator, Settings},
    rows,
    stage::stage,
    tenant::{APPLIER, Tenant, phase, tenant},
    watching,
};

fn workers(tenant: &Tenant) -> Api<BuildWorker> {
    Api::namespaced(tenant.client.clone(), &tenant.namespace)
}

async fn declare(tenant: &Tenant) {
    let worker = json!({
        "apiVersion": "imagefactory.dev/v1alpha1", "kind": "BuildWorker", "metadata": {"name": "press"},
        "spec": {"type": "kubernetes", "concurrentBuilds": 1},
    });
    let params = PatchParams::apply(APPLIER).force();
    workers(tenant).patch("press", &params, &Patch::Apply(&worker)).await.expect("the API server accepts it");
}

async fn delete(tenant: &Tenant) {
    workers(tenant).delete("press", &DeleteParams::default()).await.expect("it can be deleted");
}

/// A build that only this worker takes.
fn picky(tenant: &Tenant) -> Value {
    let mut manifest = history::ticking(tenant, "picky");
    manifest["spec"]["worker"] = json!({"name": "press"});
    manifest
}

#[tokio::test]
async fn a_build_whose_worker_goes_before_its_launch_waits_for_another() {
    let stage = stage().await;
    tenant("crash-stranded", "baseline", async |tenant| {
        let jobs = Jobs::watch(tenant);
        let operator = Operator::start(&stage, &Settings::failing("launch.before-create=return(error)"));
        declare(tenant).await;
        let build = tenant.apply(&picky(tenant)).await;
        operator.says("failing at launch.before-create").await;
        delete(tenant).await;
        let waiting = tenant.until("picky", "it to wait again", |build| phase(build) == "Queued").await;
        let id = rows::id(&tenant.attempts(&waiting).await[0]);
        assert_eq!(rows::history(&tenant.pool, id).await, "queued → in_progress → queued");
        operator.stop().await;

        let operator = Operator::start(&stage, &Settings::default());
        declare(tenant).await;
        assert_eq!(phase(&tenant.finished("picky", 1).await), "Success");
        assert_eq!(tenant.attempts(&build).await.len(), 1);
        assert_eq!(rows::history(&tenant.pool, id).await, "queued → in_progress → queued → in_progress → success");
        assert_eq!(jobs.of(id), 1, "one Job, ever");
        history::holds().await;
        operator.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_build_with_a_job_that_no_row_tells_of_follows_its_pod_though_its_worker_goes() {
    let stage = stage().await;
    tenant("crash-launched", "baseline", async |tenant| {
        let jobs = Jobs::watch(tenant);
        let operator = Operator::start(&stage, &Settings::failing("launch.after-create=return(crash)"));
        declare(tenant).await;
        tenant.apply(&picky(tenant)).await;
        operator.crashed("launch.after-create").await;
        delete(tenant).await;
        // As the next operator would have it in a moment: it is known to be so before its first round.
        let lost = sqlx::query(
            "update build_workers set declared = false, status = 'offline'
             where worker_name = 'press' and tenant_id = (select id from tenants where name = $1)",
        );
        let changed = lost.bind(&tenant.namespace).execute(&tenant.pool).await.expect("the row can be changed");
        assert_eq!(changed.rows_affected(), 1);

        let operator = Operator::start(&stage, &Settings::default());
        history::succeeded(tenant, &jobs, &["picky"]).await;
        watching::eventually("the end of the worker's row", async || {
            let offline: bool = sqlx::query_scalar(
                "select exists (select from build_worker_outages o join build_workers w on w.id = o.worker_id
                 join tenants t on t.id = w.tenant_id where t.name = $1 and o.ended_at is null)",
            )
            .bind(&tenant.namespace)
            .fetch_one(&tenant.pool)
            .await
            .expect("outages can be read");
            offline.then_some(())
        })
        .await;
        history::holds().await;
        operator.stop().await;
    })
    .await;
}
