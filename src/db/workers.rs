//! The table `build_workers`: where builds run; and `build_worker_outages`, when they could not.
//!
//! Whoever changes several of its rows takes the claim's turn first: two that change the same rows in
//! another order would wait for each other.

use std::collections::BTreeMap;

use image_factory_core::{method::Method, worker_health::Health};
use jiff::Timestamp;
use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool};

use super::{Error, Result, builds, declared, queue::take_turn};
use crate::{
    clock,
    crd::build_worker::{Toleration, WorkerState},
};

/// Name of the worker that serves every tenant on any node of the cluster.
pub const BUILT_IN: &str = "cluster";

/// A worker as its BuildWorker and its nodes have it.
#[derive(Clone, Debug, PartialEq)]
pub struct Declared {
    /// `None`: serves every tenant.
    pub tenant: Option<TenantName>,
    pub name: String,
    pub concurrent_builds: i32,
    pub zone: Option<String>,
    pub labels: BTreeMap<String, String>,
    /// Empty: all.
    pub methods: Vec<Method>,
    pub cordoned: bool,
    pub node_selector: BTreeMap<String, String>,
    pub tolerations: Vec<Toleration>,
    pub health: Health,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TenantName {
    pub name: String,
    pub uid: String,
}

/// A row as the statement reads it.
fn row(worker: &Declared) -> Value {
    let Declared {
        tenant,
        name,
        concurrent_builds,
        zone,
        labels,
        methods,
        cordoned,
        node_selector,
        tolerations,
        health,
    } = worker;
    let (health, message) = match health {
        Health::Healthy => ("healthy", None),
        Health::Degraded(message) => ("degraded", Some(message)),
        Health::Offline(message) => ("offline", Some(message)),
    };
    json!({
        "id": clock::new_id(), "tenant_uid": tenant.as_ref().map(|tenant| &tenant.uid), "name": name,
        "concurrent_builds": concurrent_builds, "zone": zone, "labels": labels, "methods": methods,
        "cordoned": cordoned, "node_selector": node_selector, "tolerations": tolerations,
        "health": health, "message": message,
    })
}

/// Makes the table declare exactly these workers, listed at `resource_version`. They take builds, or take
/// none any more, with the next claim, which this wakes where something has changed. `false`: a newer list
/// has been declared, and nothing is changed.
///
/// # Errors
/// When a statement fails; nothing is changed then.
pub async fn declare(pool: &PgPool, workers: &[Declared], resource_version: i64) -> Result<bool> {
    let tenants: Vec<&TenantName> = workers.iter().filter_map(|worker| worker.tenant.as_ref()).collect();
    let uids: Vec<String> = tenants.iter().map(|tenant| tenant.uid.clone()).collect();
    let names: Vec<String> = tenants.iter().map(|tenant| tenant.name.clone()).collect();
    let rows: Value = workers.iter().map(row).collect();
    let mut tx = pool.begin().await?;
    take_turn(&mut tx).await?;
    if !declared::is_newest(&mut tx, "workers", resource_version).await? {
        return Ok(false);
    }
    builds::tenants(&mut tx, &uids, &names).await?;
    sqlx::query_file!("src/db/sql/workers.sql", rows).fetch_one(&mut *tx).await?;
    sqlx::query_file!("src/db/sql/worker_outages.sql").execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(true)
}

/// Declares the built-in worker, or changes how many builds it takes. The operator that says so runs in
/// the cluster, which is what makes this worker healthy: Kubernetes finds the node, or makes one. Then
/// notes that every worker which is not offline was seen, and how much of its time each was not.
///
/// # Errors
/// When a statement fails; nothing is changed then.
pub async fn beat(pool: &PgPool, built_in_builds: i32) -> Result<()> {
    let mut tx = pool.begin().await?;
    take_turn(&mut tx).await?;
    sqlx::query!(
        "insert into build_workers (id, tenant_id, worker_name, worker_type, concurrent_builds_limit, status)
         values ($1, null, $2, 'kubernetes', $3, 'healthy')
         on conflict on constraint build_workers_tenant_id_worker_name_key do update
         set concurrent_builds_limit = excluded.concurrent_builds_limit,
             status = case when build_workers.current_builds_count >= excluded.concurrent_builds_limit
                      then 'busy' else 'healthy' end",
        clock::new_id(),
        BUILT_IN,
        built_in_builds
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query_file!("src/db/sql/worker_heartbeat.sql").execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(())
}

/// Brings `current_builds_count`, and with it healthy or busy, in line with the builds that run.
///
/// # Errors
/// When the statement fails.
pub async fn count_running(conn: &mut PgConnection) -> Result<()> {
    sqlx::query_file!("src/db/sql/count_running.sql").execute(conn).await?;
    Ok(())
}

/// A declared worker as people see it.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// UID of its tenant; `None` for one that serves every tenant.
    pub tenant_uid: Option<String>,
    pub name: String,
    pub state: WorkerState,
    /// Why it is degraded or offline.
    pub message: Option<String>,
    /// Builds that run on it.
    pub running: i32,
    pub last_heartbeat: Option<Timestamp>,
    pub uptime_percent: Option<f64>,
    /// Since when it is offline, or is not.
    pub since: Timestamp,
}

/// The declared workers as they are now.
///
/// # Errors
/// When the query fails or a row holds what this version does not know.
pub async fn states(pool: &PgPool) -> Result<Vec<State>> {
    let rows = sqlx::query!(
        r#"select t.uid as "tenant_uid?", w.worker_name, w.status, w.message, w.current_builds_count, w.last_heartbeat,
                  w.uptime_percent::float8 as uptime_percent, coalesce(o.began_at, o.ended_at, w.created_at) as "since!"
           from build_workers w
           left join tenants t on t.id = w.tenant_id
           left join lateral (
               select max(began_at) filter (where ended_at is null) as began_at, max(ended_at) as ended_at
               from build_worker_outages
               where worker_id = w.id
           ) o on true
           where w.declared"#
    )
    .fetch_all(pool)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(State {
                tenant_uid: row.tenant_uid,
                name: row.worker_name,
                state: state(&row.status)?,
                message: row.message,
                running: row.current_builds_count,
                last_heartbeat: row.last_heartbeat.map(jiff_sqlx::Timestamp::to_jiff),
                uptime_percent: row.uptime_percent,
                since: row.since.to_jiff(),
            })
        })
        .collect()
}

fn state(text: &str) -> Result<WorkerState> {
    match text {
        "healthy" => Ok(WorkerState::Healthy),
        "busy" => Ok(WorkerState::Busy),
        "degraded" => Ok(WorkerState::Degraded),
        "offline" => Ok(WorkerState::Offline),
        other => Err(Error::Row(format!("unknown status of a worker: {other:?}"))),
    }
}
