//! Pods that can't go on: the status says why while they wait, and at the deadline the build fails for that reason, with
//! nothing of it left that could still push. The deadlines are minutes, so the rows are told that they have passed, and
//! a new operator finds it so.

use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{
    failing_builds::{failure, told},
    killed_operator, rows,
    tenant::{status, tenant},
};

/// Reason and message of the condition `Reconciling`.
fn reconciling(status: &Value) -> Option<(&str, &str)> {
    let conditions = status["conditions"].as_array()?;
    let condition = conditions.iter().find(|condition| condition["type"] == "Reconciling")?;
    Some((condition["reason"].as_str()?, condition["message"].as_str()?))
}

#[tokio::test]
async fn a_pod_that_cannot_go_on_is_told_at_once_and_given_up_at_its_deadline() {
    tenant("waiting-pods", "baseline", async |tenant| {
        let mut large = tenant.manifest("large", "container", "FROM BASE\nRUN true\n");
        large["spec"]["resources"] = json!({"requests": {"cpu": "1000"}});
        tenant.apply(&large).await;
        // The image of a container that has not begun may be changed: as if it had gone from its registry.
        let build = tenant.apply(&tenant.manifest("gone", "container", "FROM BASE\nRUN echo begun && sleep 3\n")).await;
        let attempt = tenant.prints(&build, "begun").await;
        let pod: Pod = tenant.pods_of(attempt).await.remove(0);
        let missing = tenant.image("never-pushed", "7");
        let patch = json!({"spec": {"containers": [{"name": "inspect", "image": missing}]}});
        let patched = tenant.pods().patch(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(patch)).await;
        patched.expect("the API server accepts it");

        let cases = [("large", "Unschedulable", "Insufficient cpu"), ("gone", "ImagePull", missing.as_str())];
        for (name, reason, words) in cases {
            let told = |build: &_| reconciling(&status(build)).is_some_and(|(found, _)| found == reason);
            let build = tenant.until(name, reason, told).await;
            let status = status(&build);
            let (_, message) = reconciling(&status).unwrap_or_default();
            assert!(message.contains(words), "{message}");
        }
        sqlx::query(
            "update builds set pod_waiting_since = now() - interval '1 hour'
             where resource_namespace = $1 and pod_waiting_since is not null",
        )
        .bind(&tenant.namespace)
        .execute(&tenant.pool)
        .await
        .expect("the rows can be changed");
        let killed = killed_operator::kill(tenant).await;
        for (name, reason, words) in cases {
            let build = tenant.finished(name, 1).await;
            let failure = failure(tenant, &build).await;
            assert_eq!(told(&failure), (reason, "compile", None), "{failure:#}");
            let message = failure["message"].as_str().unwrap_or_default();
            assert!(message.contains(words) && message.contains("given up after"), "{message}");
            let id = rows::id(&tenant.attempts(&build).await[0]);
            assert!(tenant.jobs_of(id).await.is_empty() && tenant.pods_of(id).await.is_empty(), "nothing is left");
        }
        killed_operator::succeeded(tenant, &killed).await;
    })
    .await;
}
