//! The fewest rows a test of the schema needs. Ids are the md5 of a name, so that a statement can say which row it
//! means: `md5('green/a')::uuid`.

use sqlx::PgPool;

/// Two tenants, `green` and `amber`, each with a project, an image, a worker, a webhook and a schedule of its own,
/// all under the tenant's name; and the shared worker `everyone`.
pub async fn two_tenants(pool: &PgPool) -> sqlx::Result<()> {
    sqlx::raw_sql(
        "insert into tenants (id, uid, name) values (md5('green')::uuid, 'uid-green', 'green'), (md5('amber')::uuid, 'uid-amber', 'amber');
         insert into projects (id, tenant_id, name) select id, id, 'paint' from tenants;
         insert into images (id, project_id, repository, tag) select id, id, 'registry.test/' || name, '1' from tenants;
         insert into build_workers (id, tenant_id, worker_name, worker_type, concurrent_builds_limit, status, declared)
             select id, id, 'own', 'kubernetes', 10, 'offline', true from tenants;
         insert into build_workers (id, tenant_id, worker_name, worker_type, concurrent_builds_limit, status, declared)
             values (md5('everyone')::uuid, null, 'everyone', 'kubernetes', 10, 'healthy', true);
         insert into webhook_configs (id, tenant_id, project_id, webhook_name) select id, id, id, 'hook' from tenants;
         insert into build_schedules (id, tenant_id, project_id, schedule_name, cron_expression, build_method, build_config_preset)
             select id, id, id, 'nightly', '0 2 * * *', 'buildx', '{}' from tenants;",
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// A queued build `<tenant>/<name>` with a Build of its own, the `minute`-th of its day, `priority` as told.
pub async fn queued(pool: &PgPool, tenant: &str, name: &str, minute: i32, priority: i32) -> sqlx::Result<()> {
    sqlx::query(
        "with b as (
             insert into builds (id, tenant_id, project_id, image_id, build_number, status, resource_namespace, resource_name,
                 resource_uid, run, attempt, inputs_hash, observed_generation, priority, build_method, queued_at)
             select md5($1 || '/' || $2)::uuid, md5($1)::uuid, md5($1)::uuid, md5($1)::uuid,
                 (select count(*) + 1 from builds where tenant_id = md5($1)::uuid), 'queued', $1, $2, 'uid-' || $1 || '/' || $2, 1, 1, 'h', 1, $4, 'container',
                 timestamptz '2030-01-01 00:00Z' + make_interval(mins => $3)
             returning id)
         insert into build_configs (id, build_id, build_method, spec) select id, id, 'container', '{}' from b",
    )
    .bind(tenant)
    .bind(name)
    .bind(minute)
    .bind(priority)
    .execute(pool)
    .await?;
    Ok(())
}

/// Claims a build that `queued` made, for the worker of that name (`green`, `amber` or `everyone`).
pub async fn claimed(pool: &PgPool, build: &str, worker: &str) -> sqlx::Result<()> {
    let done = sqlx::query(
        "update builds set status = 'in_progress', started_at = now(), worker_id = md5($2)::uuid
         where id = md5($1)::uuid and status = 'queued'",
    )
    .bind(build)
    .bind(worker)
    .execute(pool)
    .await?;
    assert_eq!(done.rows_affected(), 1, "{build} was not queued");
    Ok(())
}

/// The constraint that refused a statement; panics where none did.
pub fn refused_by<T>(outcome: sqlx::Result<T>, statement: &str) -> String {
    match outcome {
        Ok(_) => unreachable!("was not refused: {statement}"),
        Err(error) => error
            .as_database_error()
            .and_then(|e| e.constraint())
            .map_or_else(|| unreachable!("was refused by no constraint but by: {error}"), ToOwned::to_owned),
    }
}
