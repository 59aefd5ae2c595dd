//! The table `schedule_slots`: a slot is taken once, as a row, and what becomes of it is written there. It is taken in
//! the transaction that moves its schedule on, so that whoever looks at a clock, and however often, makes at most one
//! Build for it.

use image_factory_core::{ids, retention::Ended};
use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use sqlx::PgPool;
use uuid::Uuid;

use super::{
    Result,
    schedules::{self, Asked, Due, Owner},
};
use crate::clock;

/// How a slot ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its Build was made.
    Made,
    /// It was passed over, and why.
    Skipped(String),
    /// Its Build could not be made, and why.
    Failed(String),
}

impl Outcome {
    const fn parts(&self) -> (&'static str, Option<&str>) {
        match self {
            Self::Made => ("made", None),
            Self::Skipped(why) => ("skipped", Some(why.as_str())),
            Self::Failed(why) => ("failed", Some(why.as_str())),
        }
    }
}

/// Takes a slot of a schedule that is due, and has the schedule act next at `next`; without a slot only that. The slot
/// is passed over where it is `skipped`. `None`: the schedule has been moved on, or the slot was taken before.
///
/// # Errors
/// When a statement fails; nothing is changed then.
pub async fn take(
    pool: &PgPool,
    due: &Due,
    slot: Option<Timestamp>,
    skipped: Option<&str>,
    next: Option<Timestamp>,
) -> Result<Option<Uuid>> {
    let mut tx = pool.begin().await?;
    let moved = sqlx::query!(
        "update build_schedules set next_trigger_at = $2
         where id = $1 and is_active and resource_uid = $3 and observed_generation = $4 and next_trigger_at = $5
         returning tenant_id",
        due.id,
        next.map(ToSqlx::to_sqlx) as Option<jiff_sqlx::Timestamp>,
        due.owner.uid,
        due.generation,
        due.planned.to_sqlx() as _
    )
    .fetch_optional(&mut *tx)
    .await?;
    let Some(moved) = moved else { return Ok(None) };
    let mut taken = None;
    if let Some(slot) = slot {
        taken = sqlx::query_scalar!(
            "insert into schedule_slots (id, tenant_id, schedule_id, slot, build_name, outcome, message)
             values ($1, $2, $3, $4, $5, case when $6::text is not null then 'skipped' end, $6)
             on conflict on constraint schedule_slots_schedule_id_slot_key do nothing
             returning id",
            clock::new_id(),
            moved.tenant_id,
            due.id,
            slot.to_sqlx() as _,
            ids::slot_build_name(&due.owner.name, slot),
            skipped
        )
        .fetch_optional(&mut *tx)
        .await?;
    }
    if taken.is_none() || skipped.is_some() {
        // Otherwise what becomes of the slot is told at once with how it ends.
        schedules::notify(&mut tx, &format!("{}/{}", due.owner.namespace, due.owner.name)).await?;
    }
    tx.commit().await?;
    Ok(taken)
}

/// Takes a slot for a Build that is asked for now: the newest minute not after `now` that has none, since one to come
/// may be the expression's. Gives none where that was done before, or the last day is full of them.
///
/// # Errors
/// When a statement fails, also where another has taken that minute just now; nothing is changed then.
pub async fn take_now(pool: &PgPool, asked: &Asked, now: Timestamp) -> Result<Option<Timestamp>> {
    let mut tx = pool.begin().await?;
    let marked = sqlx::query!(
        "update build_schedules set run_now_taken = run_now_asked
         where id = $1 and resource_uid = $2 and run_now_asked = $3 and run_now_taken is distinct from run_now_asked
         returning tenant_id",
        asked.id,
        asked.owner.uid,
        asked.run_now
    )
    .fetch_optional(&mut *tx)
    .await?;
    let Some(marked) = marked else { return Ok(None) };
    let free = sqlx::query_scalar!(
        r#"select minute as "minute!"
           from generate_series(date_trunc('minute', $2::timestamptz), $2::timestamptz - interval '1 day', interval '-1 minute') as minute
           where not exists (select from schedule_slots s where s.schedule_id = $1 and s.slot = minute)
           order by minute desc
           limit 1"#,
        asked.id,
        now.to_sqlx() as _
    )
    .fetch_optional(&mut *tx)
    .await?;
    let slot = free.map(jiff_sqlx::Timestamp::to_jiff);
    if let Some(slot) = slot {
        sqlx::query!(
            "insert into schedule_slots (id, tenant_id, schedule_id, slot, build_name, run_now)
             values ($1, $2, $3, $4, $5, $6)",
            clock::new_id(),
            marked.tenant_id,
            asked.id,
            slot.to_sqlx() as _,
            ids::slot_build_name(&asked.owner.name, slot),
            asked.run_now
        )
        .execute(&mut *tx)
        .await?;
    }
    tx.commit().await?;
    Ok(slot)
}

/// A slot that was taken, and whose Build is not known to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    pub id: Uuid,
    pub schedule: Uuid,
    /// `None`: the BuildSchedule was deleted.
    pub owner: Option<Owner>,
    pub slot: Timestamp,
    pub build: String,
    /// Somebody asked for it.
    pub run_now: bool,
    /// How many times its Build was refused, and why it is not made yet.
    pub tries: i32,
    pub message: Option<String>,
    /// Its Build has been queued: so it was made.
    pub queued: bool,
    /// The expression's next slot has been taken since.
    pub overtaken: bool,
}

/// The slots whose Builds are to be made at `now`, each schedule's oldest first.
///
/// # Errors
/// When the query fails.
pub async fn pending(pool: &PgPool, now: Timestamp, limit: i64) -> Result<Vec<Pending>> {
    let rows = sqlx::query!(
        r#"select s.id, s.schedule_id, t.name as namespace, c.schedule_name, c.resource_uid, s.slot, s.build_name,
                  s.run_now is not null as "run_now!", s.tries, s.message, s.build_id is not null as "queued!",
                  exists (
                      select from schedule_slots n
                      where n.schedule_id = s.schedule_id and n.created_at > s.created_at and n.slot > s.slot and n.run_now is null
                  ) as "overtaken!"
           from schedule_slots s
           join build_schedules c on c.id = s.schedule_id
           join tenants t on t.id = c.tenant_id
           where s.outcome is null and (s.retry_at is null or s.retry_at <= $1)
           order by s.schedule_id, s.id
           limit $2"#,
        now.to_sqlx() as _,
        limit
    )
    .fetch_all(pool)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Pending {
            id: row.id,
            schedule: row.schedule_id,
            owner: row.resource_uid.map(|uid| Owner { namespace: row.namespace, name: row.schedule_name, uid }),
            slot: row.slot.to_jiff(),
            build: row.build_name,
            run_now: row.run_now,
            tries: row.tries,
            message: row.message,
            queued: row.queued,
            overtaken: row.overtaken,
        })
        .collect())
}

/// Writes how a slot ended at `now`. `false`: that was written before.
///
/// # Errors
/// When the statement fails.
pub async fn settle(pool: &PgPool, slot: Uuid, outcome: &Outcome, now: Timestamp) -> Result<bool> {
    let (word, message) = outcome.parts();
    let settled = sqlx::query!(
        "with settled as (
             update schedule_slots set outcome = $2, message = $3, retry_at = null
             where id = $1 and outcome is null
             returning schedule_id, build_name
         ),
         triggered as (
             update build_schedules c set last_triggered_at = $4, last_build_name = settled.build_name
             from settled where c.id = settled.schedule_id and $2 = 'made'
         )
         select pg_notify('image_factory_schedules', t.name || '/' || c.schedule_name)::text as notified
         from settled
         join build_schedules c on c.id = settled.schedule_id
         join tenants t on t.id = c.tenant_id",
        slot,
        word,
        message,
        now.to_sqlx() as _
    )
    .fetch_optional(pool)
    .await?;
    Ok(settled.is_some())
}

/// Notes why a slot's Build is not made yet, and tries it again at `at`. The controller looks where that is news: the
/// schedule has been moved on meanwhile.
///
/// # Errors
/// When the statement fails.
pub async fn put_off(pool: &PgPool, slot: Uuid, why: &str, refused: bool, at: Timestamp) -> Result<()> {
    sqlx::query!(
        "with before as (
             select id, message from schedule_slots where id = $1 and outcome is null for update
         ),
         put_off as (
             update schedule_slots s set message = $2, tries = s.tries + $3::boolean::int, retry_at = $4
             from before where s.id = before.id
             returning s.schedule_id, before.message is distinct from $2 as is_news
         )
         select pg_notify('image_factory_schedules', 'look ' || t.name || '/' || c.schedule_name)::text as notified
         from put_off
         join build_schedules c on c.id = put_off.schedule_id
         join tenants t on t.id = c.tenant_id
         where put_off.is_news",
        slot,
        why,
        refused,
        at.to_sqlx() as _
    )
    .fetch_optional(pool)
    .await?;
    Ok(())
}

/// A Build of a schedule that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unended {
    pub name: String,
    pub uid: String,
    /// It is being stopped.
    pub stopping: bool,
}

/// The queued and running Builds that were made for slots of the same schedule, taken before this one.
///
/// # Errors
/// When the query fails.
pub async fn unended(pool: &PgPool, slot: Uuid) -> Result<Vec<Unended>> {
    Ok(sqlx::query_as!(
        Unended,
        r#"select l.resource_name as name, l.resource_uid as uid, l.cancel_requested_at is not null as "stopping!"
           from schedule_slots own
           join builds l on l.tenant_id = own.tenant_id and l.status in ('queued', 'in_progress')
           join builds f on f.resource_uid = l.resource_uid and f.run = 1 and f.attempt = 1
           join schedule_slots s on s.build_id = f.id and s.schedule_id = own.schedule_id
           where own.id = $1 and s.id <> own.id and s.created_at <= own.created_at
           order by l.id"#,
        slot
    )
    .fetch_all(pool)
    .await?)
}

/// A slot whose Build was made and is not queued yet, as far as the rows know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unqueued {
    pub id: Uuid,
    pub build: String,
}

/// The slots of the same schedule, taken before this one, whose Builds were made and are not queued yet.
///
/// # Errors
/// When the query fails.
pub async fn unqueued(pool: &PgPool, slot: Uuid) -> Result<Vec<Unqueued>> {
    Ok(sqlx::query_as!(
        Unqueued,
        "select s.id, s.build_name as build
         from schedule_slots own
         join schedule_slots s on s.schedule_id = own.schedule_id and s.outcome = 'made' and s.build_id is null
         where own.id = $1 and s.id <> own.id and s.created_at <= own.created_at
         order by s.id",
        slot
    )
    .fetch_all(pool)
    .await?)
}

/// The Build of this slot was deleted before it was queued: nobody waits for it any more.
///
/// # Errors
/// When the statement fails.
pub async fn lost(pool: &PgPool, slot: Uuid) -> Result<()> {
    sqlx::query!(
        "update schedule_slots set outcome = 'failed', message = 'its Build was deleted before it was queued'
         where id = $1 and outcome = 'made' and build_id is null",
        slot
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Which of the Builds with these UIDs have ended, by their newest runs.
///
/// # Errors
/// When the query fails.
pub async fn ended(pool: &PgPool, uids: &[String]) -> Result<Vec<Ended>> {
    let rows = sqlx::query!(
        r#"select n.resource_uid, n.status = 'success' as "succeeded!", n.completed_at as "completed_at!"
           from unnest($1::text[]) as asked (uid)
           cross join lateral (
               select b.resource_uid, b.status, b.completed_at
               from builds b
               where b.resource_uid = asked.uid
               order by b.run desc, b.attempt desc
               limit 1
           ) n
           where n.status in ('success', 'failed', 'cancelled')"#,
        uids
    )
    .fetch_all(pool)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Ended { uid: row.resource_uid, succeeded: row.succeeded, at: row.completed_at.to_jiff() })
        .collect())
}
