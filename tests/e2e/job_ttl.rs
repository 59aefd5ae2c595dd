//! What a finished build leaves in the cluster goes after its time; what is known of it stays.

use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{ResourceExt, api::PostParams};
use serde_json::{Value, json};

use super::{
    killed_operator, rows,
    tenant::{phase, tenant},
    watching,
};

#[tokio::test]
async fn the_job_goes_after_its_time_and_the_log_stays() {
    tenant("job-ttl", "baseline", async |tenant| {
        let mut manifest = tenant.manifest("cider", "container", "FROM BASE\nRUN echo \"pressing\"\n");
        manifest["spec"]["retention"] = json!({"jobTtl": "1s"});
        tenant.apply(&manifest).await;
        let running = tenant.until("cider", "its Job", |build| super::tenant::status(build)["job"].is_string()).await;
        let id = rows::id(&tenant.attempts(&running).await[0]);
        let pod = watching::eventually("its Pod", async || tenant.pods_of(id).await.pop()).await.name_any();
        let job = super::tenant::status(&running)["job"].as_str().map(str::to_owned).expect("it has a Job");

        let build = tenant.finished("cider", 1).await;
        assert_eq!(phase(&build), "Success");
        let log = rows::log(&tenant.pool, id).await;
        watching::until(&tenant.jobs(), &job, "the Job to go", |job: Option<&Job>| job.is_none()).await;
        watching::until(&tenant.pods(), &pod, "the Pod to go", |pod: Option<&Pod>| pod.is_none()).await;

        let row = watching::eventually("the row of the cleaned build", async || {
            let row = tenant.attempts(&build).await.remove(0);
            (row["cleanup_at"] != Value::Null).then_some(row)
        })
        .await;
        assert!(row["cleanup_due_at"].as_str() <= row["cleanup_at"].as_str());
        assert_eq!(rows::build_results(&tenant.pool, id).await["cleanup_status"], "completed");
        assert!(log.iter().any(|line| line == "pressing"));
        assert_eq!(rows::log(&tenant.pool, id).await, log);
        assert_eq!(rows::history(&tenant.pool, id).await, "queued → in_progress → success");
    })
    .await;
}

/// As an operator leaves them that was paused while another ended and cleaned up the attempt.
#[tokio::test]
async fn a_job_whose_attempt_was_cleaned_up_is_swept_and_one_that_only_looks_like_it_is_not() {
    tenant("leftover", "baseline", async |tenant| {
        let mut manifest = tenant.manifest("cider", "container", "FROM BASE\nRUN true\n");
        manifest["spec"]["retention"] = json!({"jobTtl": "24h"});
        tenant.apply(&manifest).await;
        let build = tenant.finished("cider", 1).await;
        let id = rows::id(&tenant.attempts(&build).await[0]);
        let job = tenant.jobs_of(id).await.remove(0);
        let name = job.name_any();
        let look_alike = serde_json::from_value(json!({
            "metadata": {"name": "look-alike", "labels": job.labels()},
            "spec": {"suspend": true, "template": job.spec.map(|spec| spec.template.spec).map(|spec| json!({"spec": spec}))},
        }));
        let look_alike: Job = look_alike.expect("a Job");
        tenant.jobs().create(&PostParams::default(), &look_alike).await.expect("it can be made");
        sqlx::query(
            "with cleaned as (update builds set cleanup_at = now() where id = $1)
             update build_results set cleanup_status = 'completed' where build_id = $1",
        )
        .bind(id)
        .execute(&tenant.pool)
        .await
        .expect("the rows can be changed");

        let killed = killed_operator::kill(tenant).await;
        watching::until(&tenant.jobs(), &name, "the Job to be swept", |job: Option<&Job>| job.is_none()).await;
        let left = tenant.jobs_of(id).await;
        assert_eq!(left.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["look-alike"]);
        killed_operator::succeeded(tenant, &killed).await;
    })
    .await;
}
