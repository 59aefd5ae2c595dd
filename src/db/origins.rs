//! Which slot of a schedule or delivery of a webhook a Build was made for. The row is there first and
//! names the Build; the Build's annotation [`ORIGIN`](image_factory_core::labels::ORIGIN) names the row;
//! and the first attempt takes it, once.

use sqlx::PgConnection;
use uuid::Uuid;

use super::{Result, builds::Trigger};

/// The trigger of an attempt of the Build of this name, if `origin` is a row of the tenant that a Build
/// of this name was to be made for, and that no attempt has taken yet.
///
/// # Errors
/// When the statement fails.
pub(super) async fn claim(
    conn: &mut PgConnection,
    build: Uuid,
    origin: Uuid,
    tenant: Uuid,
    name: &str,
) -> Result<Option<Trigger>> {
    let row =
        sqlx::query_file!("src/db/sql/claim_origin.sql", build, origin, tenant, name).fetch_optional(conn).await?;
    Ok(row.map(|row| Trigger { kind: row.kind, source: row.source, user: None }))
}
