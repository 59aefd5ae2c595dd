//! Specs that the API server accepts and the operator refuses: each refusal is a run with rows, so that
//! an older success never hides it, and never has a Job.

use serde_json::{Value, json};

use super::{
    rows,
    tenant::{condition, phase, status, tenant},
};

#[tokio::test]
async fn a_refused_spec_has_its_rows_and_no_job_and_a_better_one_is_the_next_run() {
    tenant("refused", "baseline", async |tenant| {
        for (name, method, reason, words) in [
            ("unencrypted", "container", "InvalidSpec", "git is not encrypted"),
            ("privileged", "buildx", "PodSecurity", "pod-security.kubernetes.io/enforce=privileged"),
        ] {
            let mut manifest = tenant.manifest(name, method, "FROM BASE\n");
            if name == "unencrypted" {
                manifest["spec"]["source"] = json!({"git": {"url": "git://git.example.com/apple.git"}});
            }
            tenant.apply(&manifest).await;
            let build = tenant.finished(name, 1).await;
            assert_eq!(phase(&build), "Failed");
            let failure = status(&build)["failure"].clone();
            assert_eq!((&failure["reason"], &failure["stage"]), (&json!(reason), &json!("compile")));
            assert!(failure["message"].as_str().unwrap_or_default().contains(words), "{failure:#}");
            assert_eq!(condition(&build, "Stalled").as_deref(), Some("True"));

            let attempts = tenant.attempts(&build).await;
            assert_eq!(attempts.len(), 1);
            let id = rows::id(&attempts[0]);
            assert_eq!(rows::history(&tenant.pool, id).await, "queued → failed");
            for column in ["started_at", "job_created_at", "worker_id"] {
                assert_eq!(attempts[0][column], Value::Null, "builds.{column}");
            }
            let result = rows::build_results(&tenant.pool, id).await;
            assert_eq!((&result["status"], &result["failure_reason"]), (&json!("failed"), &json!(reason)));
            assert_eq!(rows::build_configs(&tenant.pool, id).await["build_method"], method);
            assert_eq!(rows::build_triggers(&tenant.pool, id).await["trigger_type"], "manual");

            tenant.apply(&tenant.manifest(name, "container", "FROM BASE\n")).await;
            let build = tenant.finished(name, 2).await;
            assert_eq!(phase(&build), "Success", "{:#}", status(&build));
            let attempts = tenant.attempts(&build).await;
            assert_eq!(attempts.iter().map(|row| &row["run"]).collect::<Vec<_>>(), [1, 2]);
            assert_eq!(tenant.jobs_of(id).await.len(), 0, "what was refused never had a Job");
            assert_eq!(tenant.jobs_of(rows::id(&attempts[1])).await.len(), 1);
        }
    })
    .await;
}
