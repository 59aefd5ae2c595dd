//! What a build costs Postgres, counted by Postgres itself (`pg_stat_statements`): at backlog at most
//! six statements and one and a half commits, from its claim to the report of its end.
//!
//! At backlog a claim finds room for several builds. On one machine builds end one by one, so the test
//! holds the claim's own lock while a generation of them ends, and then lets the next be claimed.
//!
//! Not counted is what does not grow with builds: the rounds by timer of heartbeat, search, cleaner, schedules,
//! webhooks and rollup (once a minute, for all that ended), what BuildWorkers and policies declare,
//! and those of the dispatcher that find nothing, of which there may be one in five seconds; the looks at running
//! Builds, one statement in ten seconds however many there are; the health check, LISTEN; and logs, with the steps read from them, whose cost follows their lines. Where to take
//! up a log is counted.

use std::{collections::BTreeMap, time::Instant};

use kube::api::ListParams;
use sqlx::{Connection, PgConnection};
use tokio::sync::Mutex;

use super::{
    cluster, history,
    operator::{Operator, Settings},
    stage::stage,
    tenant::{Tenant, phase, tenant},
    watching,
};

/// Builds that run at once.
const AT_ONCE: usize = 15;
/// Two generations are counted; a third is still waiting then.
const BUILDS: usize = 34;
const COUNTED: u32 = 30;

/// Parts of statements that do not grow with builds, or are about logs.
const APART: [&str; 37] = [
    "-- Queued builds that have waited for longer",
    "-- The whole queue, with what holds each build back",
    TURN,
    "-- An outage lasts exactly as long",
    "-- Every worker that is not offline was seen now",
    "t.uid as \"tenant_uid?\"",
    "select * from unnest($1::uuid[], $2",
    "update build_artifacts set is_available",
    "-- Stores what changed of a build's steps",
    "create database",
    CANCEL,
    "pg_advisory_lock",
    "pg_advisory_unlock",
    "copy build_logs ",
    LOG_CURSOR,
    "insert into operator_settings",
    "insert into build_workers",
    "job_created_at < now() - make_interval",
    "cleanup_due_at <= now()",
    "select distinct resource_namespace, resource_name, resource_uid",
    "insert into declared_sets",
    CLEAN,
    POLICIES,
    DELIVERIES,
    "-- Deliveries whose Build is to be made now",
    "-- Ends the deliveries that wait for a webhook",
    "-- Live Builds of webhooks with `supersede`",
    "-- How each declared webhook is",
    "-- Takes notifications that are due",
    "-- Computes days of tenants anew",
    "-- What changed since the days were last computed",
    "select pg_try_advisory_xact_lock",
    "update build_results set counted_at",
    "-- Looks of webhooks that poll no more",
    "as \"is_under_way",
    "from build_schedules",
    "from schedule_slots",
];
/// Of whoever stops a Build's runs; those of tests before this one, too.
const TURN: &str = "as has_turn";
/// Builds of tests before this one, which went with their namespaces; each in a transaction of its own.
const CANCEL: &str = "update builds set cancel_requested_at";
/// Of whoever deletes a Job, minutes after its end; here of tests before this one, each in a transaction of its own.
const CLEAN: &str = "with cleaned as";
/// One a batch of lines, each in a transaction of its own.
const LOG_CURSOR: &str = "insert into build_log_cursors";
/// What only an end writes.
const FINISH: &str = "-- The result of an attempt that ran";
/// A round of claims: its lock, what it reads, and what only one with room reads.
const CLAIM: [&str; 2] = ["::text as locked", "-- Every worker with what runs on it"];
const DELIVERIES: &str = "-- Deliveries of which nobody has said yet";
const POLICIES: &str = "-- The declared policies, no more and no less";
const GROUPS: &str = "-- The groups of each tenant with room";
/// A round of launches, and one of stops.
const UNLAUNCHED: &str = "as \"returns!\"";
const STOPPING: &str = "cancel_requested_at is not null or pod_given_up_at";
/// Of the rounds that nothing wakes.
const PERIOD_SECONDS: u64 = 5;
/// What tells the status of Builds: of one that has changed, and of all that run at each look.
const NEWEST: &str = "-- One row a Build, which tells its whole status";
const LOOK_SECONDS: u64 = 10;
/// The one counted write that is a transaction by itself.
const JOBS_CREATED: &str = "update builds set job_created_at = coalesce";

/// The calls of each statement of the operator's database since the first sample. The statistics are the
/// whole server's and forget statements when they are full: so they are looked at again and again.
struct Statements {
    server: PgConnection,
    database: String,
    /// As they were last, by the statement's id.
    last: BTreeMap<i64, i64>,
    calls: BTreeMap<String, i64>,
}

impl Statements {
    async fn count(url: &str) -> Self {
        let (server, database) = url.rsplit_once('/').expect("a URL with a database");
        let server = PgConnection::connect(&format!("{server}/postgres")).await.expect("connects");
        let mut statements =
            Self { server, database: database.to_owned(), last: BTreeMap::new(), calls: BTreeMap::new() };
        statements.sample().await;
        statements.calls.clear();
        statements
    }

    async fn sample(&mut self) {
        let rows: Vec<(i64, String, i64)> = sqlx::query_as(
            "select s.queryid, s.query, s.calls from pg_stat_statements s join pg_database d on d.oid = s.dbid
             where d.datname = $1 and s.toplevel",
        )
        .bind(&self.database)
        .fetch_all(&mut self.server)
        .await
        .expect("pg_stat_statements can be read");
        let last = std::mem::take(&mut self.last);
        for (id, query, calls) in rows {
            // Fewer than before: it was forgotten, and counted from nothing again.
            let before = last.get(&id).copied().filter(|before| *before <= calls).unwrap_or_default();
            *self.calls.entry(query).or_default() += calls - before;
            self.last.insert(id, calls);
        }
    }

    /// Of all whose text has this part.
    fn of(&self, part: &str) -> i64 {
        self.calls.iter().filter(|(query, _)| query.contains(part)).map(|(_, calls)| calls).sum()
    }

    /// Those that a build is charged with.
    fn charged(&self) -> BTreeMap<&str, i64> {
        let charged = |query: &str| {
            !["BEGIN", "COMMIT", "ROLLBACK", "select 1", "select $1"].contains(&query)
                && !query.starts_with("LISTEN")
                && !APART.iter().any(|part| query.contains(part))
        };
        let calls = self.calls.iter().filter(|(query, calls)| charged(query) && **calls > 0);
        calls.map(|(query, calls)| (query.as_str(), *calls)).collect()
    }
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

/// Waits until so many Builds are in this phase, and counts meanwhile.
async fn are(tenant: &Tenant, number: usize, wanted: &str, statements: Option<&Mutex<Statements>>) {
    watching::eventually(&format!("{number} Builds that are {wanted}"), async || {
        if let Some(statements) = statements {
            statements.lock().await.sample().await;
        }
        let builds = tenant.builds().list(&ListParams::default()).await.expect("Builds can be listed");
        (builds.iter().filter(|build| phase(build) == wanted).count() == number).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_build_at_backlog_costs_at_most_six_statements_and_one_and_a_half_commits() {
    let mut stage = stage().await;
    for variable in ["IMAGE_FACTORY_WORKER_BUILDS", "IMAGE_FACTORY_TENANT_BUILDS"] {
        stage.environment.push((variable.to_owned(), AT_ONCE.to_string()));
    }
    tenant("crash-statements", "baseline", async |tenant| {
        let url = cluster::variable("DATABASE_URL");
        let mut lock = PgConnection::connect(&url).await.expect("connects");
        hold(&mut lock).await;
        let operator = Operator::start(&stage, &Settings::default());
        for number in 0..BUILDS {
            let dockerfile = format!("FROM BASE\nRUN sleep 5; echo {number}\n");
            tenant.apply(&tenant.manifest(&format!("apple-{number}"), "container", &dockerfile)).await;
        }
        are(tenant, BUILDS, "Queued", None).await;

        let statements = Mutex::new(Statements::count(&url).await);
        let began = Instant::now();
        for generation in 1..=2 {
            release(&mut lock).await;
            are(tenant, BUILDS - generation * AT_ONCE, "Queued", Some(&statements)).await;
            hold(&mut lock).await;
            are(tenant, generation * AT_ONCE, "Success", Some(&statements)).await;
        }
        let statements = statements.into_inner();

        let charged = statements.charged();
        assert_eq!(statements.of(FINISH), i64::from(COUNTED), "each end is among them: {charged:#?}");
        let in_time = |seconds| i64::try_from(began.elapsed().as_secs() / seconds).expect("a short time");
        let (by_timer, looks) = (in_time(PERIOD_SECONDS) + 1, in_time(LOOK_SECONDS));
        assert!(statements.of(NEWEST) > looks, "ends are told, too: {charged:#?}");
        let (claims, launches) = (statements.of(GROUPS), statements.of(JOBS_CREATED));
        let mut found_nothing = 0;
        // Who declares policies takes the turn of claims, too.
        let turns = claims + statements.of(POLICIES);
        for (round, worked) in [(CLAIM[0], turns), (CLAIM[1], claims), (UNLAUNCHED, launches), (STOPPING, 0)] {
            let idle = statements.of(round) - worked;
            assert!(
                (0..=by_timer).contains(&idle),
                "{idle} rounds for nothing where {by_timer} may: {round} {:#?}",
                statements.calls
            );
            found_nothing += idle;
        }
        let per_build = |number: i64| f64::from(u32::try_from(number).expect("a small number")) / f64::from(COUNTED);
        let apart = statements.of(POLICIES) + statements.of(DELIVERIES);
        let sum = per_build(charged.values().sum::<i64>() - found_nothing - looks - apart);
        let commits = per_build(
            statements.of("COMMIT") - statements.of(LOG_CURSOR) - statements.of(CANCEL) - statements.of(CLEAN)
                + launches,
        );
        println!("{sum:.2} statements and {commits:.2} commits a build: {charged:#?}");
        assert!(sum <= 6.0, "{sum} statements a build: {charged:#?}");
        assert!(commits <= 1.5, "{commits} commits a build: {charged:#?}");

        release(&mut lock).await;
        are(tenant, BUILDS, "Success", None).await;
        history::holds().await;
        operator.stop().await;
    })
    .await;
}
