//! Whether what must hold does, whatever crashed before: the rows against themselves, the cluster's
//! Jobs against the rows, every Build's status against its newest row.
//!
//! The cluster follows the rows a moment later, so what looks broken there counts only when it
//! still does after a while. That nothing destructive is decided from a cache
//! can't be seen in what is left behind.

mod jobs;
mod statuses;

use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use sqlx::{PgConnection, PgPool};
use tokio::time::Instant;

use crate::db::{self, verify::Checked};

/// How long the cluster may take to follow the rows.
const SETTLE: Duration = Duration::from_secs(20);
const AGAIN: Duration = Duration::from_millis(500);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Db(#[from] db::Error),
    #[error("failed to reach the API server: {0}")]
    Kube(#[from] kube::Error),
}

/// An invariant and what was found.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What must hold.
    pub invariant: &'static str,
    /// What `checked.examined` counts.
    pub unit: &'static str,
    pub checked: Checked,
}

/// The rows alone, as `conn` sees them.
///
/// # Errors
/// When a query fails.
pub async fn rows(conn: &mut PgConnection, limits_since: Option<Timestamp>) -> Result<Vec<Finding>, Error> {
    // No `..`: a new question can't be forgotten.
    let db::verify::Rows { attempts, limits, history, results, log_lines, once, tenants, cleaned, metrics, layers } =
        db::verify::rows(conn, limits_since).await?;
    let limits_hold = match limits_since {
        Some(_) => "no limit was exceeded since the time given, and no two attempts of a Build ever ran at once",
        None => "no limit is exceeded now, and no two attempts of a Build ever ran at once",
    };
    Ok([
        ("a run has one row per attempt, and a newer run stops an older", "attempts", attempts),
        (limits_hold, "claims", limits),
        ("the history of a build is a legal path to its status, a row a transition", "transitions", history),
        ("a finished build has exactly one result", "finished builds", results),
        ("log lines are numbered without gap, and a log is concluded before its build", "lines", log_lines),
        ("a slot and a delivery make at most one build", "slots and deliveries", once),
        ("a row refers only to rows of its tenant, or to a shared worker", "builds", tenants),
        ("a finished build is cleaned up when it is due", "finished builds", cleaned),
        ("a build that ran has exactly one row of metrics", "builds that ran", metrics),
        ("a layer is counted once for each build of its tenant that has it", "layers", layers),
    ]
    .map(|(invariant, unit, checked)| Finding { invariant, unit, checked })
    .to_vec())
}

/// The cluster against the rows.
///
/// # Errors
/// When a query or a request fails.
pub async fn cluster(pool: &PgPool, client: &Client) -> Result<Vec<Finding>, Error> {
    let until = Instant::now() + SETTLE;
    loop {
        let findings = [
            ("an attempt has at most one Job, and a Job an attempt", "Jobs", jobs::check(pool, client).await?),
            ("the status of a Build is what its newest row says", "Builds", statuses::check(pool, client).await?),
        ]
        .map(|(invariant, unit, checked)| Finding { invariant, unit, checked });
        if findings.iter().all(|finding| finding.checked.broken.is_empty()) || Instant::now() >= until {
            return Ok(findings.to_vec());
        }
        tokio::time::sleep(AGAIN).await;
    }
}
