//! The table `build_concurrency_policies`: the limits tenants have declared.

use std::collections::BTreeMap;

use image_factory_core::method::Method;
use sqlx::PgPool;
use uuid::Uuid;

use super::{Result, builds, declared, queue::take_turn};
use crate::clock;

/// `None` is the operator's default, or no limit where it has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    pub tenant_uid: String,
    pub tenant_name: String,
    pub max_concurrent_builds: Option<i32>,
    pub max_concurrent_per_project: Option<i32>,
    pub max_concurrent_by_method: BTreeMap<Method, i32>,
    pub priority_dispatch: bool,
    pub max_queued_wait_minutes: Option<i32>,
    pub weight: i32,
}

/// Makes the table hold exactly these policies, listed at `resource_version`. No claim that commits later goes by
/// others: this takes the claim's turn. It wakes one where something has changed. `false`: a newer list has been
/// declared, and nothing is changed.
///
/// # Errors
/// When a statement fails; nothing is changed then.
pub async fn declare(pool: &PgPool, policies: &[Policy], resource_version: i64) -> Result<bool> {
    let texts =
        |field: fn(&Policy) -> &str| -> Vec<String> { policies.iter().map(|one| field(one).to_owned()).collect() };
    let numbers = |field: &dyn Fn(&Policy) -> Option<i32>| -> Vec<Option<i32>> { policies.iter().map(field).collect() };
    let method = |method| numbers(&|policy: &Policy| policy.max_concurrent_by_method.get(&method).copied());
    let uids = texts(|policy| &policy.tenant_uid);
    let mut tx = pool.begin().await?;
    take_turn(&mut tx).await?;
    if !declared::is_newest(&mut tx, "policies", resource_version).await? {
        return Ok(false);
    }
    builds::tenants(&mut tx, &uids, &texts(|policy| &policy.tenant_name)).await?;
    sqlx::query_file!(
        "src/db/sql/policies.sql",
        &policies.iter().map(|_| clock::new_id()).collect::<Vec<Uuid>>(),
        &uids,
        &numbers(&|policy| policy.max_concurrent_builds) as &[Option<i32>],
        &numbers(&|policy| policy.max_concurrent_per_project) as &[Option<i32>],
        &method(Method::Kaniko) as &[Option<i32>],
        &method(Method::Buildx) as &[Option<i32>],
        &method(Method::Container) as &[Option<i32>],
        &method(Method::Packer) as &[Option<i32>],
        &method(Method::Paketo) as &[Option<i32>],
        &policies.iter().map(|policy| policy.priority_dispatch).collect::<Vec<bool>>(),
        &numbers(&|policy| policy.max_queued_wait_minutes) as &[Option<i32>],
        &policies.iter().map(|policy| policy.weight).collect::<Vec<i32>>()
    )
    .fetch_one(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(true)
}
