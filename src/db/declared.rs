//! The table `declared_sets`: whether a list of objects is at least as new as what its table was last brought
//! in line with. Operators that overlap, or one that comes to after a pause, take turns here.

use sqlx::PgConnection;

use super::Result;

/// Takes the turn until the transaction ends. `false`: a newer list has been declared, and this one
/// must not be.
///
/// # Errors
/// When the statement fails.
pub(super) async fn is_newest(conn: &mut PgConnection, kind: &str, resource_version: i64) -> Result<bool> {
    let taken = sqlx::query!(
        "insert into declared_sets as stored (kind, resource_version) values ($1, $2)
         on conflict on constraint declared_sets_pkey do update
         set resource_version = excluded.resource_version, declared_at = now()
         where stored.resource_version <= excluded.resource_version",
        kind,
        resource_version
    )
    .execute(conn)
    .await?;
    Ok(taken.rows_affected() == 1)
}
