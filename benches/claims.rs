//! What a claim costs, on the Postgres of `make up`: builds a second under policies beside River's jobs a second, a
//! claim beside a long queue of a tenant that may not run more, one beside many groups that no worker fits, a batch of a
//! hundred and a single build beside the server's own commit. Only the ratios are worth quoting. River is a Go client
//! (`benches/river`), compiled where there is Go; `BENCH_CLAIMS` and `BENCH_BACKLOG` make it smaller.

mod shared;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use image_factory::{
    clock,
    db::{policies, queue::claim, settings, transitions, workers},
};
use image_factory_core::status::Status;
use shared::{median, number};
use sqlx::PgPool;
use tokio::{
    process::Command,
    sync::{Notify, mpsc},
    time::timeout,
};
use uuid::Uuid;

const TENANTS: i32 = 100;
/// River's own benchmark has so many workers.
const AT_ONCE: i32 = 2_000;
/// Builds that are ended by one statement.
const TOGETHER: usize = 500;
/// Of one tenant.
const GROUPS: i64 = 10_000;
const ROUNDS: usize = 200;
/// For a build to end.
const PATIENCE: Duration = Duration::from_mins(1);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let builds = number("BENCH_CLAIMS", 20_000)?;
    println!("{:<66} {:>12} {:>12} {:>8}", "", "beside", "a claim", "ratio");
    let mut river = None;
    shared::in_a_database(async |url| {
        river = self::river(url, builds).await?;
        Ok(())
    })
    .await?;
    shared::in_a_database(async |url| measure(&shared::migrated(url).await?, builds, river).await).await
}

async fn measure(pool: &PgPool, builds: i64, river: Option<f64>) -> anyhow::Result<()> {
    settings::declare(pool, AT_ONCE, None).await?;
    workers::beat(pool, AT_ONCE).await?;
    tenants(pool).await?;
    let commit = commits(pool).await?;

    queue(pool, "tenants.uid <> 'uid0'", builds).await?;
    analyze(pool).await?;
    let rate = through(pool, builds).await?;
    let what = format!("{builds} builds claimed and ended under policies | River's jobs, a second");
    match river {
        Some(river) => println!("{what:<66} {river:>12.0} {rate:>12.0} {:>8.2}", rate / river),
        None => println!("{what:<66} {:>12} {rate:>12.0}", "no Go"),
    }

    let empty = singles(pool).await?;
    row("one build, queue empty | a commit, median", median(commit.clone()), median(empty.clone()));
    let backlog = number("BENCH_BACKLOG", 100_000)?;
    // Tenant 0 may run nothing.
    queue(pool, "tenants.uid = 'uid0'", backlog).await?;
    let behind = singles(pool).await?;
    row(
        &format!("one build, {backlog} of a blocked tenant queued | none queued"),
        median(empty.clone()),
        median(behind),
    );
    clear(pool).await?;

    stuck(pool).await?;
    let beside = singles(pool).await?;
    row(&format!("one build, {GROUPS} groups that no worker fits queued | none queued"), median(empty), median(beside));
    clear(pool).await?;
    sqlx::raw_sql("delete from projects where name = 'stuck'; delete from tenants where name = 'stuck'")
        .execute(pool)
        .await?;

    let hundred = batches(pool).await?;
    row("a hundred builds of as many tenants | a commit, median", median(commit.clone()), median(hundred.clone()));
    row("the same, p99", p99(commit), p99(hundred));
    Ok(())
}

/// A hundred tenants, each with a policy; the first may run nothing.
async fn tenants(pool: &PgPool) -> anyhow::Result<()> {
    sqlx::raw_sql(
        "insert into tenants (id, uid, name) select md5('t' || n)::uuid, 'uid' || n, 't' || n from generate_series(0, 99) n;
         insert into projects (id, tenant_id, name) select id, id, 'p' from tenants;",
    )
    .execute(pool)
    .await?;
    let declared: Vec<_> = (0..TENANTS)
        .map(|number| policies::Policy {
            tenant_uid: format!("uid{number}"),
            tenant_name: format!("t{number}"),
            max_concurrent_builds: Some(if number == 0 { 0 } else { 10 + number % 30 }),
            max_concurrent_per_project: Some(50),
            weight: 1 + number % 3,
            ..policies::Policy::default()
        })
        .collect();
    policies::declare(pool, &declared, 1).await?;
    Ok(())
}

/// Builds of these tenants in turn, queued as the controller queues them, many at once.
async fn queue(pool: &PgPool, tenants: &str, builds: i64) -> anyhow::Result<()> {
    let insert = format!(
        "with chosen as (select *, row_number() over (order by id) - 1 as place, count(*) over () as many from tenants where {tenants}),
         made as (
             insert into builds (id, tenant_id, project_id, build_number, status, queued_at, resource_namespace,
                 resource_name, resource_uid, run, attempt, inputs_hash, observed_generation, build_method)
             select (left(uuid_v7_floor(clock_timestamp())::text, 15) || substr(gen_random_uuid()::text, 16))::uuid, t.id, t.id, (select coalesce(max(build_number), 0) from builds) + n, 'queued',
                 now() + make_interval(secs => n * 1e-6), t.name, 'b', gen_random_uuid()::text, 1, 1, 'h', 1, 'container'
             from generate_series(1, $1) n join chosen t on t.place = n % t.many
             returning id),
         configured as (
             insert into build_configs (id, build_id, build_method, spec) select id, id, 'container', '{{}}' from made)
         insert into build_status_history (id, build_id, sequence, to_status, changed_by_system, changed_at)
         select id, id, 1, 'queued', true, now() from made"
    );
    sqlx::query(sqlx::AssertSqlSafe(insert)).bind(builds).execute(pool).await?;
    Ok(())
}

/// What the planner knows is what autovacuum has told it some time ago.
async fn analyze(pool: &PgPool) -> anyhow::Result<()> {
    sqlx::raw_sql("vacuum analyze builds").execute(pool).await?;
    Ok(())
}

/// Builds of a tenant with room that ask each for another worker, of which there is none.
async fn stuck(pool: &PgPool) -> anyhow::Result<()> {
    // The last by its id: it is never the turn of this tenant to have a build queued.
    sqlx::raw_sql(
        "insert into tenants (id, uid, name) values ('ffffffff-ffff-ffff-ffff-ffffffffffff', 'stuck', 'stuck');
         insert into projects (id, tenant_id, name) select id, id, 'stuck' from tenants where name = 'stuck';",
    )
    .execute(pool)
    .await?;
    queue(pool, "tenants.uid = 'stuck'", GROUPS).await?;
    sqlx::raw_sql(
        "update builds set placement = jsonb_build_object('selector', jsonb_build_object('disk', id))
         where resource_namespace = 'stuck'",
    )
    .execute(pool)
    .await?;
    Ok(())
}

async fn clear(pool: &PgPool) -> anyhow::Result<()> {
    sqlx::raw_sql("delete from build_status_history; delete from build_configs; delete from builds")
        .execute(pool)
        .await?;
    analyze(pool).await
}

/// Claims until nothing is queued, while what was claimed is ended, as River's jobs are; builds a second. What River
/// completes in batches is ended in batches here, of which each makes room for the next claim.
async fn through(pool: &PgPool, builds: i64) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let (hand_over, mut claimed) = mpsc::unbounded_channel();
    let has_ended = Notify::new();
    let claiming = async {
        let mut left = usize::try_from(builds)?;
        while left > 0 {
            let batch = claim(pool).await?;
            left -= batch.len();
            if batch.is_empty() {
                let waited = timeout(PATIENCE, has_ended.notified()).await;
                waited.with_context(|| format!("{left} of {builds} builds did not run"))?;
            } else {
                hand_over.send(batch)?;
            }
        }
        drop(hand_over);
        Ok(())
    };
    let ending = async {
        while let Some(batch) = claimed.recv().await {
            for some in batch.chunks(TOGETHER) {
                end(pool, some).await?;
                has_ended.notify_one();
            }
        }
        anyhow::Ok(())
    };
    tokio::try_join!(claiming, ending)?;
    Ok(f64::from(u32::try_from(builds)?) / begun.elapsed().as_secs_f64())
}

async fn end(pool: &PgPool, builds: &[Uuid]) -> anyhow::Result<()> {
    let changes: Vec<_> = builds
        .iter()
        .map(|build| transitions::Change {
            build: *build,
            reason: "ended".to_owned(),
            ..transitions::Change::default()
        })
        .collect();
    let mut tx = pool.begin().await?;
    let ended = transitions::apply(&mut tx, Status::InProgress, Status::Success, &changes).await?;
    tx.commit().await?;
    ensure!(ended.len() == builds.len(), "{} of {} builds ended", ended.len(), builds.len());
    Ok(())
}

/// How long the claim of one build takes, one after the other.
async fn singles(pool: &PgPool) -> anyhow::Result<Vec<Duration>> {
    claims_of(pool, 1).await
}

/// Of a hundred builds at once.
async fn batches(pool: &PgPool) -> anyhow::Result<Vec<Duration>> {
    claims_of(pool, 99).await
}

async fn claims_of(pool: &PgPool, builds: i64) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::new();
    analyze(pool).await?;
    for _ in 0..ROUNDS {
        queue(pool, "tenants.uid <> 'uid0'", builds).await?;
        let begun = Instant::now();
        let claimed = claim(pool).await?;
        times.push(begun.elapsed());
        ensure!(i64::try_from(claimed.len())? == builds, "{} of {builds} were claimed", claimed.len());
        end(pool, &claimed).await?;
    }
    Ok(times)
}

/// What the server takes for a transaction with one row.
async fn commits(pool: &PgPool) -> anyhow::Result<Vec<Duration>> {
    sqlx::raw_sql("create table committed (id uuid primary key)").execute(pool).await?;
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let mut tx = pool.begin().await?;
        sqlx::query("insert into committed values ($1)").bind(clock::new_id()).execute(&mut *tx).await?;
        tx.commit().await?;
        times.push(begun.elapsed());
    }
    Ok(times)
}

/// Jobs a second; `None` where there is no Go to compile its client.
async fn river(url: &str, jobs: i64) -> anyhow::Result<Option<f64>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/river");
    if Command::new("go").arg("version").output().await.is_err() {
        return Ok(None);
    }
    let run = Command::new("go").args(["run", ".", url, &jobs.to_string()]).current_dir(folder).output().await?;
    ensure!(run.status.success(), "River: {}", String::from_utf8_lossy(&run.stderr));
    let rate = String::from_utf8(run.stdout)?.trim().parse().context("River's client prints its rate")?;
    Ok(Some(rate))
}

fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() * 99 / 100]
}

fn row(what: &str, beside: Duration, claim: Duration) {
    println!("{what:<66} {beside:>12.1?} {claim:>12.1?} {:>8.2}", claim.as_secs_f64() / beside.as_secs_f64());
}
