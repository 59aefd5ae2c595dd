//! What breaks while builds run: the operator, killed or made to fail at every hop of a build's way;
//! two operators at once; Postgres and the API server away. After each of them every invariant that
//! `image-factory verify` knows must hold, and what was lost must be nothing.
//!
//! The operator under test is a process of this machine, built with the feature `failpoints`; the
//! deployed one is scaled to nothing meanwhile (`stage`). So: `make crash`, or, after `make up`,
//! `cargo test --features failpoints --test crash`.

#[path = "../e2e/audit.rs"]
mod audit;
#[path = "../e2e/chart.rs"]
mod chart;
#[path = "../e2e/cluster.rs"]
#[expect(dead_code, reason = "shared with the end-to-end tests, which use all of it")]
mod cluster;
#[path = "../e2e/git/repository.rs"]
#[expect(dead_code, reason = "shared with the end-to-end tests, which use all of it")]
mod repository;
#[path = "../e2e/rows.rs"]
#[expect(dead_code, reason = "shared with the end-to-end tests, which use all of it")]
mod rows;
#[path = "../e2e/tenant.rs"]
#[expect(dead_code, reason = "shared with the end-to-end tests, which use all of it")]
mod tenant;
#[path = "../e2e/watching.rs"]
mod watching;

/// A test a failpoint: the module's `error_then_crash`, there.
macro_rules! failpoints {
    ($($test:ident: $place:literal;)*) => {$(
        #[tokio::test]
        async fn $test() {
            cluster::variable("KUBECONFIG");
            error_then_crash($place).await;
        }
    )*};
}

mod history;
mod operator;
mod proxy;
mod stage;

mod absences;
mod api_outages;
mod database_outages;
mod hops;
mod launch_mode;
mod leaders;
mod long_logs;
mod lost_workers;
mod polling;
mod schedules;
mod statements;
mod webhooks;
