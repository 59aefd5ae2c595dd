//! A namespace's limits: never more builds at once than its policy says, of it, of a project and of a method, and those
//! that wait say for what.

use image_factory::crd::BuildConcurrencyPolicy;
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{
    rows,
    tenant::{APPLIER, Tenant, phase, status, tenant},
    watching,
};

/// Declares how many builds the namespace runs at once, and waits until that is in force.
pub async fn limit(tenant: &Tenant, builds: i32) {
    declare(tenant, json!({"maxConcurrentBuilds": builds})).await;
}

async fn declare(tenant: &Tenant, spec: Value) {
    let policies: Api<BuildConcurrencyPolicy> = Api::namespaced(tenant.client.clone(), &tenant.namespace);
    let policy = json!({
        "apiVersion": "imagefactory.dev/v1alpha1", "kind": "BuildConcurrencyPolicy",
        "metadata": {"name": "default"}, "spec": spec,
    });
    let params = PatchParams::apply(APPLIER).force();
    let applied = policies.patch("default", &params, &Patch::Apply(&policy)).await.expect("the API server accepts it");
    let generation = applied.metadata.generation;
    watching::until(&policies, "default", "the policy to be in force", |policy: Option<&BuildConcurrencyPolicy>| {
        policy.and_then(|policy| policy.status.as_ref()).is_some_and(|status| {
            status.observed_generation == generation
                && status.conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
        })
    })
    .await;
}

#[tokio::test]
async fn builds_over_the_limit_wait_in_their_order_and_say_so() {
    tenant("limit", "baseline", async |tenant| {
        limit(tenant, 1).await;
        let dockerfile = "FROM BASE\nRUN echo \"at work\" && sleep 3\n";
        tenant.apply(&tenant.manifest("first", "container", dockerfile)).await;
        tenant.until("first", "it to run", |build| phase(build) == "InProgress").await;
        for (name, position) in [("second", 1), ("third", 2)] {
            tenant.apply(&tenant.manifest(name, "container", dockerfile)).await;
            let build = tenant.until(name, "its place in the queue", |build| !status(build)["queue"].is_null()).await;
            let message = format!("tenant {} runs 1 of 1 builds", tenant.namespace);
            let expected = json!({"position": position, "waitingFor": "TenantLimit", "message": message});
            assert_eq!(status(&build)["queue"], expected);
        }
        // The one before it runs: it moves up, in the view at once and in its status within seconds.
        tenant.until("second", "it to run", |build| phase(build) == "InProgress").await;
        let position: Option<i64> = sqlx::query_scalar(
            "select q.position from build_queue q join builds b on b.id = q.build_id
             where b.resource_namespace = $1 and b.resource_name = 'third'",
        )
        .bind(&tenant.namespace)
        .fetch_optional(&tenant.pool)
        .await
        .expect("the queue can be read");
        assert_eq!(position, Some(1));
        tenant.until("third", "it to move up", |build| status(build)["queue"]["position"] == 1).await;
        for name in ["first", "second", "third"] {
            assert_eq!(phase(&tenant.finished(name, 1).await), "Success");
        }
        let (builds, pairs): (i64, i64) = sqlx::query_as(
            "with ran as (
                 select h.build_id, h.changed_at as began,
                        (select e.changed_at from build_status_history e where e.build_id = h.build_id and e.sequence = h.sequence + 1) as ended
                 from build_status_history h join builds b on b.id = h.build_id
                 where b.resource_namespace = $1 and h.to_status = 'in_progress'
             )
             select (select count(*) from ran where ended is not null),
                    (select count(*) from ran a join ran b on a.build_id < b.build_id and a.began < b.ended and b.began < a.ended)",
        )
        .bind(&tenant.namespace)
        .fetch_one(&tenant.pool)
        .await
        .expect("the history can be read");
        assert_eq!((builds, pairs), (3, 0), "of three builds, no two ran at once");
    })
    .await;
}

#[tokio::test]
async fn projects_and_methods_have_limits_of_their_own_and_priority_goes_first_where_the_policy_says_so() {
    tenant("limits", "baseline", async |tenant| {
        let apply = async |name: &str, project: &str, priority: i32, dockerfile: &str| {
            let mut manifest = tenant.manifest(name, "container", dockerfile);
            manifest["spec"]["project"] = json!(project);
            manifest["spec"]["priority"] = json!(priority);
            tenant.apply(&manifest).await;
        };
        let quick = "FROM BASE\nRUN true\n";
        declare(tenant, json!({"maxConcurrentPerProject": 1})).await;
        apply("first", "press", 0, "FROM BASE\nRUN sleep 100\n").await;
        tenant.until("first", "it to run", |build| phase(build) == "InProgress").await;
        apply("second", "press", 0, quick).await;
        let waits = async |name: &str, reason: &str| {
            let build = tenant
                .until(name, &format!("it to wait for {reason}"), |build| {
                    status(build)["queue"]["waitingFor"] == reason
                })
                .await;
            status(&build)["queue"]["message"].clone()
        };
        assert_eq!(waits("second", "ProjectLimit").await, "project press runs 1 of 1 builds");
        apply("elsewhere", "cellar", 0, quick).await;
        assert_eq!(phase(&tenant.finished("elsewhere", 1).await), "Success", "another project is not held up");

        declare(tenant, json!({"methods": {"container": 1}})).await;
        let message = format!("tenant {} runs 1 of 1 builds of method container", tenant.namespace);
        assert_eq!(waits("second", "MethodLimit").await, message);

        declare(tenant, json!({"maxConcurrentBuilds": 1, "priorityDispatch": true})).await;
        apply("urgent", "cellar", 9, quick).await;
        let urgent = tenant.until("urgent", "its place", |build| !status(build)["queue"].is_null()).await;
        assert_eq!(status(&urgent)["queue"]["position"], 1, "before one that came earlier");
        tenant.merge("first", &json!({"spec": {"cancel": true}})).await;
        let mut started = Vec::new();
        for name in ["urgent", "second"] {
            let build = tenant.finished(name, 1).await;
            assert_eq!(phase(&build), "Success");
            started.push(build.status.and_then(|status| status.started_at).expect("it has started"));
        }
        assert!(started.is_sorted(), "{started:?}");
    })
    .await;
}

#[tokio::test]
async fn a_build_that_waits_too_long_fails_and_says_for_what_it_waited() {
    tenant("queue-timeout", "baseline", async |tenant| {
        declare(tenant, json!({"maxConcurrentBuilds": 1, "maxQueuedWaitMinutes": 30})).await;
        tenant.apply(&tenant.manifest("first", "container", "FROM BASE\nRUN sleep 60\n")).await;
        tenant.until("first", "it to run", |build| phase(build) == "InProgress").await;
        let mut manifest = tenant.manifest("second", "container", "FROM BASE\nRUN true\n");
        manifest["spec"]["retries"] = json!({"limit": 3, "on": "Any"});
        let build = tenant.apply(&manifest).await;
        tenant.until("second", "it to wait", |build| status(build)["queue"]["waitingFor"] == "TenantLimit").await;
        sqlx::query(
            "update builds set queued_at = now() - interval '31 minutes'
             where resource_namespace = $1 and resource_name = 'second' and status = 'queued'",
        )
        .bind(&tenant.namespace)
        .execute(&tenant.pool)
        .await
        .expect("the row can be changed");
        let ended = tenant.finished("second", 1).await;
        let message = format!(
            "it waited in the queue for 30m, as long as the policy of its tenant lets it: tenant {} runs 1 of 1 builds",
            tenant.namespace
        );
        let failure = &status(&ended)["failure"];
        assert_eq!((&failure["reason"], &failure["message"]), (&json!("QueueTimeout"), &json!(message)));
        let attempts = tenant.attempts(&build).await;
        assert_eq!(attempts.len(), 1, "no other attempt would wait for less");
        let id = rows::id(&attempts[0]);
        assert_eq!(rows::build_results(&tenant.pool, id).await["status"], "timeout");
        assert_eq!(rows::history(&tenant.pool, id).await, "queued → failed");
        tenant.merge("first", &json!({"spec": {"cancel": true}})).await;
        assert_eq!(phase(&tenant.finished("first", 1).await), "Cancelled");
    })
    .await;
}

#[tokio::test]
async fn a_job_that_a_quota_refuses_sends_its_build_back_to_the_queue_with_the_reason() {
    tenant("quota", "baseline", async |tenant| {
        let quotas: Api<ResourceQuota> = Api::namespaced(tenant.client.clone(), &tenant.namespace);
        let quota = json!({
            "apiVersion": "v1", "kind": "ResourceQuota",
            "metadata": {"name": "no-jobs"}, "spec": {"hard": {"count/jobs.batch": "0"}},
        });
        let params = PatchParams::apply(APPLIER).force();
        quotas.patch("no-jobs", &params, &Patch::Apply(&quota)).await.expect("the API server accepts it");
        watching::until(&quotas, "no-jobs", "the quota to be in force", |quota: Option<&ResourceQuota>| {
            quota.and_then(|quota| quota.status.as_ref()).is_some_and(|status| status.hard.is_some())
        })
        .await;
        let build = tenant.apply(&tenant.manifest("refused", "container", "FROM BASE\nRUN true\n")).await;
        let build = tenant
            .until(&build.name_any(), "it to back off", |build| status(build)["queue"]["waitingFor"] == "BackingOff")
            .await;
        let message = status(&build)["queue"]["message"].as_str().unwrap_or_default().to_owned();
        assert!(message.contains("exceeded quota: no-jobs"), "{message}");
        assert_eq!(phase(&build), "Queued");
        let attempt = rows::id(&tenant.attempts(&build).await[0]);
        assert!(rows::history(&tenant.pool, attempt).await.contains("in_progress → queued"));
    })
    .await;
}
