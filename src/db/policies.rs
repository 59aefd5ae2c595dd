//! The table `build_concurrency_policies`: the limits a tenant has declared.

use sqlx::PgPool;

use super::Result;
use crate::clock;

/// Declares the policy of a tenant. Takes effect with the next claim, which it wakes.
///
/// # Errors
/// When a statement fails; nothing is changed then.
pub async fn declare(pool: &PgPool, tenant_uid: &str, tenant_name: &str, max_concurrent_builds: Option<i32>) -> Result<()> {
    let mut tx = pool.begin().await?;
    let tenant = super::builds::tenant(&mut tx, tenant_uid, tenant_name).await?;
    sqlx::query!(
        "with declared as (
             insert into build_concurrency_policies (id, tenant_id, max_concurrent_builds) values ($1, $2, $3)
             on conflict on constraint build_concurrency_policies_tenant_id_key do update
             set max_concurrent_builds = excluded.max_concurrent_builds
             where build_concurrency_policies.max_concurrent_builds is distinct from excluded.max_concurrent_builds
             returning tenant_id
         )
         select pg_notify('image_factory_status', '')::text as notified from declared",
        clock::new_id(),
        tenant,
        max_concurrent_builds
    )
    .fetch_optional(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(())
}

/// Forgets the policy of the tenant with this name: the operator's defaults hold again.
///
/// # Errors
/// When the statement fails.
pub async fn remove(pool: &PgPool, tenant_name: &str) -> Result<()> {
    sqlx::query!(
        "with removed as (
             delete from build_concurrency_policies p using tenants t
             where p.tenant_id = t.id and t.name = $1
             returning p.tenant_id
         )
         select pg_notify('image_factory_status', '')::text as notified from removed limit 1",
        tenant_name
    )
    .fetch_optional(pool)
    .await?;
    Ok(())
}
