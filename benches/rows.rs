//! What it costs to store: a log on its way from a node into Postgres, beside what reading it and what
//! writing it cost alone; and the days' numbers, on a short and on a long history. In a database of its
//! own on the Postgres of `make up`; the log is that of a Pod in the cluster. `BENCH_LINES` and
//! `BENCH_BUILDS` make it smaller.

mod shared;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use axum::{Router, body::Bytes};
use image_factory::{
    clock,
    collector::log::Log,
    db, jobs,
    runtime::{Context, health::Health, metrics::Metrics},
};
use image_factory_core::patience::Patience;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    Api, Client,
    api::{DeleteParams, LogParams, PostParams},
    runtime::{
        events::{Recorder, Reporter},
        wait::await_condition,
    },
};
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

use shared::{command, median, number, psql, variable};

const NAMESPACE: &str = "image-factory-bench-rows";
const PATIENCE: Duration = Duration::from_mins(5);
/// Each measurement is taken this often, in turns, and its median counts.
const ROUNDS: usize = 9;
/// Bytes of a line, its newline not among them.
const LINE: usize = 100;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    shared::in_a_database(measure).await
}

async fn measure(url: &str) -> anyhow::Result<()> {
    let pool = shared::migrated(url).await?;
    sqlx::raw_sql(
        "insert into tenants (id, uid, name) select md5('t' || n)::uuid, 'uid' || n, 't' || n from generate_series(0, 9) n;
         insert into projects (id, tenant_id, name) select id, id, 'p' from tenants;
         insert into build_workers (id, worker_name, worker_type, concurrent_builds_limit, status)
         values (md5('w')::uuid, 'w', 'kubernetes', 10, 'healthy');",
    )
    .execute(&pool)
    .await?;
    days(&pool, number("BENCH_BUILDS", 1_000_000)?).await?;
    let client = Client::try_default().await.context("run make up, then: . .local/env")?;
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": NAMESPACE}}))?;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces.create(&PostParams::default(), &namespace).await?;
    let result = log(&pool, url, &client, number("BENCH_LINES", 70_000)?).await;
    namespaces.delete(NAMESPACE, &DeleteParams::default()).await?;
    result
}

/// Lines a second of `kubectl logs`, of ours, and of psql's `\copy`. A node and an API server share the machine's
/// processors with what is measured: beside `\copy`, which has them for itself, ours reads from a server that costs
/// next to nothing.
async fn log(pool: &PgPool, url: &str, client: &Client, lines: i64) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    printed(&pods, lines).await?;
    let ready: Api<Pod> = Api::namespaced(served(&pods).await?, NAMESPACE);
    let context = Context {
        client: client.clone(),
        streams: client.clone(),
        pool: pool.clone(),
        recorder: Recorder::new(client.clone(), Reporter { controller: "bench".to_owned(), instance: None }),
        jobs: Arc::new(jobs::Settings::default()),
        metrics: Metrics::default(),
        health: Health::default(),
        patience: Patience::default(),
        stored: tokio::sync::broadcast::channel(1).0,
        followed: std::sync::Arc::default(),
        log_bytes: u64::MAX,
        records_users: false,
    };
    let file = std::env::temp_dir().join(format!("image-factory-bench-{}", std::process::id()));
    let file = file.to_str().context("the temporary folder has no name in UTF-8")?;
    let (mut read, mut stored, mut served, mut copied) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        // What the programs need before they do anything is no part of it.
        let kubectl = timed(command("kubectl", &["logs", "-n", NAMESPACE, "printer", "--limit-bytes=1"])).await?;
        let whole = timed(command("kubectl", &["logs", "-n", NAMESPACE, "printer"])).await?;
        read.push(whole.saturating_sub(kubectl));
        let (build, took) = store(&context, &pods, lines).await?;
        stored.push(took);
        served.push(store(&context, &ready, lines).await?.1);
        let again = self::build(pool).await?;
        psql(url, &format!("\\copy (select id, '{again}', line_number, log_content, log_level, logged_at from build_logs where build_id = '{build}' order by line_number) to '{file}'")).await?;
        let psql_alone = timed(psql(url, "select 1")).await?;
        let columns = "id, build_id, line_number, log_content, log_level, logged_at";
        let whole = timed(psql(url, &format!("\\copy build_logs ({columns}) from '{file}'"))).await?;
        copied.push(whole.saturating_sub(psql_alone));
        std::fs::remove_file(file)?;
        sqlx::raw_sql("truncate build_logs").execute(pool).await?;
    }
    let (read, stored, served, copied) = (median(read), median(stored), median(served), median(copied));
    println!(
        "{:<58} {:>12} {:>12} {:>8}",
        format!("{lines} lines of {LINE} bytes, lines a second"),
        "it alone",
        "stored",
        "ratio"
    );
    rate("kubectl logs > /dev/null", lines, read, stored);
    rate("psql \\copy into the same table; from a ready server", lines, copied, served);
    Ok(())
}

/// How long it takes to store the log of the Pod, and the build that has it then.
async fn store(context: &Context, pods: &Api<Pod>, lines: i64) -> anyhow::Result<(Uuid, Duration)> {
    let pool = &context.pool;
    let build = build(pool).await?;
    let took = timed(async {
        let attempt = db::launches::followed(pool, build).await?.context("the build is not there")?;
        let mut log = Log::resume(context, attempt).await?;
        Ok(log.read(pods, "printer", "build", false).await?)
    })
    .await?;
    let found: i64 =
        sqlx::query_scalar("select count(*) from build_logs where build_id = $1 and length(log_content) = $2")
            .bind(build)
            .bind(i32::try_from(LINE)?)
            .fetch_one(pool)
            .await?;
    ensure!(found == lines, "{found} of {lines} lines are stored");
    Ok((build, took))
}

/// A client of a server that has the Pod's log ready.
async fn served(pods: &Api<Pod>) -> anyhow::Result<Client> {
    let params = LogParams { timestamps: true, ..LogParams::default() };
    let log = Bytes::from(pods.logs("printer", &params).await?);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let answers = Router::new().fallback(move || std::future::ready(log.clone()));
    tokio::spawn(axum::serve(listener, answers).into_future());
    Ok(Client::try_from(kube::Config::new(format!("http://{address}").parse()?))?)
}

/// A Pod that has printed so many lines. 70,000 stay under the 10 MiB at which the kubelet rotates a log;
/// more are all there only where they are printed within the ten seconds between two looks of it.
async fn printed(pods: &Api<Pod>, lines: i64) -> anyhow::Result<()> {
    let registry = variable("REGISTRY")?;
    let line = "x".repeat(LINE);
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "printer"},
        "spec": {
            "restartPolicy": "Never",
            "containers": [{"name": "build", "image": format!("{registry}/busybox:1"),
                "command": ["sh", "-c", format!("yes {line} | head -n {lines}")]}],
        },
    }))?;
    pods.create(&PostParams::default(), &pod).await?;
    let ended = |pod: Option<&Pod>| {
        pod.and_then(|pod| pod.status.as_ref()?.phase.as_deref()).is_some_and(|phase| phase == "Succeeded")
    };
    tokio::time::timeout(PATIENCE, await_condition(pods.clone(), "printer", ended)).await??;
    Ok(())
}

/// A turn of the days' task with a hundred new builds, where each day has a thousand: on a hundredth of
/// the history, and on all of it.
async fn days(pool: &PgPool, builds: i64) -> anyhow::Result<()> {
    let mut times = Vec::new();
    for (from, to) in [(0, builds / 100), (builds / 100, builds)] {
        history(pool, from, to).await?;
        let mut turns = Vec::new();
        for _ in 0..20 {
            sqlx::query("update build_results set counted_at = null where build_id in (select id from builds where build_number <= 10)")
                .execute(pool)
                .await?;
            let begun = Instant::now();
            let counted = db::rollup::count(pool, 1_000).await?;
            turns.push(begun.elapsed());
            ensure!(counted == 100, "{counted} builds were counted");
        }
        times.push(median(turns));
    }
    println!("{:<58} {:>12} {:>12} {:>8}", "", builds / 100, builds, "ratio");
    println!(
        "{:<58} {:>12.1?} {:>12.1?} {:>8.2}",
        "the days of 100 new builds, with so many in history",
        times[0],
        times[1],
        times[1].as_secs_f64() / times[0].as_secs_f64()
    );
    Ok(())
}

/// Builds that ended, a hundred a day of each of ten tenants, back from today.
async fn history(pool: &PgPool, from: i64, to: i64) -> anyhow::Result<()> {
    sqlx::query(
        "with made as (
             insert into builds (id, tenant_id, project_id, build_number, status, queued_at, started_at, completed_at, worker_id,
                 resource_namespace, resource_name, resource_uid, run, attempt, inputs_hash, observed_generation, build_method)
             select uuid_v7_floor(at) , t.id, t.id, n / 10 + 1, 'success', at, at, at + interval '5 minutes', md5('w')::uuid,
                 t.name, 'b', 'uid' || n, 1, 1, 'h', 1, 'container'
             from generate_series($1, $2 - 1) n
             cross join lateral (select date_trunc('day', now(), 'UTC') - make_interval(days => (n / 1000)::int)
                 + make_interval(secs => n % 1000 * 86) as at) times
             join tenants t on t.uid = 'uid' || n % 10
             returning id, project_id),
         configured as (insert into build_configs (id, build_id, build_method, spec) select id, id, 'container', '{}' from made)
         insert into build_results (id, build_id, project_id, status, total_duration_milliseconds, queue_wait_milliseconds, counted_at)
         select id, id, project_id, 'success', 1, 1, now() from made",
    )
    .bind(from)
    .bind(to)
    .execute(pool)
    .await?;
    sqlx::raw_sql("vacuum analyze").execute(pool).await?;
    Ok(())
}

/// A new build, for its log.
async fn build(pool: &PgPool) -> anyhow::Result<Uuid> {
    let id = clock::new_id();
    sqlx::query(
        "insert into builds (id, tenant_id, project_id, build_number, status, resource_namespace, resource_name, resource_uid,
             run, attempt, inputs_hash, observed_generation, build_method)
         select $1, id, id, (select max(build_number) + 1 from builds), 'queued', 't0', 'b', $1::text, 1, 1, 'h', 1, 'container'
         from tenants where uid = 'uid0'",
    )
    .bind(id)
    .execute(pool)
    .await?;
    Ok(id)
}

async fn timed(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    work.await?;
    Ok(begun.elapsed())
}

#[expect(clippy::cast_precision_loss, reason = "a rate")]
fn rate(what: &str, lines: i64, alone: Duration, stored: Duration) {
    let rate = |time: Duration| lines as f64 / time.as_secs_f64();
    println!("{what:<58} {:>12.0} {:>12.0} {:>8.2}", rate(alone), rate(stored), rate(stored) / rate(alone));
}
