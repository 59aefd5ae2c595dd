//! Where builds run: on the nodes of the worker they ask for, as long as it takes builds.

use std::panic::{AssertUnwindSafe, resume_unwind};

use futures::FutureExt;
use image_factory::crd::{Build, BuildWorker, build_worker::WorkerState};
use k8s_openapi::{
    api::{core::v1::Pod, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{
    chart::NAMESPACE,
    nodes::beside_nodes,
    rows,
    tenant::{APPLIER, Tenant, phase, status, tenant},
    watching,
};

const QUICK: &str = "FROM BASE\nRUN true\n";

fn workers(client: &Client, namespace: &str) -> Api<BuildWorker> {
    Api::namespaced(client.clone(), namespace)
}

/// Declares a worker, and waits until its status is about this declaration.
async fn declare(workers: &Api<BuildWorker>, name: &str, spec: Value) {
    let mut whole = json!({"type": "kubernetes", "concurrentBuilds": 5});
    whole.as_object_mut().expect("an object").extend(spec.as_object().expect("an object").clone());
    let worker = json!({
        "apiVersion": "imagefactory.dev/v1alpha1", "kind": "BuildWorker", "metadata": {"name": name}, "spec": whole,
    });
    let params = PatchParams::apply(APPLIER).force();
    let applied = workers.patch(name, &params, &Patch::Apply(&worker)).await.expect("the API server accepts it");
    let generation = applied.metadata.generation;
    watching::until(workers, name, "its status", |worker| {
        worker
            .and_then(|worker| worker.status.as_ref())
            .is_some_and(|status| status.observed_generation == generation && status.state.is_some())
    })
    .await;
}

async fn becomes(workers: &Api<BuildWorker>, name: &str, state: WorkerState) -> BuildWorker {
    let what = format!("it to be {state:?}");
    let found = watching::until(workers, name, &what, |worker| {
        worker.and_then(|worker| worker.status.as_ref()).is_some_and(|status| status.state == Some(state))
    })
    .await;
    found.expect("the worker is there")
}

fn ready(worker: &BuildWorker) -> Condition {
    let conditions = worker.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
    conditions.into_iter().find(|condition| condition.type_ == "Ready").expect("it says whether it is ready")
}

async fn apply(tenant: &Tenant, name: &str, dockerfile: &str, worker: Value) -> Build {
    let mut manifest = tenant.manifest(name, "container", dockerfile);
    manifest["spec"]["worker"] = worker;
    tenant.apply(&manifest).await
}

/// Waits until the Build waits for this.
async fn waits_for(tenant: &Tenant, name: &str, reason: &str) -> String {
    let build = tenant
        .until(name, &format!("it to wait for {reason}"), |build| status(build)["queue"]["waitingFor"] == reason)
        .await;
    status(&build)["queue"]["message"].as_str().unwrap_or_default().to_owned()
}

/// The node its Pod was given to.
async fn lands(tenant: &Tenant, build: &Build) -> String {
    watching::eventually(&format!("{} to land on a node", build.name_any()), async || {
        let attempt = tenant.attempts(build).await.pop()?;
        let pod: Pod = tenant.pods_of(rows::id(&attempt)).await.pop()?;
        pod.spec?.node_name
    })
    .await
}

#[tokio::test]
async fn a_build_lands_on_the_nodes_of_the_worker_it_asks_for() {
    tenant("worker", "baseline", async |tenant| {
        beside_nodes(tenant, async |[node]| {
            let workers = workers(&tenant.client, &tenant.namespace);
            declare(&workers, "near", json!({"nodeSelector": {"kubernetes.io/os": "linux"}, "zone": "home"})).await;
            declare(&workers, "far", node.worker(json!({"zone": "away", "labels": {"press": "big"}}))).await;
            for (build, asks, worker) in [
                ("by-name", json!({"name": "far"}), "far"),
                ("by-label", json!({"selector": {"press": "big"}}), "far"),
                ("by-zone", json!({"zone": "home"}), "near"),
            ] {
                let applied = apply(tenant, build, QUICK, asks).await;
                let running = tenant.until(build, "a worker", |build| !status(build)["worker"].is_null()).await;
                assert_eq!(status(&running)["worker"], worker, "{build}");
                assert_eq!(lands(tenant, &applied).await == node.name, worker == "far", "{build}");
            }
            assert_eq!(phase(&tenant.finished("by-zone", 1).await), "Success");
            apply(tenant, "nowhere", QUICK, json!({"zone": "home", "selector": {"press": "big"}})).await;
            let message = waits_for(tenant, "nowhere", "NoMatchingWorker").await;
            assert!(message.contains("home") && message.contains("big"), "{message}");
            // A worker that fits takes it at once.
            declare(&workers, "third", json!({"zone": "home", "labels": {"press": "big"}})).await;
            assert_eq!(phase(&tenant.finished("nowhere", 1).await), "Success");
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_cordoned_worker_ends_what_it_runs_and_takes_nothing_new() {
    tenant("cordon", "baseline", async |tenant| {
        let workers = workers(&tenant.client, &tenant.namespace);
        declare(&workers, "press", json!({})).await;
        apply(tenant, "first", "FROM BASE\nRUN echo \"at work\" && sleep 3\n", json!({"name": "press"})).await;
        tenant.until("first", "it to run", |build| phase(build) == "InProgress").await;
        declare(&workers, "press", json!({"cordon": true})).await;
        let worker = workers.get("press").await.expect("it can be read");
        assert_eq!((ready(&worker).status.as_str(), ready(&worker).reason.as_str()), ("True", "Cordoned"));
        apply(tenant, "second", QUICK, json!({"name": "press"})).await;
        let message = waits_for(tenant, "second", "WorkersOffline").await;
        assert!(message.contains("press is cordoned"), "{message}");
        assert_eq!(phase(&tenant.finished("first", 1).await), "Success");
        let second = tenant.builds().get("second").await.expect("it can be read");
        assert_eq!(phase(&second), "Queued", "also when the worker is free");
        declare(&workers, "press", json!({"cordon": false})).await;
        assert_eq!(phase(&tenant.finished("second", 1).await), "Success");
    })
    .await;
}

#[tokio::test]
async fn a_worker_without_a_node_that_is_ready_is_offline_until_it_has_one() {
    tenant("offline", "baseline", async |tenant| {
        beside_nodes(tenant, async |[node]| {
            let workers = workers(&tenant.client, &tenant.namespace);
            declare(&workers, "far", node.worker(json!({"concurrentBuilds": 1}))).await;
            becomes(&workers, "far", WorkerState::Healthy).await;
            let running = apply(tenant, "running", QUICK, json!({"name": "far"})).await;
            assert_eq!(lands(tenant, &running).await, node.name);

            node.becomes("False").await;
            let worker = becomes(&workers, "far", WorkerState::Offline).await;
            let expected = format!("no node of the worker can take Jobs: {} (not ready)", node.name);
            assert_eq!((ready(&worker).reason.as_str(), ready(&worker).message), ("Offline", expected));
            apply(tenant, "waiting", QUICK, json!({"name": "far"})).await;
            let message = waits_for(tenant, "waiting", "WorkersOffline").await;
            assert!(message.contains("far is offline"), "{message}");
            let running = tenant.builds().get("running").await.expect("it can be read");
            assert_eq!(phase(&running), "InProgress", "what runs follows its Pod");

            node.becomes("True").await;
            // Its one place is taken.
            becomes(&workers, "far", WorkerState::Busy).await;
            waits_for(tenant, "waiting", "WorkersBusy").await;
            tenant.builds().delete("running", &DeleteParams::default()).await.expect("it can be deleted");
            // Nobody else ends a Pod on a node without a kubelet.
            let pods = tenant.pods().list(&ListParams::default()).await.expect("Pods can be listed");
            for pod in pods {
                let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
                let _ = tenant.pods().delete(&pod.name_any(), &at_once).await;
            }
            let waiting = tenant.builds().get("waiting").await.expect("it can be read");
            assert_eq!(lands(tenant, &waiting).await, node.name);

            let events: Api<Event> = Api::namespaced(tenant.client.clone(), &tenant.namespace);
            let of_worker = ListParams::default().fields("regarding.kind=BuildWorker");
            let events = events.list(&of_worker).await.expect("Events can be listed");
            let told: Vec<String> = events.items.into_iter().filter_map(|event| event.reason).collect();
            assert!(told.contains(&"Offline".to_owned()) && told.contains(&"Online".to_owned()), "{told:?}");
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_worker_of_which_some_nodes_are_well_is_degraded_and_still_builds() {
    tenant("degraded", "baseline", async |tenant| {
        beside_nodes(tenant, async |[one, other]| {
            let workers = workers(&tenant.client, &tenant.namespace);
            declare(&workers, "far", one.worker(json!({}))).await;
            let healthy = becomes(&workers, "far", WorkerState::Healthy).await;
            assert_eq!(ready(&healthy).reason, "Healthy");
            let row = async || -> (String, Option<String>, i64) {
                sqlx::query_as(
                    "select w.status, w.message, (select count(*) from build_worker_outages o where o.worker_id = w.id)
                     from build_workers w join tenants t on t.id = w.tenant_id
                     where t.name = $1 and w.worker_name = 'far'",
                )
                .bind(&tenant.namespace)
                .fetch_one(&tenant.pool)
                .await
                .expect("the worker has one row")
            };
            // It may have been offline until its nodes were known.
            let (_, _, outages) = row().await;

            one.becomes("False").await;
            let degraded = becomes(&workers, "far", WorkerState::Degraded).await;
            let told = format!("1 of 2 nodes can't take Jobs: {} (not ready)", one.name);
            let ready_now = ready(&degraded);
            assert_eq!((ready_now.status.as_str(), ready_now.reason.as_str()), ("True", "Degraded"));
            assert_eq!(ready_now.message, told);
            assert_eq!(row().await, ("degraded".to_owned(), Some(told), outages), "that is no outage");
            let running = apply(tenant, "running", QUICK, json!({"name": "far"})).await;
            assert_eq!(lands(tenant, &running).await, other.name);

            other.becomes("False").await;
            becomes(&workers, "far", WorkerState::Offline).await;
            one.becomes("True").await;
            becomes(&workers, "far", WorkerState::Degraded).await;
            other.becomes("True").await;
            becomes(&workers, "far", WorkerState::Healthy).await;
            assert_eq!(row().await, ("healthy".to_owned(), None, outages + 1));
            // A heartbeat counts the outage, and tells of nothing else only every five minutes: a change is told at once.
            watching::eventually("the outage to be counted", async || {
                let uptime: Option<f64> = sqlx::query_scalar(
                    "select w.uptime_percent::float8 from build_workers w join tenants t on t.id = w.tenant_id
                     where t.name = $1 and w.worker_name = 'far'",
                )
                .bind(&tenant.namespace)
                .fetch_one(&tenant.pool)
                .await
                .expect("the worker has one row");
                uptime.filter(|uptime| *uptime < 100.0).map(drop)
            })
            .await;
            declare(&workers, "far", one.worker(json!({"cordon": true}))).await;
            let told = |worker: &BuildWorker| worker.status.as_ref().and_then(|status| status.uptime_percent);
            watching::until(&workers, "far", "its uptime", |worker: Option<&BuildWorker>| {
                worker.and_then(told).is_some_and(|uptime| uptime < 100.0)
            })
            .await;
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_deleted_worker_keeps_its_row_and_comes_back_by_name() {
    tenant("deleted", "baseline", async |tenant| {
        let workers = workers(&tenant.client, &tenant.namespace);
        let row = async || -> (String, bool, String) {
            let found = sqlx::query_as(
                "select w.id::text, w.declared, w.status from build_workers w join tenants t on t.id = w.tenant_id
                 where t.name = $1 and w.worker_name = 'press'",
            );
            found.bind(&tenant.namespace).fetch_one(&tenant.pool).await.expect("the worker has one row")
        };
        declare(&workers, "press", json!({})).await;
        let (id, declared, health) = row().await;
        assert_eq!((declared, health.as_str()), (true, "healthy"));
        workers.delete("press", &DeleteParams::default()).await.expect("it can be deleted");
        watching::eventually("its row to be offline", async || (row().await.2 == "offline").then_some(())).await;
        apply(tenant, "patient", QUICK, json!({"name": "press"})).await;
        waits_for(tenant, "patient", "NoMatchingWorker").await;
        declare(&workers, "press", json!({})).await;
        assert_eq!(phase(&tenant.finished("patient", 1).await), "Success");
        assert_eq!(row().await.0, id, "the same row again");
    })
    .await;
}

#[tokio::test]
async fn a_worker_beside_the_operator_serves_every_namespace_and_one_of_a_namespace_only_that() {
    tenant("own", "baseline", async |owner| {
        declare(&workers(&owner.client, &owner.namespace), "press", json!({})).await;
        tenant("guest", "baseline", async |guest| {
            apply(guest, "theirs", QUICK, json!({"name": "press"})).await;
            waits_for(guest, "theirs", "NoMatchingWorker").await;
            let shared = workers(&guest.client, NAMESPACE);
            let name = guest.namespace.as_str();
            // It serves the builds of tests beside this one, too: there is room for them.
            declare(&shared, name, json!({"methods": ["container"], "concurrentBuilds": 100})).await;
            let outcome = AssertUnwindSafe(async {
                for of in [owner, guest] {
                    apply(of, "shared", QUICK, json!({"name": name})).await;
                    let built = of.finished("shared", 1).await;
                    assert_eq!((phase(&built), &status(&built)["worker"]), (json!("Success"), &json!(name)));
                }
            })
            .catch_unwind()
            .await;
            shared.delete(name, &DeleteParams::default()).await.expect("it can be deleted");
            if let Err(panic) = outcome {
                resume_unwind(panic);
            }
        })
        .await;
    })
    .await;
}
