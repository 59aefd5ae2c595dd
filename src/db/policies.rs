//! The table `build_concurrency_policies`: the limits tenants have declared.

use sqlx::PgPool;
use uuid::Uuid;

use super::Result;
use crate::clock;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub tenant_uid: String,
    pub tenant_name: String,
    /// `None`: the operator's default.
    pub max_concurrent_builds: Option<i32>,
}

/// Makes the table hold exactly these policies. They take effect with the next claim, which this
/// wakes where something has changed.
///
/// # Errors
/// When a statement fails; nothing is changed then.
pub async fn declare(pool: &PgPool, policies: &[Policy]) -> Result<()> {
    let uids: Vec<String> = policies.iter().map(|policy| policy.tenant_uid.clone()).collect();
    let names: Vec<String> = policies.iter().map(|policy| policy.tenant_name.clone()).collect();
    let limits: Vec<Option<i32>> = policies.iter().map(|policy| policy.max_concurrent_builds).collect();
    let new_ids = || -> Vec<Uuid> { policies.iter().map(|_| clock::new_id()).collect() };
    let mut tx = pool.begin().await?;
    sqlx::query!(
        "insert into tenants (id, uid, name)
         select * from unnest($1::uuid[], $2::text[], $3::text[])
         on conflict on constraint tenants_uid_key do nothing",
        &new_ids(),
        &uids,
        &names
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query_file!("src/db/sql/policies.sql", &new_ids(), &uids, &limits as &[Option<i32>]).fetch_one(&mut *tx).await?;
    tx.commit().await?;
    Ok(())
}
