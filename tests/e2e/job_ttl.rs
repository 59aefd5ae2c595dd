//! What a finished build leaves in the cluster goes after its time; what is known of it stays.

use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::{
    rows,
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
