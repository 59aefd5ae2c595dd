//! Signed deliveries a second, from the request to the row and back, beside rows of the same size that pgbench inserts one
//! a transaction on the same server with as many clients. Both are durable when they are answered; deliveries that come
//! together share a commit. Through the router without a network, with a Secret that is remembered: what is compared is
//! what it takes to verify, read and store. `BENCH_DELIVERIES` makes it smaller.

mod shared;

use std::{
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use axum::{
    Router,
    body::Body,
    http::{Request, Response, StatusCode},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::BodyExt;
use image_factory::{
    crd::WebhookConfigSpec,
    db::{
        webhooks::{Declared, declare},
        workers::TenantName,
    },
    http::{Hooks, hooks},
    runtime::metrics::Metrics,
};
use kube::Client;
use serde_json::json;
use sha2::Sha256;
use shared::{median, number};
use sqlx::PgPool;
use tokio::process::Command;
use tower::ServiceExt;

const SECRET: &str = "It's a Secret to Everybody";
/// Senders at once.
const CLIENTS: i64 = 64;
/// Each measurement is taken this often, in turns, and its median counts.
const ROUNDS: usize = 5;
const PAYLOAD: &str = include_str!("../tests/fixtures/webhooks/github-push.json");

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let deliveries = number("BENCH_DELIVERIES", 20_000)?;
    shared::in_a_database(async |url| measure(&shared::migrated(url).await?, url, deliveries).await).await
}

async fn measure(pool: &PgPool, url: &str, deliveries: i64) -> anyhow::Result<()> {
    declared(pool).await?;
    let hooks_of = || {
        let rate = NonZeroU32::MAX;
        hooks(Hooks::new(with_the_secret(), pool.clone(), Metrics::default(), rate))
    };
    let (mut ours, mut theirs, mut slowest) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        theirs.push(pgbench(pool, url, deliveries).await?);
        let (took, p99) = delivered(&hooks_of(), round, deliveries).await?;
        ours.push(took);
        slowest.push(p99);
        let stored: i64 = sqlx::query_scalar("select count(*) from webhook_deliveries where delivery_id like $1")
            .bind(format!("{round}-%"))
            .fetch_one(pool)
            .await?;
        ensure!(stored == deliveries, "{stored} of {deliveries} deliveries are rows");
        clear(pool).await?;
    }
    let rate = |time: Duration| f64::from(u32::try_from(deliveries).unwrap_or(u32::MAX)) / time.as_secs_f64();
    let (ours, theirs) = (rate(median(ours)), rate(median(theirs)));
    println!("{:<66} {:>12} {:>12} {:>8}", "", "pgbench", "deliveries", "ratio");
    let what = format!("signed deliveries | single inserts, of {CLIENTS} at once, a second");
    println!("{what:<66} {theirs:>12.0} {ours:>12.0} {:>8.2}", ours / theirs);
    println!("{:<66} {:>12} {:>12.1?}", "until the answer, p99", "", median(slowest));
    Ok(())
}

async fn declared(pool: &PgPool) -> anyhow::Result<()> {
    let spec: WebhookConfigSpec = serde_json::from_value(json!({
        "provider": "github", "repository": "shop/web", "secretRef": {"name": "hook", "key": "secret"},
        "template": {"spec": {
            "method": "container", "source": {"git": {"url": "https://git.example.com/shop/web.git"}},
            "output": {"image": "registry.test/shop/web:1"},
        }},
    }))?;
    let webhook = Declared {
        tenant: TenantName { name: "orchard".to_owned(), uid: "uid-orchard".to_owned() },
        name: "hook".to_owned(),
        uid: "uid-hook".to_owned(),
        url: None,
        spec,
    };
    ensure!(declare(pool, &[webhook], 1).await?, "the webhook could not be declared");
    Ok(())
}

/// An API server that has the Secret and nothing else.
fn with_the_secret() -> Client {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hook"}, "data": {"secret": STANDARD.encode(SECRET)},
    })
    .to_string();
    let answer = tower::service_fn(move |_: Request<kube::client::Body>| {
        let secret = secret.clone();
        async move { Ok::<_, std::convert::Infallible>(Response::new(Body::from(secret))) }
    });
    Client::new(answer, "default")
}

/// How long so many deliveries took, and the answer that came later than 99 of a hundred.
async fn delivered(router: &Router, round: usize, deliveries: i64) -> anyhow::Result<(Duration, Duration)> {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes())?;
    mac.update(PAYLOAD.as_bytes());
    let signature = Arc::new(format!("sha256={}", hex::encode(mac.finalize().into_bytes())));
    let each = deliveries / CLIENTS;
    let rest = deliveries % CLIENTS;
    let begun = Instant::now();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (router, signature) = (router.clone(), signature.clone());
            let number = each + i64::from(client < rest);
            tokio::spawn(async move {
                let mut times = Vec::new();
                for delivery in 0..number {
                    let request = Request::post("/hooks/orchard/hook")
                        .header("content-type", "application/json")
                        .header("x-github-event", "push")
                        .header("x-github-delivery", format!("{round}-{client}-{delivery}"))
                        .header("x-hub-signature-256", &*signature)
                        .body(Body::from(PAYLOAD))?;
                    let sent = Instant::now();
                    let answer = router.clone().oneshot(request).await?;
                    ensure!(answer.status() == StatusCode::ACCEPTED, "a delivery was answered {}", answer.status());
                    answer.into_body().collect().await?;
                    times.push(sent.elapsed());
                }
                Ok(times)
            })
        })
        .collect();
    let mut times = Vec::new();
    for client in clients {
        times.extend(client.await??);
    }
    let took = begun.elapsed();
    times.sort();
    let p99 = times.get(times.len() * 99 / 100).copied().context("no delivery was made")?;
    Ok((took, p99))
}

async fn clear(pool: &PgPool) -> anyhow::Result<()> {
    sqlx::raw_sql("truncate webhook_deliveries").execute(pool).await?;
    sqlx::raw_sql("vacuum").execute(pool).await?;
    Ok(())
}

/// How long pgbench took to insert so many rows into the same table, one a transaction.
async fn pgbench(pool: &PgPool, url: &str, rows: i64) -> anyhow::Result<Duration> {
    sqlx::raw_sql(
        "drop table if exists sample;
         create table sample (payload text, event jsonb);
         alter table sample alter payload set storage external",
    )
    .execute(pool)
    .await?;
    let event =
        json!({"kind": "push", "git_ref": "refs/heads/main", "commit": "6113728f27ae82c7b1a177c8d03f9e96e0adf246"});
    sqlx::query("insert into sample values ($1, $2)").bind(PAYLOAD).bind(event).execute(pool).await?;
    let file = std::env::temp_dir().join(format!("image-factory-bench-{}.sql", std::process::id()));
    // The payload is there already, as the text that a client would send: to pgbench a colon would begin a variable. That
    // spares it the way from the client.
    std::fs::write(
        &file,
        "insert into webhook_deliveries (id, tenant_id, webhook_config_id, direction, delivery_id, event_type, payload, event, response_status, next_retry_at) \
         select gen_random_uuid(), tenant_id, id, 'inbound', gen_random_uuid(), 'push', payload::jsonb, event, 202, now() from webhook_configs, sample;\n",
    )?;
    let each = rows / CLIENTS;
    let begun = Instant::now();
    let output = Command::new("pgbench")
        .args(["--no-vacuum", "--protocol=prepared", "--jobs=2"])
        .args([format!("--client={CLIENTS}"), format!("--transactions={each}")])
        .arg(format!("--file={}", file.display()))
        .arg(url)
        .output()
        .await
        .context("failed to run pgbench: it comes with Postgres")?;
    let took = begun.elapsed();
    std::fs::remove_file(&file)?;
    ensure!(output.status.success(), "pgbench: {}", String::from_utf8_lossy(&output.stderr));
    let inserted: i64 = sqlx::query_scalar("select count(*) from webhook_deliveries").fetch_one(pool).await?;
    ensure!(inserted == each * CLIENTS, "pgbench inserted {inserted} rows");
    clear(pool).await?;
    Ok(took)
}
