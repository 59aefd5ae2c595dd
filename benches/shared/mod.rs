//! What the benches have in common: what they are told by the environment, databases of their own, and how times are
//! told.

#![allow(dead_code, reason = "each bench needs some of it")]

use std::{process::Stdio, time::Duration};

use anyhow::{Context as _, ensure};
use image_factory::{config, db};
use sqlx::PgPool;
use tokio::process::Command;

#[expect(clippy::disallowed_methods, reason = "the bench is no part of the operator")]
pub fn variable(name: &str) -> anyhow::Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set: run make up, then: . .local/env"))
}

/// A variable that may make a bench smaller.
pub fn number(name: &str, otherwise: i64) -> anyhow::Result<i64> {
    variable(name).map_or(Ok(otherwise), |text| text.parse().with_context(|| format!("{name} is no number")))
}

/// A database for this run alone, on the Postgres of `make up`: its URL is given to `measure`.
pub async fn in_a_database(measure: impl AsyncFnOnce(&str) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let server = variable("DATABASE_URL")?;
    let name = format!("bench_{}", std::process::id());
    psql(&server, &format!("create database {name}")).await?;
    let (base, _) = server.rsplit_once('/').context("DATABASE_URL names no database")?;
    let result = measure(&format!("{base}/{name}")).await;
    psql(&server, &format!("drop database {name} with (force)")).await?;
    result
}

/// Connections as the operator has them, to a database with its tables.
pub async fn migrated(url: &str) -> anyhow::Result<PgPool> {
    let pool = db::pool(&config::Database { url: url.to_owned(), connections: 4.try_into()? })?;
    db::MIGRATIONS.run(&pool).await?;
    Ok(pool)
}

pub async fn psql(url: &str, statement: &str) -> anyhow::Result<()> {
    command("psql", &["-qX", "-v", "ON_ERROR_STOP=1", url, "-c", statement]).await
}

pub async fn command(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let status = Command::new(program).args(arguments).stdout(Stdio::null()).status().await?;
    ensure!(status.success(), "{program} {}: {status}", arguments.join(" "));
    Ok(())
}

pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
