//! The table `build_performance_daily`: which days changed, and what they are now. A result says itself
//! whether it is counted (`build_results.counted_at`), so a build that commits late is counted late, and
//! none is lost to a clock.

use std::collections::BTreeSet;

use jiff::{ToSpan, civil::Date};
use jiff_sqlx::ToSqlx;
use sqlx::PgPool;
use uuid::Uuid;

use super::Result;
use crate::clock;

/// Computes anew the days that changed since the last time, for at most `limit` builds that ended; gives
/// how many of those there were. None where another operator is at it.
///
/// # Errors
/// When a statement fails; nothing is changed then.
pub async fn count(pool: &PgPool, limit: u16) -> Result<usize> {
    let mut tx = pool.begin().await?;
    // Of two at once the one with the older snapshot could write over the other's days. The lock is had
    // before the snapshot: each statement below has its own.
    let alone = sqlx::query_scalar!("select pg_try_advisory_xact_lock(hashtext('rollup')) as \"alone!\"")
        .fetch_one(&mut *tx)
        .await?;
    if !alone {
        return Ok(0);
    }
    let stale = sqlx::query_file!("src/db/sql/rollup_stale.sql", i64::from(limit)).fetch_all(&mut *tx).await?;
    let days: BTreeSet<(Uuid, Date)> = stale
        .iter()
        .flat_map(|row| {
            let (first, last) = (row.first.to_jiff(), row.last.to_jiff());
            first.series(1.day()).take_while(move |day| *day <= last).map(|day| (row.tenant_id, day))
        })
        .collect();
    let (tenants, dates): (Vec<Uuid>, Vec<jiff_sqlx::Date>) =
        days.into_iter().map(|(tenant, day)| (tenant, day.to_sqlx())).unzip();
    let ids: Vec<Uuid> = tenants.iter().map(|_| clock::new_id()).collect();
    sqlx::query_file!("src/db/sql/rollup.sql", &ids, &tenants, &dates as _).execute(&mut *tx).await?;
    let counted: Vec<Uuid> = stale.into_iter().filter_map(|row| row.build_id).collect();
    sqlx::query!("update build_results set counted_at = now() where build_id = any($1)", &counted)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(counted.len())
}
