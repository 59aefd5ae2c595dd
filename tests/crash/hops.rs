//! Every hop of a build's way, twice: the first build to come there sees an error, the next one a
//! crash. The operator goes on after the one, and is started again after the other.

use serde_json::json;

use super::{
    history::{self, Jobs, Pods},
    operator::{Operator, Settings},
    rows,
    stage::stage,
    tenant::{Tenant, tenant},
};

/// Every hop of a run.
pub const HOPS: [&str; 13] = [
    "enqueue.before-commit",
    "enqueue.after-commit",
    "claim.before-commit",
    "claim.after-commit",
    "launch.before-create",
    "launch.after-create",
    "launch.after-job-created",
    "log.before-commit",
    "log.after-commit",
    "finish.before-commit",
    "finish.after-commit",
    "report.before-patch",
    "report.after-patch",
];

/// Those of an operator that makes Pods itself.
pub const LAUNCHING_HOPS: [&str; 4] =
    ["launch.before-pod", "launch.after-pod", "close.before-patch", "close.after-patch"];

/// What a build does to come to the hop.
#[derive(Clone, Copy, PartialEq)]
pub enum Way {
    Run,
    /// Its Job is cleaned away a second after its end.
    RunAndClean,
    /// It is stopped while it runs.
    Stop,
    /// It fails, and so does its second and last attempt.
    Retry,
}

/// `skipped`: how many times the hop is passed unharmed first.
pub async fn error_then_crash(place: &str, skipped: u32, way: Way, settings: Settings) {
    let stage = stage().await;
    let name = place.replace('.', "-");
    tenant(&format!("crash-{name}"), "baseline", async |tenant| {
        let (jobs, pods) = (Jobs::watch(tenant), Pods::watch(tenant));
        let off = if skipped > 0 { format!("{skipped}*off->") } else { String::new() };
        let failpoints = format!("{place}={off}1*return(error)->1*return(crash)");
        let operator = Operator::start(&stage, &Settings { failpoints, ..settings.clone() });
        let names = ["first", "second"];
        if way == Way::Stop {
            for name in names {
                let build = tenant.apply(&history::endless(tenant, name)).await;
                tenant.prints(&build, "tick 3").await;
            }
        }
        go(tenant, names[0], way).await;
        operator.says(&format!("failing at {place}")).await;
        go(tenant, names[1], way).await;
        operator.crashed(place).await;

        let operator = Operator::start(&stage, &settings);
        match way {
            Way::Run | Way::RunAndClean => history::succeeded(tenant, &jobs, &names).await,
            Way::Stop => history::cancelled(tenant, &jobs, &names).await,
            Way::Retry => history::failed_twice(tenant, &jobs, &names).await,
        }
        for name in names {
            let build = tenant.builds().get(name).await.expect("it is there");
            for attempt in tenant.attempts(&build).await {
                assert!(pods.of(rows::id(&attempt)) <= 1, "an attempt starts once");
            }
        }
        history::holds().await;
        operator.stop().await;
    })
    .await;
}

/// Sends a build on its way to the hop.
async fn go(tenant: &Tenant, name: &str, way: Way) {
    let manifest = match way {
        Way::Run => history::ticking(tenant, name),
        Way::RunAndClean => {
            let mut manifest = history::ticking(tenant, name);
            manifest["spec"]["retention"] = json!({"jobTtl": "1s"});
            manifest
        }
        Way::Stop => {
            let mut manifest = history::endless(tenant, name);
            manifest["spec"]["cancel"] = json!(true);
            manifest
        }
        Way::Retry => {
            let mut manifest = tenant.manifest(name, "container", "FROM BASE\nRUN exit 3\n");
            manifest["spec"]["retries"] = json!({"limit": 1, "on": "Any"});
            manifest
        }
    };
    tenant.apply(&manifest).await;
}

macro_rules! hops {
    ($($test:ident: $place:literal after $skipped:literal, $way:ident;)*) => {$(
        #[tokio::test]
        async fn $test() {
            error_then_crash($place, $skipped, Way::$way, Settings::default()).await;
        }
    )*};
}

hops! {
    before_a_run_is_committed: "enqueue.before-commit" after 0, Run;
    after_a_run_is_committed: "enqueue.after-commit" after 0, Run;
    before_a_claim_is_committed: "claim.before-commit" after 0, Run;
    after_a_claim_is_committed: "claim.after-commit" after 0, Run;
    before_a_job_is_created: "launch.before-create" after 0, Run;
    after_a_job_is_created: "launch.after-create" after 0, Run;
    after_a_jobs_creation_is_recorded: "launch.after-job-created" after 0, Run;
    before_a_batch_of_lines_is_committed: "log.before-commit" after 3, Run;
    after_a_batch_of_lines_is_committed: "log.after-commit" after 3, Run;
    before_an_end_is_committed: "finish.before-commit" after 0, Run;
    after_an_end_is_committed: "finish.after-commit" after 0, Run;
    before_the_end_of_an_attempt_with_another_is_committed: "finish.before-commit" after 0, Retry;
    after_the_end_of_an_attempt_with_another_is_committed: "finish.after-commit" after 0, Retry;
    before_the_first_status_is_patched: "report.before-patch" after 0, Run;
    before_a_later_status_is_patched: "report.before-patch" after 1, Run;
    after_a_status_is_patched: "report.after-patch" after 1, Run;
    before_a_job_is_cleaned_away: "clean.before-delete" after 0, RunAndClean;
    after_a_job_is_cleaned_away: "clean.after-delete" after 0, RunAndClean;
    before_a_cancellation_is_committed: "cancel.before-commit" after 0, Stop;
    after_a_cancellation_is_committed: "cancel.after-commit" after 0, Stop;
    before_a_job_is_stopped: "stop.before-delete" after 0, Stop;
    after_a_job_is_stopped: "stop.after-delete" after 0, Stop;
}
