//! Many logs at once, on the cluster of `make up`: builds that begin to print at the same instant, followed by
//! the operator into Postgres and, in the same run, each by a `kubectl logs -f`. Only the ratio is worth
//! quoting. `BENCH_PRINTERS` and `BENCH_PRINTED` say how many builds and how many lines each; smaller ones
//! for a small machine: `. .local/env && BENCH_PRINTERS=5 cargo bench --bench many_logs` (as many builds
//! as the operator may run at once; `make bench` takes that limit away).

mod shared;

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use futures::future::{try_join, try_join_all};
use image_factory::{clock, config, crd::Build, db};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::json;
use shared::{number, variable};
use sqlx::PgPool;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::{sleep, timeout},
};

const PATIENCE: Duration = Duration::from_mins(10);
const AGAIN: Duration = Duration::from_millis(100);
/// Bytes of a line, its newline not among them.
const LINE: usize = 100;
/// What a build says when it is ready to print, but as a word of its own: the instruction is printed too.
const READY: &str = "ready to print";
/// Seconds that a build may take to get ready, beside those that all take.
const SECONDS_EACH: i64 = 4;
const SECONDS: i64 = 20;
/// Seconds that a build goes on when it has printed: of one that ends at once Buildah may not read the last of it.
const LINGERS: u32 = 10;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (printers, lines) = (number("BENCH_PRINTERS", 50)?, number("BENCH_PRINTED", 10_000)?);
    let url = variable("DATABASE_URL")?;
    let pool = db::pool(&config::Database { url, connections: 2.try_into()? })?;
    let client = Client::try_default().await.context("run make up, then: . .local/env")?;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let made = serde_json::from_value(json!({"metadata": {"name": namespace()}}))?;
    namespaces.create(&PostParams::default(), &made).await?;
    let measured = timeout(PATIENCE, measure(&client, &pool, printers, lines)).await;
    namespaces.delete(&namespace(), &DeleteParams::default()).await?;
    let (read, stored) = measured.context("the builds did not end in time")??;
    println!("{:<58} {:>12} {:>12} {:>8}", "", "kubectl logs", "stored", "ratio");
    println!(
        "{:<58} {:>12.0} {:>12.0} {:>8.2}",
        format!("{printers} builds print {lines} lines at once, lines a second"),
        rate(printers * lines, read),
        rate(printers * lines, stored),
        read.as_secs_f64() / stored.as_secs_f64()
    );
    Ok(())
}

/// From the instant at which all begin to print: to the last line of the last `kubectl logs`, and to the
/// last line stored.
async fn measure(client: &Client, pool: &PgPool, printers: i64, lines: i64) -> anyhow::Result<(Duration, Duration)> {
    let begin = clock::now().as_second() + SECONDS + SECONDS_EACH * printers;
    let registry = variable("REGISTRY")?;
    let line = "x".repeat(LINE);
    let dockerfile = format!(
        "FROM {registry}/busybox:1\nRUN echo \"{READY}\" && while [ $(date +%s) -lt {begin} ]; do sleep 0.2; done; yes {line} | head -n {lines}; sleep {LINGERS}\n"
    );
    let builds: Api<Build> = Api::namespaced(client.clone(), &namespace());
    for index in 0..printers {
        let build: Build = serde_json::from_value(json!({
            "apiVersion": "imagefactory.dev/v1alpha1", "kind": "Build",
            "metadata": {"name": format!("printer-{index}"), "namespace": namespace()},
            "spec": {
                "method": "container",
                "source": {"inline": {"files": {"Dockerfile": dockerfile}}},
                "output": {"image": format!("{registry}/bench/printer-{index}:1"), "insecure": true},
                // All fit on one node: each waits for all.
                "resources": {"requests": {"cpu": "10m"}},
            },
        }))?;
        builds.create(&PostParams::default(), &build).await?;
    }
    let left = || begin - clock::now().as_second();
    while ready(pool).await? < printers {
        sleep(AGAIN).await;
        ensure!(left() > 1, "{printers} builds were not ready in time: make BENCH_PRINTERS smaller");
    }
    let start = Instant::now() + Duration::from_secs(left().unsigned_abs());

    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace());
    let names: Vec<String> =
        pods.list_metadata(&ListParams::default()).await?.iter().map(ResourceExt::name_any).collect();
    let reading = try_join_all(names.iter().map(|pod| read(pod, lines)));
    let (read, stored) = try_join(reading, all_stored(pool, printers, lines)).await?;
    let read = read.into_iter().max().context("there is no Pod")?;
    Ok((read.saturating_duration_since(start), stored.saturating_duration_since(start)))
}

/// How many builds wait for the instant.
async fn ready(pool: &PgPool) -> anyhow::Result<i64> {
    let ready = sqlx::query_scalar(
        "select count(*) from builds b where b.resource_namespace = $1 and b.status = 'in_progress'
             and exists (select from build_logs l where l.build_id = b.id and l.log_content = $2)",
    );
    Ok(ready.bind(namespace()).bind(READY).fetch_one(pool).await?)
}

/// When `kubectl logs` had written the last of the lines.
async fn read(pod: &str, lines: i64) -> anyhow::Result<Instant> {
    let mut kubectl = Command::new("kubectl")
        .args(["logs", "-f", "-n", &namespace(), pod, "-c", "build"])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut printed = BufReader::new(kubectl.stdout.take().context("it is piped")?).lines();
    let mut left = lines;
    while left > 0 {
        let line = printed.next_line().await?.with_context(|| format!("{left} lines of {pod} did not come"))?;
        left -= i64::from(is_counted(&line));
    }
    let end = Instant::now();
    kubectl.kill().await?;
    Ok(end)
}

fn is_counted(line: &str) -> bool {
    line.len() == LINE && line.bytes().all(|byte| byte == b'x')
}

/// When all lines of all builds were stored.
async fn all_stored(pool: &PgPool, printers: i64, lines: i64) -> anyhow::Result<Instant> {
    // By the key: what is counted whole while lines come would slow them down.
    let far = "select count(*) from builds b where b.resource_namespace = $1
                   and exists (select from build_logs l where l.build_id = b.id and l.line_number = $2)";
    let whole = "select count(*) from build_logs l join builds b on b.id = l.build_id
                 where b.resource_namespace = $1 and l.log_content = repeat('x', $2::integer)";
    while sqlx::query_scalar::<_, i64>(far).bind(namespace()).bind(lines).fetch_one(pool).await? < printers {
        sleep(AGAIN).await;
    }
    loop {
        let asked = Instant::now();
        let stored: i64 =
            sqlx::query_scalar(whole).bind(namespace()).bind(i64::try_from(LINE)?).fetch_one(pool).await?;
        if stored >= printers * lines {
            ensure!(stored == printers * lines, "{stored} lines are stored, more than were printed");
            return Ok(asked);
        }
        sleep(AGAIN).await;
    }
}

/// One a run: rows of a run stay behind.
fn namespace() -> String {
    format!("image-factory-bench-many-logs-{}", std::process::id())
}

#[expect(clippy::cast_precision_loss, reason = "a rate")]
fn rate(lines: i64, time: Duration) -> f64 {
    lines as f64 / time.as_secs_f64()
}
