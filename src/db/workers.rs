//! The table `build_workers`: where builds run.

use sqlx::{PgConnection, PgPool};

use super::Result;
use crate::clock;

/// Name of the worker that serves every tenant on any node of the cluster.
pub const BUILT_IN: &str = "cluster";

/// Declares the built-in worker, or changes how many builds it takes. The operator that says so
/// runs in the cluster, which is what makes this worker healthy: each call is a heartbeat.
///
/// # Errors
/// When the statement fails.
pub async fn declare_built_in(pool: &PgPool, concurrent_builds: i32) -> Result<()> {
    sqlx::query!(
        "insert into build_workers (id, tenant_id, worker_name, worker_type, concurrent_builds_limit, status, last_heartbeat)
         values ($1, null, $2, 'kubernetes', $3, 'healthy', now())
         on conflict on constraint build_workers_tenant_id_worker_name_key do update
         set concurrent_builds_limit = excluded.concurrent_builds_limit,
             last_heartbeat = excluded.last_heartbeat,
             status = case when build_workers.current_builds_count >= excluded.concurrent_builds_limit
                      then 'busy' else 'healthy' end",
        clock::new_id(),
        BUILT_IN,
        concurrent_builds
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Brings `current_builds_count`, and with it healthy or busy, in line with the builds that run.
///
/// # Errors
/// When the statement fails.
pub async fn count_running(conn: &mut PgConnection) -> Result<()> {
    sqlx::query!(
        "update build_workers w
         set current_builds_count = c.running,
             status = case when w.status in ('healthy', 'busy')
                      then case when c.running >= w.concurrent_builds_limit then 'busy' else 'healthy' end
                      else w.status end
         from (select w.id, (select count(*) from builds b where b.worker_id = w.id and b.status = 'in_progress')::int as running
               from build_workers w) c
         where c.id = w.id and w.current_builds_count <> c.running"
    )
    .execute(conn)
    .await?;
    Ok(())
}
