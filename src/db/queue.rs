//! The claim: which queued builds start now. One short transaction under one advisory lock reads
//! limits, counts and heads, lets the plan in core decide, and moves the rows.

use image_factory_core::{
    queue::{self, Head, Tenant, Worker},
    status::Status,
};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::{Result, transitions};
use crate::failpoint;

/// Claims every build that has room now. Any number of operators may call it at once: they take
/// turns, and no limit is exceeded at any commit.
///
/// # Errors
/// When a statement fails; nothing is claimed then.
pub async fn claim(pool: &PgPool) -> Result<Vec<Uuid>> {
    let mut tx = pool.begin().await?;
    sqlx::query!("select pg_advisory_xact_lock(hashtextextended('image-factory claim', 0))::text as locked")
        .fetch_one(&mut *tx)
        .await?;
    let places = sqlx::query_file!("src/db/sql/places.sql").fetch_all(&mut *tx).await?;
    let workers: Vec<Worker> = places
        .iter()
        .filter(|place| place.takes_builds)
        .map(|place| Worker {
            id: place.id,
            tenant: place.tenant_id,
            running: place.running,
            limit: place.concurrent_builds_limit,
        })
        .collect();
    let changes = planned(&mut tx, workers).await?;
    let claimed = transitions::apply(&mut tx, Status::Queued, Status::InProgress, &changes).await?;
    // What woke this claim may have been the end of a build. Mostly another takes its place, and the
    // counts stay.
    let began = |worker| {
        changes.iter().filter(|change| change.worker == Some(worker) && claimed.contains(&change.build)).count()
    };
    let differs =
        places.iter().any(|place| usize::try_from(place.current_builds_count - place.running) != Ok(began(place.id)));
    if differs {
        super::workers::count_running(&mut tx).await?;
    }
    if !claimed.is_empty() {
        failpoint::statement("claim.before-commit")?;
    }
    tx.commit().await?;
    if !claimed.is_empty() {
        failpoint::statement("claim.after-commit")?;
    }
    Ok(claimed)
}

/// What the plan moves, given these workers.
async fn planned(conn: &mut PgConnection, workers: Vec<Worker>) -> Result<Vec<transitions::Change>> {
    let room: i32 = workers.iter().map(|worker| worker.limit - worker.running).sum();
    if room <= 0 {
        return Ok(Vec::new());
    }
    let rows = sqlx::query_file!("src/db/sql/heads.sql", room).fetch_all(conn).await?;
    let mut tenants: Vec<Tenant> = Vec::new();
    let mut heads = Vec::new();
    for row in rows {
        if tenants.last().is_none_or(|tenant| tenant.id != row.tenant_id) {
            tenants.push(Tenant {
                id: row.tenant_id,
                running: row.running,
                limit: row.tenant_limit,
                weight: row.weight,
                by_priority: row.by_priority,
            });
        }
        heads.push(Head {
            build: row.id,
            tenant: row.tenant_id,
            priority: row.priority,
            queued_at: row.queued_at.to_jiff(),
        });
    }
    Ok(queue::plan(tenants, workers, &heads)
        .into_iter()
        .map(|assignment| transitions::Change {
            build: assignment.build,
            worker: Some(assignment.worker),
            reason: "claimed: within the limits of its tenant and its worker".to_owned(),
            ..transitions::Change::default()
        })
        .collect())
}
