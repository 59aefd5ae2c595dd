//! The operator is killed while builds print, without a moment's notice: nothing of it may be seen in
//! the end. Tests that run beside this one live through it too.

use image_factory::{clock, db, verify};
use jiff::Timestamp;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    budgets, chart, rows,
    tenant::{Tenant, phase, status, tenant},
    watching,
};

const TICKS: usize = 250;

/// The numbers of the lines `tick <number>`, whatever the builder puts before them.
fn ticks(log: &[String]) -> Vec<usize> {
    // The instruction is printed too, with what stands in the Dockerfile.
    log.iter().filter_map(|line| line.rsplit_once("tick ")?.1.parse().ok()).collect()
}

#[tokio::test]
async fn killing_the_operator_in_the_midst_of_builds_changes_nothing_in_the_end() {
    tenant("killed-operator", "privileged", async |tenant| {
        let dockerfile = format!("FROM BASE\nRUN for i in $(seq 1 {TICKS}); do echo \"tick $i\"; sleep 0.1; done\n");
        let mut builds = Vec::new();
        for method in ["buildx", "container"] {
            let mut manifest = tenant.manifest(method, method, &dockerfile);
            // A test beside this one may declare a worker that fits.
            manifest["spec"]["worker"] = json!({"name": "cluster"});
            builds.push(tenant.apply(&manifest).await);
        }
        let mut ids = Vec::new();
        for build in &builds {
            ids.push(tenant.prints(build, "tick 10").await);
        }
        let mut before = Vec::new();
        for id in &ids {
            before.push((tenant.jobs_of(*id).await, tenant.pods_of(*id).await));
        }

        let killed = kill(tenant).await;
        for id in &ids {
            let stored = ticks(&rows::log(&tenant.pool, *id).await);
            assert!(stored.len() < TICKS, "it was killed in the midst of the build");
        }

        for ((method, id), (jobs, pods)) in ["buildx", "container"].into_iter().zip(ids).zip(before) {
            let build = tenant.finished(method, 1).await;
            assert_eq!(phase(&build), "Success", "{:#}", status(&build));
            assert_eq!(rows::history(&tenant.pool, id).await, "queued → in_progress → success");
            assert_eq!(rows::build_results(&tenant.pool, id).await["status"], "success");
            let log = rows::log(&tenant.pool, id).await;
            assert_eq!(ticks(&log), (1..=TICKS).collect::<Vec<_>>(), "every line once, in order");
            let pod = pods[0].name_any();
            let mut printed = tenant.container_log(&pod, "prepare").await;
            printed.extend(tenant.container_log(&pod, "build").await);
            assert_eq!(log.join("\n"), printed.join("\n"));

            let attempts = tenant.attempts(&build).await;
            assert_eq!(attempts.len(), 1, "one run, one attempt");
            assert_eq!((&attempts[0]["cancel_reason"], &attempts[0]["worker"]), (&Value::Null, &json!("cluster")));
            let uids =
                |jobs: &[k8s_openapi::api::batch::v1::Job]| jobs.iter().map(ResourceExt::uid).collect::<Vec<_>>();
            assert_eq!(uids(&tenant.jobs_of(id).await), uids(&jobs), "the same single Job");
            let pods_after = tenant.pods_of(id).await;
            assert_eq!(pods_after.iter().map(ResourceExt::uid).collect::<Vec<_>>(), [pods[0].uid()], "and Pod");
        }

        succeeded(tenant, &killed).await;
    })
    .await;
}

/// Kills every operator at once, and says which that were.
pub async fn kill(tenant: &Tenant) -> Vec<Pod> {
    let (operators, selector) = operators(tenant);
    let killed = operators.list(&selector).await.expect("Pods can be listed").items;
    assert!(!killed.is_empty(), "the operator runs");
    for pod in &killed {
        let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        operators.delete(&pod.name_any(), &now).await.expect("it can be killed");
    }
    killed
}

/// Whoever runs the next test finds an operator that is ready.
pub async fn succeeded(tenant: &Tenant, killed: &[Pod]) {
    let (operators, selector) = operators(tenant);
    watching::eventually("a new operator that is ready", async || {
        let pods = operators.list(&selector).await.expect("Pods can be listed").items;
        let new = |pod: &&Pod| killed.iter().all(|old| old.uid() != pod.uid());
        let ready = |pod: &Pod| {
            let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
            conditions.into_iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True")
        };
        pods.iter().filter(new).any(ready).then_some(())
    })
    .await;
}

fn operators(tenant: &Tenant) -> (Api<Pod>, ListParams) {
    let operators = Api::namespaced(tenant.client.clone(), chart::NAMESPACE);
    (operators, ListParams::default().labels("app.kubernetes.io/name=image-factory"))
}

const BUILDS: usize = 30;

#[tokio::test]
async fn with_two_operators_the_leader_may_go_in_the_midst_of_thirty_builds() {
    tenant("two-operators", "baseline", async |tenant| {
        let deployments: Api<Deployment> = Api::namespaced(tenant.client.clone(), chart::NAMESPACE);
        let scale = async |replicas: i32| {
            let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
            deployments.patch("image-factory", &PatchParams::default(), &patch).await.expect("it can be scaled");
        };
        let since = clock::now();
        scale(2).await;
        watching::until(&deployments, "image-factory", "two operators", |found: Option<&Deployment>| {
            let status = found.and_then(|deployment| deployment.status.as_ref());
            status.and_then(|status| status.available_replicas) == Some(2)
        })
        .await;

        let dockerfile = "FROM BASE\nRUN for i in $(seq 1 8); do echo \"tick $i\"; sleep 0.1; done\n";
        let names: Vec<String> = (0..BUILDS).map(|index| format!("build-{index}")).collect();
        for name in &names {
            tenant.apply(&tenant.manifest(name, "container", dockerfile)).await;
        }
        tenant.finished(&names[0], 1).await;
        let (leader, unfinished) = send_the_leader_away(tenant).await;
        assert!(unfinished > 0, "it went in the midst of the builds, not after them");
        watching::eventually("another leader", async || {
            budgets::leader(&tenant.client).await.filter(|holder| *holder != leader)
        })
        .await;

        let mut ids = Vec::new();
        for name in &names {
            let build = tenant.finished(name, 1).await;
            assert_eq!(phase(&build), "Success", "{:#}", status(&build));
            let attempts = tenant.attempts(&build).await;
            assert_eq!(attempts.len(), 1, "one run, one attempt");
            let id = rows::id(&attempts[0]);
            assert_eq!(rows::history(&tenant.pool, id).await, "queued → in_progress → success");
            assert_eq!(ticks(&rows::log(&tenant.pool, id).await), (1..=8).collect::<Vec<_>>());
            assert_eq!(tenant.jobs_of(id).await.len(), 1, "one Job");
            ids.push(id);
        }
        scale(1).await;
        holds(tenant, &ids, since).await;
    })
    .await;
}

/// Deletes the Pod that leads; which that was, and how many builds of the tenant had not ended then.
async fn send_the_leader_away(tenant: &Tenant) -> (String, i64) {
    let operators: Api<Pod> = Api::namespaced(tenant.client.clone(), chart::NAMESPACE);
    // Another test kills operators: where it was faster, it is the next leader's turn.
    watching::eventually("a leader that can be sent away", async || {
        let leader = budgets::leader(&tenant.client).await?;
        operators.delete(&leader, &DeleteParams::default()).await.ok()?;
        let unfinished = sqlx::query_scalar(
            "select count(*) from builds where resource_namespace = $1 and status in ('queued', 'in_progress')",
        )
        .bind(&tenant.namespace)
        .fetch_one(&tenant.pool)
        .await
        .expect("builds can be read");
        Some((leader, unfinished))
    })
    .await
}

/// Every invariant that `image-factory verify` knows, as far as it is about this tenant and these
/// attempts, or about the worker that all share: tests run beside this one, and some break a rule on purpose.
async fn holds(tenant: &Tenant, attempts: &[Uuid], since: Timestamp) {
    let mut snapshot = db::verify::snapshot(&tenant.pool).await.expect("a snapshot can be had");
    let mut findings = verify::rows(&mut snapshot, Some(since)).await.expect("the rows can be checked");
    snapshot.rollback().await.expect("the transaction can be ended");
    findings.extend(verify::cluster(&tenant.pool, &tenant.client).await.expect("the cluster can be checked"));
    assert_eq!(findings.len(), 12, "every invariant is checked");
    let mut ours: Vec<String> = attempts.iter().map(Uuid::to_string).collect();
    ours.extend([tenant.namespace.clone(), "worker cluster".to_owned()]);
    for finding in findings {
        assert!(finding.checked.examined > 0 || finding.unit == "slots and deliveries", "{}", finding.invariant);
        let broken: Vec<_> = finding
            .checked
            .broken
            .iter()
            .filter(|broken| ours.iter().any(|name| broken.subject.contains(name.as_str())))
            .collect();
        assert!(broken.is_empty(), "{}: {broken:?}", finding.invariant);
    }
}
