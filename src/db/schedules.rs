//! The table `build_schedules`: what each BuildSchedule asks for, and when it acts next.

use image_factory_core::method::Method;
use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use serde_json::Value;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::{LOOK, Result, builds};
use crate::clock;

/// A BuildSchedule as a row has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Declared {
    pub tenant_uid: String,
    pub tenant_name: String,
    pub project: String,
    pub name: String,
    pub uid: String,
    pub generation: i64,
    pub cron: String,
    pub timezone: String,
    pub method: Method,
    /// The template of its Builds.
    pub preset: Value,
    pub branch: Option<String>,
    /// Whether it acts at its times.
    pub active: bool,
    pub run_now: Option<String>,
}

/// What is stored of a schedule, and the database's clock.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// Of the BuildSchedule; `None` where the last one of this name was deleted.
    pub uid: Option<String>,
    pub generation: i64,
    pub cron: String,
    pub timezone: String,
    pub active: bool,
    pub run_now: Option<String>,
    pub next_trigger_at: Option<Timestamp>,
    pub last_triggered_at: Option<Timestamp>,
    pub last_build: Option<String>,
}

/// The time on the database's clock, which is that of all operators.
///
/// # Errors
/// When the query fails.
pub async fn now(pool: &PgPool) -> Result<Timestamp> {
    Ok(sqlx::query_scalar!(r#"select now() as "now!""#).fetch_one(pool).await?.to_jiff())
}

/// The row of the schedule with this name, of the tenant with this UID.
///
/// # Errors
/// When the query fails.
pub async fn stored(pool: &PgPool, tenant_uid: &str, name: &str) -> Result<Option<Stored>> {
    let row = sqlx::query!(
        "select c.resource_uid, c.observed_generation, c.cron_expression, c.timezone, c.is_active, c.run_now_asked,
                c.next_trigger_at, c.last_triggered_at, c.last_build_name
         from build_schedules c
         join tenants t on t.id = c.tenant_id
         where t.uid = $1 and c.schedule_name = $2",
        tenant_uid,
        name
    )
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|row| Stored {
        uid: row.resource_uid,
        generation: row.observed_generation,
        cron: row.cron_expression,
        timezone: row.timezone,
        active: row.is_active,
        run_now: row.run_now_asked,
        next_trigger_at: row.next_trigger_at.map(jiff_sqlx::Timestamp::to_jiff),
        last_triggered_at: row.last_triggered_at.map(jiff_sqlx::Timestamp::to_jiff),
        last_build: row.last_build_name,
    }))
}

/// Brings the row in line with its BuildSchedule, to act next at `next`, where the row still is as it was `seen`; and
/// wakes whoever acts. `false`: it is another by now, and nothing is changed.
///
/// # Errors
/// When a statement fails; nothing is changed then.
pub async fn declare(
    pool: &PgPool,
    declared: &Declared,
    seen: Option<&Stored>,
    next: Option<Timestamp>,
) -> Result<bool> {
    // No `..`: a new field can't be forgotten.
    let Declared {
        tenant_uid,
        tenant_name,
        project,
        name,
        uid,
        generation,
        cron,
        timezone,
        method,
        preset,
        branch,
        active,
        run_now,
    } = declared;
    let mut tx = pool.begin().await?;
    let tenant = builds::tenant(&mut tx, tenant_uid, tenant_name).await?;
    let project = builds::project(&mut tx, tenant, project).await?;
    let changed = sqlx::query_file!(
        "src/db/sql/declare_schedule.sql",
        clock::new_id(),
        tenant,
        project,
        name,
        cron,
        timezone,
        method.as_str(),
        preset,
        branch.as_deref(),
        active,
        next.map(ToSqlx::to_sqlx) as Option<jiff_sqlx::Timestamp>,
        uid,
        generation,
        run_now.as_deref(),
        seen.is_some(),
        seen.and_then(|seen| seen.uid.as_deref()),
        seen.map_or(0, |seen| seen.generation),
        seen.and_then(|seen| seen.next_trigger_at).map(ToSqlx::to_sqlx) as Option<jiff_sqlx::Timestamp>
    )
    .fetch_optional(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(changed.is_some())
}

/// A BuildSchedule that has an own row.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

/// Every BuildSchedule whose row says that it is there.
///
/// # Errors
/// When the query fails.
pub async fn owners(pool: &PgPool) -> Result<Vec<Owner>> {
    Ok(sqlx::query_as!(
        Owner,
        r#"select t.name as namespace, c.schedule_name as name, c.resource_uid as "uid!"
           from build_schedules c join tenants t on t.id = c.tenant_id
           where c.resource_uid is not null"#
    )
    .fetch_all(pool)
    .await?)
}

/// The BuildSchedule with this UID was deleted: its row stays and acts no more, and what it was to make is not made.
///
/// # Errors
/// When the statement fails.
pub async fn retire(pool: &PgPool, uid: &str) -> Result<()> {
    sqlx::query!(
        "with retired as (
             update build_schedules
             set is_active = false, next_trigger_at = null, run_now_asked = null, resource_uid = null
             where resource_uid = $1
             returning id
         )
         update schedule_slots s
         set outcome = case when s.build_id is null then 'failed' else 'made' end,
             message = case when s.build_id is null then 'its BuildSchedule was deleted' end,
             retry_at = null
         from retired where s.schedule_id = retired.id and s.outcome is null",
        uid
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Has the controller look at a schedule again.
///
/// # Errors
/// When the statement fails.
pub async fn wake(pool: &PgPool, namespace: &str, name: &str) -> Result<()> {
    notify(&mut *pool.acquire().await?, &format!("{LOOK}{namespace}/{name}")).await
}

pub(super) async fn notify(conn: &mut PgConnection, message: &str) -> Result<()> {
    sqlx::query!("select pg_notify('image_factory_schedules', $1)::text as notified", message).fetch_one(conn).await?;
    Ok(())
}

/// A schedule that is to act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    pub id: Uuid,
    pub owner: Owner,
    pub generation: i64,
    /// The slot it was to take next.
    pub planned: Timestamp,
}

/// Schedules whose next time has come at `now`, the longest overdue first.
///
/// # Errors
/// When the query fails.
pub async fn due(pool: &PgPool, now: Timestamp, limit: i64) -> Result<Vec<Due>> {
    let rows = sqlx::query!(
        r#"select c.id, t.name as namespace, c.schedule_name, c.resource_uid as "resource_uid!", c.observed_generation,
                  c.next_trigger_at as "next_trigger_at!"
           from build_schedules c join tenants t on t.id = c.tenant_id
           where c.is_active and c.next_trigger_at <= $1 and c.resource_uid is not null
           order by c.next_trigger_at
           limit $2"#,
        now.to_sqlx() as _,
        limit
    )
    .fetch_all(pool)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Due {
            id: row.id,
            owner: Owner { namespace: row.namespace, name: row.schedule_name, uid: row.resource_uid },
            generation: row.observed_generation,
            planned: row.next_trigger_at.to_jiff(),
        })
        .collect())
}

/// A schedule that is asked to make a Build now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub id: Uuid,
    pub owner: Owner,
    /// Value of the annotation.
    pub run_now: String,
}

/// Schedules that are asked to make a Build now, and have not yet taken a slot for it.
///
/// # Errors
/// When the query fails.
pub async fn asked(pool: &PgPool, limit: i64) -> Result<Vec<Asked>> {
    let rows = sqlx::query!(
        r#"select c.id, t.name as namespace, c.schedule_name, c.resource_uid as "resource_uid!", c.run_now_asked as "run_now!"
           from build_schedules c join tenants t on t.id = c.tenant_id
           where c.run_now_asked is not null and c.run_now_asked is distinct from c.run_now_taken
             and c.resource_uid is not null
           limit $1"#,
        limit
    )
    .fetch_all(pool)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Asked {
            id: row.id,
            owner: Owner { namespace: row.namespace, name: row.schedule_name, uid: row.resource_uid },
            run_now: row.run_now,
        })
        .collect())
}

/// When something is to be done next: a slot, or another try to make its Build.
///
/// # Errors
/// When the query fails.
pub async fn next_turn(pool: &PgPool) -> Result<Option<Timestamp>> {
    let next = sqlx::query_scalar!(
        "select least(
             (select min(next_trigger_at) from build_schedules where is_active),
             (select min(coalesce(retry_at, created_at)) from schedule_slots where outcome is null)
         )"
    )
    .fetch_one(pool)
    .await?;
    Ok(next.map(jiff_sqlx::Timestamp::to_jiff))
}
