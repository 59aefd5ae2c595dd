//! Builds that ended while no operator ran: the next one tells their end from what is left of them.

use std::time::Duration;

use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
};
use serde_json::json;

use super::{
    history::{self, Jobs},
    operator::{Operator, Settings},
    rows,
    stage::stage,
    tenant::{phase, status, tenant},
    watching,
};

/// From this age on, a Job without a Pod is one that has lost it.
const OLD: Duration = Duration::from_secs(22);

#[tokio::test]
async fn what_ended_while_no_operator_ran_is_told_as_if_one_had() {
    let stage = stage().await;
    tenant("crash-absence", "baseline", async |tenant| {
        let jobs = Jobs::watch(tenant);
        let operator = Operator::start(&stage, &Settings::default());
        let fails = "FROM BASE\nRUN for i in $(seq 1 30); do echo \"tick $i\"; sleep 0.05; done; exit 7\n";
        let mut builds = Vec::new();
        for manifest in [
            history::endless(tenant, "loses-its-job"),
            history::ticking(tenant, "succeeds"),
            tenant.manifest("fails", "container", fails),
        ] {
            builds.push(tenant.apply(&manifest).await);
        }
        let mut ids = Vec::new();
        for build in &builds {
            ids.push(tenant.prints(build, "tick 2").await);
        }
        operator.signal("KILL").await;
        let old = tokio::time::Instant::now() + OLD;

        let [job] = tenant.jobs_of(ids[0]).await.try_into().expect("one Job");
        let delete = DeleteParams::background();
        Api::<Job>::delete(&tenant.jobs(), &job.name_any(), &delete).await.expect("the Job can be deleted");
        watching::eventually("the ends of the Pods", async || {
            let pods = tenant.pods().list(&ListParams::default()).await.expect("Pods can be listed").items;
            let over = |pod: &Pod| {
                let phase = pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
                phase == "Succeeded" || phase == "Failed"
            };
            pods.iter().all(over).then_some(())
        })
        .await;
        tokio::time::sleep_until(old).await;

        let operator = Operator::start(&stage, &Settings::default());
        history::succeeded(tenant, &jobs, &["succeeds"]).await;
        let failed = tenant.finished("fails", 1).await;
        assert_eq!(status(&failed)["failure"]["reason"], "BuildFailed", "{:#}", status(&failed));
        assert_eq!(status(&failed)["failure"]["exitCode"], 7, "{:#}", status(&failed));
        assert!(rows::log(&tenant.pool, ids[2]).await.iter().any(|line| line.ends_with("tick 30")));
        let lost = tenant.finished("loses-its-job", 1).await;
        assert_eq!(phase(&lost), "Failed");
        assert_eq!(rows::build_results(&tenant.pool, ids[0]).await["failure_reason"], json!("JobDeleted"));
        let end = rows::log(&tenant.pool, ids[0]).await.pop().expect("it has a log");
        assert!(end.contains("an unknown number of lines is lost"), "{end}");
        history::holds().await;
        operator.stop().await;
    })
    .await;
}
