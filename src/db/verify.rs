//! What must hold of the rows, whatever crashed: one statement an invariant, all on one snapshot of
//! the database. Each reads whole tables; nothing but `image-factory verify` asks them.

use std::collections::HashMap;

use image_factory_core::status::Status;
use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use sqlx::{PgConnection, PgPool, Postgres, Transaction};
use uuid::Uuid;

use super::{Result, builds};

/// What was looked at, and what of it is not as it must be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    pub examined: usize,
    pub broken: Vec<Broken>,
}

/// A build (by id, or by namespace and name) or a limit, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    pub subject: String,
    pub problem: String,
}

/// The invariants that rows alone can tell.
#[derive(Clone, Debug)]
pub struct Rows {
    pub attempts: Checked,
    pub limits: Checked,
    pub history: Checked,
    pub results: Checked,
    pub log_lines: Checked,
    pub once: Checked,
    pub tenants: Checked,
    pub cleaned: Checked,
    pub metrics: Checked,
    pub layers: Checked,
}

struct Row {
    examined: i64,
    subject: Option<String>,
    problem: Option<String>,
}

impl From<Vec<Row>> for Checked {
    fn from(rows: Vec<Row>) -> Self {
        let examined = rows.first().map_or(0, |row| usize::try_from(row.examined).unwrap_or(0));
        let broken =
            rows.into_iter().filter_map(|row| Some(Broken { subject: row.subject?, problem: row.problem? })).collect();
        Self { examined, broken }
    }
}

/// A transaction in which every question sees the same rows, and reads whole tables as it needs to.
///
/// # Errors
/// When the database can't be reached.
pub async fn snapshot(pool: &PgPool) -> Result<Transaction<'static, Postgres>> {
    let mut snapshot = pool.begin_with("begin isolation level repeatable read read only").await?;
    sqlx::query("set local enable_seqscan = on").execute(&mut *snapshot).await?;
    Ok(snapshot)
}

/// Checks every invariant of the rows. Limits are compared from `limits_since` on, and without it
/// with what runs now.
///
/// # Errors
/// When a query fails.
pub async fn rows(conn: &mut PgConnection, limits_since: Option<Timestamp>) -> Result<Rows> {
    let since = limits_since.map(ToSqlx::to_sqlx);
    Ok(Rows {
        attempts: sqlx::query_file_as!(Row, "src/db/sql/verify_attempts.sql").fetch_all(&mut *conn).await?.into(),
        limits: sqlx::query_file_as!(Row, "src/db/sql/verify_limits.sql", since as Option<jiff_sqlx::Timestamp>)
            .fetch_all(&mut *conn)
            .await?
            .into(),
        history: sqlx::query_file_as!(Row, "src/db/sql/verify_history.sql").fetch_all(&mut *conn).await?.into(),
        results: sqlx::query_file_as!(Row, "src/db/sql/verify_results.sql").fetch_all(&mut *conn).await?.into(),
        log_lines: sqlx::query_file_as!(Row, "src/db/sql/verify_log_lines.sql").fetch_all(&mut *conn).await?.into(),
        once: sqlx::query_file_as!(Row, "src/db/sql/verify_once.sql").fetch_all(&mut *conn).await?.into(),
        tenants: sqlx::query_file_as!(Row, "src/db/sql/verify_tenants.sql").fetch_all(&mut *conn).await?.into(),
        cleaned: sqlx::query_file_as!(Row, "src/db/sql/verify_cleaned.sql").fetch_all(&mut *conn).await?.into(),
        metrics: sqlx::query_file_as!(Row, "src/db/sql/verify_metrics.sql").fetch_all(&mut *conn).await?.into(),
        layers: sqlx::query_file_as!(Row, "src/db/sql/verify_layers.sql").fetch_all(&mut *conn).await?.into(),
    })
}

/// What a row says about its Job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub namespace: String,
    pub name: String,
    pub status: Status,
    pub job_created: bool,
    pub cleaned: bool,
}

/// The attempts with these ids.
///
/// # Errors
/// When the query fails or a row holds what this version does not know.
pub async fn attempts(pool: &PgPool, ids: &[Uuid]) -> Result<HashMap<Uuid, Attempt>> {
    let rows = sqlx::query!(
        "select id, resource_namespace, resource_name, status, job_created_at is not null as \"job_created!\",
                cleanup_at is not null as \"cleaned!\"
         from builds where id = any($1)",
        ids
    )
    .fetch_all(pool)
    .await?;
    rows.into_iter()
        .map(|row| {
            let attempt = Attempt {
                namespace: row.resource_namespace,
                name: row.resource_name,
                status: builds::status(&row.status)?,
                job_created: row.job_created,
                cleaned: row.cleaned,
            };
            Ok((row.id, attempt))
        })
        .collect()
}
