//! What a build costs Postgres, counted by Postgres itself (`pg_stat_statements`): at backlog at most
//! six statements and one and a half commits, from its claim to the report of its end.
//!
//! At backlog a claim finds room for several builds. On one machine builds end one by one, so the test
//! holds the claim's own lock while ten of them end, and then lets the next ten be claimed.
//!
//! Not counted is what does not grow with builds: the rounds by timer of heartbeat, search and cleaner,
//! the health check, LISTEN; and logs, whose cost follows their lines.

use std::collections::BTreeMap;

use kube::api::ListParams;
use sqlx::{Connection, PgConnection};

use super::{
    cluster, history,
    operator::{Operator, Settings},
    stage::stage,
    tenant::{Tenant, phase, tenant},
    watching,
};

/// Builds that the deployed operator's settings let run at once.
const AT_ONCE: usize = 10;
/// Two generations are counted; a third is still waiting then.
const BUILDS: usize = 24;
const COUNTED: f64 = 20.0;

/// Parts of statements that do not grow with builds, or are about logs.
const APART: [&str; 10] = [
    "pg_stat_statements",
    "pg_advisory_lock",
    "pg_advisory_unlock",
    "copy build_logs ",
    LOG_CURSOR,
    "insert into operator_settings",
    "insert into build_workers",
    "job_created_at < now() - make_interval",
    "cleanup_due_at <= now()",
    "select distinct resource_namespace, resource_name, resource_uid",
];
/// One a batch of lines, each in a transaction of its own.
const LOG_CURSOR: &str = "insert into build_log_cursors";
/// The one counted write that is a transaction by itself.
const JOBS_CREATED: &str = "with recorded as";

/// Successful calls of each statement of the operator's database.
async fn statements(statistics: &mut PgConnection) -> BTreeMap<String, i64> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "select s.query, sum(s.calls)::bigint
         from pg_stat_statements s join pg_database d on d.oid = s.dbid
         where d.datname = $1 group by s.query",
    )
    .bind(cluster::variable("DATABASE_URL").rsplit_once('/').expect("a URL with a database").1)
    .fetch_all(statistics)
    .await
    .expect("pg_stat_statements can be read");
    rows.into_iter().collect()
}

/// How often the statistics were full and forgot statements.
async fn evictions(statistics: &mut PgConnection) -> i64 {
    let evictions = sqlx::query_scalar("select dealloc from pg_stat_statements_info").fetch_one(statistics).await;
    evictions.expect("pg_stat_statements_info can be read")
}

/// Holds back every claim, until it is released.
async fn hold(lock: &mut PgConnection) {
    let held = sqlx::query("select pg_advisory_lock(hashtextextended('image-factory claim', 0))").execute(lock).await;
    held.expect("the lock can be had");
}

async fn release(lock: &mut PgConnection) {
    let freed =
        sqlx::query("select pg_advisory_unlock(hashtextextended('image-factory claim', 0))").execute(lock).await;
    freed.expect("the lock can be given back");
}

/// Waits until so many Builds are in one of these phases.
async fn are(tenant: &Tenant, number: usize, phases: &[&str]) {
    watching::eventually(&format!("{number} Builds that are {phases:?}"), async || {
        let builds = tenant.builds().list(&ListParams::default()).await.expect("Builds can be listed");
        let found = builds.iter().filter(|build| phases.iter().any(|wanted| phase(build) == *wanted)).count();
        (found == number).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_build_at_backlog_costs_at_most_six_statements_and_one_and_a_half_commits() {
    let stage = stage().await;
    tenant("crash-statements", "baseline", async |tenant| {
        let url = cluster::variable("DATABASE_URL");
        let server = url.rsplit_once('/').expect("a URL with a database").0;
        let mut statistics = PgConnection::connect(&format!("{server}/postgres")).await.expect("connects");
        let mut lock = PgConnection::connect(&url).await.expect("connects");

        hold(&mut lock).await;
        let operator = Operator::start(&stage, &Settings::default());
        for number in 0..BUILDS {
            let dockerfile = format!("FROM BASE\nRUN sleep 5; echo {number}\n");
            tenant.apply(&tenant.manifest(&format!("apple-{number}"), "container", &dockerfile)).await;
        }
        are(tenant, BUILDS, &["Queued"]).await;

        sqlx::query("select pg_stat_statements_reset()").execute(&mut statistics).await.expect("can be reset");
        let before = evictions(&mut statistics).await;
        for generation in 1..=2 {
            release(&mut lock).await;
            are(tenant, BUILDS - generation * AT_ONCE, &["Queued"]).await;
            hold(&mut lock).await;
            are(tenant, generation * AT_ONCE, &["Success"]).await;
        }
        let calls = statements(&mut statistics).await;
        assert_eq!(evictions(&mut statistics).await, before, "the statistics have all statements");

        let of = |part: &str| -> i64 {
            calls.iter().filter(|(query, _)| query.contains(part)).map(|(_, calls)| calls).sum()
        };
        let commits = calls["COMMIT"] - of(LOG_CURSOR) + of(JOBS_CREATED);
        let counted: BTreeMap<&str, i64> = calls
            .iter()
            .filter(|(query, _)| !["BEGIN", "COMMIT", "ROLLBACK", "select $1"].contains(&query.as_str()))
            .filter(|(query, _)| !query.starts_with("LISTEN") && !APART.iter().any(|part| query.contains(part)))
            .map(|(query, calls)| (query.as_str(), *calls))
            .collect();
        let per_build = |number: i64| f64::from(u32::try_from(number).expect("a small number")) / COUNTED;
        let (sum, commits) = (per_build(counted.values().sum()), per_build(commits));
        println!("{sum} statements and {commits} commits a build");
        assert!(sum <= 6.0, "{sum} statements a build: {counted:#?}");
        assert!(commits <= 1.5, "{commits} commits a build: {counted:#?}");
        assert_eq!(of("-- The result of an attempt that ran"), 20, "each end is among them: {counted:#?}");

        release(&mut lock).await;
        are(tenant, BUILDS, &["Success"]).await;
        history::holds().await;
        operator.stop().await;
    })
    .await;
}
