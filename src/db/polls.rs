//! The table `webhook_polls`: when each webhook's branch heads were last looked at, and what was seen. What has moved
//! since, and was not delivered meanwhile, becomes a delivery of the table `webhook_deliveries` in the same transaction.

use std::time::Duration;

use image_factory_core::{
    git,
    trigger::{
        Event,
        heads::{self, Heads},
    },
};
use jiff::Timestamp;
use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool, types::Json};
use uuid::Uuid;

use super::{Error, Result, webhooks};
use crate::{clock, crd::WebhookConfigSpec, failpoint};

/// A webhook that polls, and how that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Polling {
    pub webhook: Uuid,
    pub tenant: Uuid,
    /// `spec.poll.interval`; `None` where it can't be read.
    pub interval: Option<Duration>,
    /// How long ago the last look began; `None` before the first.
    pub since: Option<Duration>,
    pub is_under_way: bool,
}

/// Every webhook that polls, those that were never looked at first. A look of another repository or other branches than
/// the webhook has now is forgotten.
///
/// # Errors
/// When a statement fails.
pub async fn polling(pool: &PgPool) -> Result<Vec<Polling>> {
    sqlx::query_file!("src/db/sql/polls_forgotten.sql").execute(pool).await?;
    let rows = sqlx::query!(
        r#"select c.id, c.tenant_id, c.spec #>> '{poll,interval}' as interval, p.poll_id is not null as "is_under_way!",
               extract(epoch from now() - p.started_at)::float8 as since
           from webhook_configs c
           left join webhook_polls p on p.webhook_config_id = c.id
           where c.is_active and c.spec ? 'poll'
           order by p.started_at nulls first"#
    )
    .fetch_all(pool)
    .await?;
    let polling = rows.into_iter().map(|row| Polling {
        webhook: row.id,
        tenant: row.tenant_id,
        interval: row.interval.and_then(|text| text.parse::<kube::core::Duration>().ok()).map(Duration::from),
        since: row.since.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default()),
        is_under_way: row.is_under_way,
    });
    Ok(polling.collect())
}

/// Notes that these webhooks are looked at from now on. One of which a look is under way, or whose last began less than
/// so long ago, is left alone.
///
/// # Errors
/// When the statement fails.
pub async fn begin(pool: &PgPool, looks: &[(Uuid, Duration)]) -> Result<()> {
    sqlx::query_file!(
        "src/db/sql/polls_begun.sql",
        &looks.iter().map(|(webhook, _)| *webhook).collect::<Vec<Uuid>>(),
        &looks.iter().map(|(_, interval)| interval.as_secs_f64()).collect::<Vec<f64>>(),
        &looks.iter().map(|_| clock::new_id()).collect::<Vec<Uuid>>()
    )
    .execute(pool)
    .await?;
    failpoint::statement("poll.after-begun")?;
    Ok(())
}

/// A look that is under way.
#[derive(Clone, Debug)]
pub struct UnderWay {
    pub id: Uuid,
    pub since: Duration,
    pub namespace: String,
    pub webhook: String,
    pub webhook_uid: String,
    pub spec: WebhookConfigSpec,
}

/// The looks that are under way. One of a webhook that can't be read ends here.
///
/// # Errors
/// When a statement fails.
pub async fn under_way(pool: &PgPool) -> Result<Vec<UnderWay>> {
    let rows = sqlx::query!(
        r#"select p.poll_id as "id!", extract(epoch from now() - p.started_at)::float8 as "since!", t.name as namespace,
               c.webhook_name, c.resource_uid as "resource_uid!", c.spec as "spec!"
           from webhook_polls p
           join webhook_configs c on c.id = p.webhook_config_id
           join tenants t on t.id = c.tenant_id
           where p.poll_id is not null
           order by p.poll_id"#
    )
    .fetch_all(pool)
    .await?;
    let mut under_way = Vec::with_capacity(rows.len());
    for row in rows {
        match webhooks::spec(row.spec) {
            Ok(spec) => under_way.push(UnderWay {
                id: row.id,
                since: Duration::try_from_secs_f64(row.since).unwrap_or_default(),
                namespace: row.namespace,
                webhook: row.webhook_name,
                webhook_uid: row.resource_uid,
                spec,
            }),
            Err(error) => {
                settle(pool, row.id, &Err(error.to_string())).await?;
            }
        }
    }
    Ok(under_way)
}

/// Ends a look with what it has seen, or why it has seen nothing, and makes deliveries of what has moved since the look
/// before and was not delivered. Gives how many; `None`: it had ended before, and nothing is changed.
///
/// # Errors
/// When a statement fails; nothing is changed then.
pub async fn settle(pool: &PgPool, look: Uuid, seen: &std::result::Result<Heads, String>) -> Result<Option<usize>> {
    let mut tx = pool.begin().await?;
    let row = sqlx::query!(
        r#"select p.webhook_config_id, p.heads as "heads: Json<Heads>", p.seen_at, c.spec ->> 'repository' as repository
           from webhook_polls p
           join webhook_configs c on c.id = p.webhook_config_id
           where p.poll_id = $1
           for update of p"#,
        look
    )
    .fetch_optional(&mut *tx)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let mut found = 0;
    if let (Ok(now), Some(Json(before)), Some(seen_at)) = (seen, &row.heads, row.seen_at) {
        let moved = heads::moved(before, now, row.repository.as_deref());
        found = insert(&mut tx, row.webhook_config_id, look, seen_at.to_jiff(), &moved).await?;
    }
    sqlx::query!(
        "update webhook_polls
         set poll_id = null, ended_at = now(), error_message = $2, heads = coalesce($3, heads),
             seen_at = case when $3::jsonb is null then seen_at else started_at end
         where poll_id = $1",
        look,
        seen.as_ref().err(),
        seen.as_ref().ok().map(|heads| json!(heads))
    )
    .execute(&mut *tx)
    .await?;
    failpoint::statement("poll.before-settled")?;
    tx.commit().await?;
    failpoint::statement("poll.after-settled")?;
    Ok(Some(found))
}

/// A row for each that nobody has delivered since.
async fn insert(
    conn: &mut PgConnection,
    webhook: Uuid,
    look: Uuid,
    since: Timestamp,
    moved: &[Event],
) -> Result<usize> {
    use jiff_sqlx::ToSqlx;
    let moved: Vec<&Event> = moved.iter().filter(|event| event.commit.as_deref().is_some_and(git::is_commit)).collect();
    let events: Vec<Value> = moved
        .iter()
        .map(serde_json::to_value)
        .collect::<std::result::Result<_, _>>()
        .map_err(|error| Error::Row(error.to_string()))?;
    let payloads: Vec<Value> = moved
        .iter()
        .map(|event| json!({"ref": event.git_ref, "before": event.before, "after": event.commit}))
        .collect();
    let ids: Vec<Uuid> = moved.iter().map(|_| clock::new_id()).collect();
    let delivery_ids: Vec<String> =
        (1..=moved.len()).map(|number| format!("poll-{}-{number}", look.simple())).collect();
    let stored = sqlx::query_file!(
        "src/db/sql/polled.sql",
        webhook,
        since.to_sqlx() as _,
        &ids,
        &delivery_ids,
        &payloads,
        &events
    )
    .fetch_one(conn)
    .await?;
    Ok(usize::try_from(stored.number).unwrap_or_default())
}
