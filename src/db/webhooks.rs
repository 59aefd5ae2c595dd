//! The table `webhook_configs`: which webhooks tenants have declared, and how each is doing.

use std::collections::HashMap;

use image_factory_core::method::Method;
use jiff::Timestamp;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use super::{Error, Result, builds, declared, workers::TenantName};
use crate::{clock, crd::WebhookConfigSpec};

/// A webhook as its WebhookConfig has it.
#[derive(Clone, Debug)]
pub struct Declared {
    pub tenant: TenantName,
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// Where deliveries go, or events are sent.
    pub url: Option<String>,
    pub spec: WebhookConfigSpec,
}

/// A row as the statement reads it.
fn row(webhook: &Declared) -> Value {
    let Declared { tenant, name, uid, url, spec } = webhook;
    let build = spec.template.as_ref().map(|template| &template.spec);
    json!({
        "id": clock::new_id(), "project_id": clock::new_id(), "tenant_uid": tenant.uid, "name": name, "uid": uid,
        "project": build.map_or("default", |build| &build.project), "url": url,
        "secret": spec.secret_ref.as_ref().map(|secret| format!("{}/{}", secret.name, secret.key)),
        "events": spec.events, "branches": spec.branches, "auto_build": spec.auto_build,
        "method": build.map(|build| build.method).map(Method::as_str), "preset": spec.template,
        "active": !spec.suspend, "provider": spec.provider, "spec": spec,
    })
}

/// Makes the table declare exactly these webhooks, listed at `resource_version`. `false`: a newer list has been
/// declared, and nothing is changed.
///
/// # Errors
/// When a statement fails; nothing is changed then.
pub async fn declare(pool: &PgPool, webhooks: &[Declared], resource_version: i64) -> Result<bool> {
    let uids: Vec<String> = webhooks.iter().map(|webhook| webhook.tenant.uid.clone()).collect();
    let names: Vec<String> = webhooks.iter().map(|webhook| webhook.tenant.name.clone()).collect();
    let rows: Value = webhooks.iter().map(row).collect();
    let mut tx = pool.begin().await?;
    if !declared::is_newest(&mut tx, "webhooks", resource_version).await? {
        return Ok(false);
    }
    builds::tenants(&mut tx, &uids, &names).await?;
    sqlx::query_file!("src/db/sql/webhooks.sql", image_factory_core::storable::json(rows)).fetch_one(&mut *tx).await?;
    tx.commit().await?;
    Ok(true)
}

/// A webhook that takes deliveries.
#[derive(Clone, Debug)]
pub struct Active {
    pub id: Uuid,
    pub spec: WebhookConfigSpec,
}

/// The webhook of this name in the namespace of this name; `None` also where it is suspended.
///
/// # Errors
/// When the query fails.
pub async fn active(pool: &PgPool, namespace: &str, name: &str) -> Result<Option<Active>> {
    let row = sqlx::query!(
        "select c.id, c.spec as \"spec!\"
         from webhook_configs c
         join tenants t on t.id = c.tenant_id and t.name = $1
         where c.webhook_name = $2 and c.is_active and c.spec is not null
         order by c.id desc
         limit 1",
        namespace,
        name
    )
    .fetch_optional(pool)
    .await?;
    row.map(|row| Ok(Active { id: row.id, spec: spec(row.spec)? })).transpose()
}

pub(super) fn spec(value: Value) -> Result<WebhookConfigSpec> {
    serde_json::from_value(value).map_err(|error| Error::Row(format!("webhook_configs.spec: {error}")))
}

/// How a webhook is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub is_verified: bool,
    /// Its receiver wants nothing ever again.
    pub is_disabled: bool,
    pub newest: Option<Newest>,
    /// When the last look at its branch heads ended, and why it failed.
    pub polled: Option<(Timestamp, Option<String>)>,
}

/// Its newest delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newest {
    pub at: Timestamp,
    pub delivery_id: String,
    pub event_type: String,
    /// The Build made for it, or to be made.
    pub build_name: Option<String>,
    pub error_message: Option<String>,
    /// When something is to be done about it yet.
    pub next_retry_at: Option<Timestamp>,
}

/// How these webhooks are doing, by `metadata.uid`.
///
/// # Errors
/// When the query fails.
pub async fn statuses(pool: &PgPool, uids: &[String]) -> Result<HashMap<String, Told>> {
    let rows = sqlx::query_file!("src/db/sql/webhook_statuses.sql", uids).fetch_all(pool).await?;
    let told = rows.into_iter().map(|row| {
        let newest = match (row.at, row.delivery_id, row.event_type) {
            (Some(at), Some(delivery_id), Some(event_type)) => Some(Newest {
                at: at.to_jiff(),
                delivery_id,
                event_type,
                build_name: row.build_name,
                error_message: row.error_message,
                next_retry_at: row.next_retry_at.map(jiff_sqlx::Timestamp::to_jiff),
            }),
            _ => None,
        };
        let polled = row.polled_at.map(|at| (at.to_jiff(), row.poll_error));
        (row.uid, Told { is_verified: row.verified, is_disabled: row.is_disabled, newest, polled })
    });
    Ok(told.collect())
}
