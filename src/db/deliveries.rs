//! The table `webhook_deliveries`, inbound: what Git hosts delivered, what was decided of it, and the Builds made for it.
//! A delivery is a row as soon as it is answered; a try to make its Build that fails is followed by a row of its own.

use std::{collections::BTreeSet, time::Duration};

use image_factory_core::trigger::{self, Cause, Event};
use serde_json::Value;
use sqlx::{PgPool, types::Json};
use uuid::Uuid;

use super::{Error, Result, webhooks};
use crate::{clock, crd::WebhookConfigSpec, failpoint};

/// Channel whose messages say that there are deliveries to look at, or, `outbound`, notifications to send.
pub const CHANNEL: &str = "image_factory_deliveries";

/// Why nothing is made of a delivery any more.
const INACTIVE: &str = "the WebhookConfig is suspended, or no longer there";

/// A delivery whose signature was right.
#[derive(Clone, Debug)]
pub struct Received {
    pub webhook: Uuid,
    /// The sender's id.
    pub delivery_id: String,
    pub event: Event,
    pub payload: Value,
}

/// Stores deliveries in one statement, and wakes whoever makes Builds of them. One that is there already is left as it
/// is. Gives how many are new.
///
/// # Errors
/// When the statement fails; nothing is stored then.
pub async fn receive(pool: &PgPool, received: &[Received]) -> Result<usize> {
    let texts =
        |field: fn(&Received) -> &str| -> Vec<String> { received.iter().map(|one| field(one).to_owned()).collect() };
    failpoint::statement("webhook.before-store")?;
    let stored = sqlx::query!(
        "with stored as (
             insert into webhook_deliveries (id, tenant_id, webhook_config_id, direction, delivery_id, event_type, payload,
                 event, response_status, next_retry_at)
             select r.id, c.tenant_id, c.id, 'inbound', r.delivery_id, r.event_type, r.payload, r.event, 202, now()
             from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::jsonb[], $6::jsonb[])
                 as r (id, webhook_config_id, delivery_id, event_type, payload, event)
             join webhook_configs c on c.id = r.webhook_config_id
             on conflict on constraint webhook_deliveries_delivery_key do nothing
             returning id
         ),
         counted as (select count(*) as number from stored)
         select number as \"number!\",
             case when number > 0 then pg_notify('image_factory_deliveries', '')::text end as notified
         from counted",
        &received.iter().map(|_| clock::new_id()).collect::<Vec<Uuid>>(),
        &received.iter().map(|one| one.webhook).collect::<Vec<Uuid>>(),
        &texts(|one| &one.delivery_id),
        &texts(|one| one.event.word()),
        &received.iter().map(|one| Json(&one.payload)).collect::<Vec<_>>() as _,
        &received.iter().map(|one| Json(&one.event)).collect::<Vec<_>>() as _
    )
    .fetch_one(pool)
    .await?;
    failpoint::statement("webhook.after-store")?;
    Ok(usize::try_from(stored.number).unwrap_or_default())
}

/// Decides of so many deliveries, oldest first, whether they make a Build, by the rules of their webhooks. Gives how
/// many were decided.
///
/// # Errors
/// When a statement fails; nothing is decided then.
pub async fn decide(pool: &PgPool, limit: i64) -> Result<usize> {
    let mut tx = pool.begin().await?;
    // Operators take turns: of two deliveries of one event, only one makes a Build.
    sqlx::query!("select pg_advisory_xact_lock(hashtextextended('image-factory deliveries', 0))::text as turn")
        .fetch_one(&mut *tx)
        .await?;
    let rows = sqlx::query_file!("src/db/sql/undecided.sql", limit).fetch_all(&mut *tx).await?;
    if rows.is_empty() {
        return Ok(0);
    }
    let mut seen = BTreeSet::new();
    let (mut ids, mut names, mut causes) = (Vec::new(), Vec::new(), Vec::new());
    for row in &rows {
        ids.push(row.id);
        let event: Event = match read("event", row.event.clone()) {
            Ok(event) => event,
            // A newer operator may have written it. It holds up no other.
            Err(error) => {
                names.push(None);
                causes.push(Some(error.to_string()));
                continue;
            }
        };
        let spec = row.spec.clone().filter(|_| row.is_active).map(webhooks::spec);
        let key =
            (row.webhook_config_id, event.word(), event.git_ref.clone(), event.before.clone(), event.commit.clone());
        let is_repeated = !row.redelivered && (row.is_repeated || seen.contains(&key));
        let verdict = match &spec {
            Some(Ok(spec)) => spec.decide(&event, is_repeated).map_err(|cause| cause.to_string()),
            Some(Err(error)) => Err(error.to_string()),
            None => Err(INACTIVE.to_owned()),
        };
        match verdict {
            Ok(_) if row.is_outdated && !row.redelivered => {
                names.push(None);
                causes.push(Some(Cause::Outdated.to_string()));
            }
            Ok(_) => {
                seen.insert(key);
                names.push(Some(image_factory_core::ids::made_name(&row.webhook_name, row.id)));
                causes.push(None);
            }
            Err(cause) => {
                names.push(None);
                causes.push(Some(cause));
            }
        }
    }
    sqlx::query_file!("src/db/sql/decided.sql", &ids, &names as &[Option<String>], &causes as &[Option<String>])
        .execute(&mut *tx)
        .await?;
    failpoint::statement("webhook.before-decided")?;
    tx.commit().await?;
    failpoint::statement("webhook.after-decided")?;
    Ok(ids.len())
}

/// A delivery whose Build is to be made.
#[derive(Clone, Debug)]
pub struct Due {
    pub id: Uuid,
    pub build_name: String,
    pub delivery_id: String,
    pub attempt: i32,
    /// To build.
    pub revision: String,
    pub namespace: String,
    pub webhook: String,
    pub webhook_uid: String,
    pub spec: WebhookConfigSpec,
    /// Rows that a Build of this name may have been made for: this one, and the tries before.
    pub origins: Vec<Uuid>,
    /// Its Build has been queued.
    pub is_made: bool,
}

/// Deliveries whose Build is to be made now: of each webhook the oldest, when no Build of it is queued or running, since
/// all push one tag. One that can't be read, or of whose ref a newer commit was built meanwhile, or whose webhook was
/// suspended or deleted, makes none, and holds up no other.
///
/// # Errors
/// When the query fails.
pub async fn due(pool: &PgPool, limit: i64) -> Result<Vec<Due>> {
    sqlx::query_file!("src/db/sql/due_to_nobody.sql", INACTIVE).execute(pool).await?;
    loop {
        let rows = sqlx::query_file!("src/db/sql/due_deliveries.sql", limit).fetch_all(pool).await?;
        let (mut due, mut is_all) = (Vec::with_capacity(rows.len()), true);
        for row in rows {
            if row.is_outdated {
                failed(pool, row.id, &Cause::Outdated.to_string(), None).await?;
                // Then it is the next one's turn.
                is_all = false;
                continue;
            }
            let revision = read::<Event>("event", row.event)
                .and_then(|event| trigger::revision(&event).ok_or_else(|| Error::Row(Cause::Commit.to_string())));
            match (revision, webhooks::spec(row.spec)) {
                (Ok(revision), Ok(spec)) => due.push(Due {
                    id: row.id,
                    build_name: row.build_name,
                    delivery_id: row.delivery_id,
                    attempt: row.attempt_number,
                    revision,
                    namespace: row.namespace,
                    webhook: row.webhook_name,
                    webhook_uid: row.resource_uid,
                    spec,
                    origins: row.origins,
                    is_made: row.is_made,
                }),
                (Err(error), _) | (_, Err(error)) => failed(pool, row.id, &error.to_string(), None).await?,
            }
        }
        if is_all {
            return Ok(due);
        }
    }
}

/// Notes that the Builds of these deliveries are there.
///
/// # Errors
/// When the statement fails.
pub async fn made(pool: &PgPool, deliveries: &[Uuid]) -> Result<()> {
    failpoint::statement("webhook.before-made")?;
    sqlx::query!(
        "with made as (
             -- Also one that was meanwhile asked for again.
             update webhook_deliveries set next_retry_at = null, made_at = now(), error_message = null
             where id = any($1) and made_at is null
             returning webhook_config_id
         )
         update webhook_configs set last_delivery_status = 'built'
         where id in (select webhook_config_id from made)",
        deliveries
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Notes that the Build of a delivery could not be made; the next try is a row of its own, if there is one.
///
/// # Errors
/// When the statement fails.
pub async fn failed(pool: &PgPool, delivery: Uuid, message: &str, next: Option<Duration>) -> Result<()> {
    sqlx::query_file!(
        "src/db/sql/delivery_failed.sql",
        delivery,
        message,
        clock::new_id(),
        next.map(|next| next.as_secs_f64())
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// A Build whose place a newer one takes.
#[derive(Clone, Debug)]
pub struct Superseded {
    pub resource_uid: String,
    pub by_build: String,
    pub by_delivery: String,
}

/// Live Builds of webhooks with `supersede` that a newer delivery of the same branch takes the place of.
///
/// # Errors
/// When the query fails.
pub async fn superseded(pool: &PgPool) -> Result<Vec<Superseded>> {
    let rows = sqlx::query_file!("src/db/sql/superseded.sql").fetch_all(pool).await?;
    let superseded = rows.into_iter().map(|row| Superseded {
        resource_uid: row.resource_uid,
        by_build: row.build_name,
        by_delivery: row.delivery_id,
    });
    Ok(superseded.collect())
}

/// Has a delivery decided anew, so that it makes a Build of its own. `false`: there is no such delivery, or no such
/// webhook that takes any.
///
/// # Errors
/// When the statement fails.
pub async fn redeliver(pool: &PgPool, namespace: &str, webhook: &str, delivery_id: &str) -> Result<bool> {
    let made = sqlx::query_file!("src/db/sql/redeliver.sql", clock::new_id(), namespace, webhook, delivery_id)
        .fetch_optional(pool)
        .await?;
    Ok(made.is_some())
}

fn read<T: serde::de::DeserializeOwned>(column: &str, value: Value) -> Result<T> {
    serde_json::from_value(value).map_err(|error| Error::Row(format!("webhook_deliveries.{column}: {error}")))
}
