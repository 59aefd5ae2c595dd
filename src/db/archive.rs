//! What is told of builds to those who ask: attempts with what happened to them, whether their Build
//! still exists or not. Everything is looked up for one tenant, by the UID of its namespace, since a
//! name can be used again. Rows are given as JSON under the names of their columns, which are a public
//! contract already.

use image_factory_core::status::Status;
use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;

use super::Result;

/// Whose build it is: whoever asks by id is asked for rights there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub tenant_uid: String,
    pub namespace: String,
    pub name: String,
}

/// `None`: there is no such build.
///
/// # Errors
/// When the query fails.
pub async fn place(pool: &PgPool, build: Uuid) -> Result<Option<Place>> {
    Ok(sqlx::query_as!(
        Place,
        "select t.uid as tenant_uid, b.resource_namespace as namespace, b.resource_name as name
         from builds b join tenants t on t.id = b.tenant_id where b.id = $1",
        build
    )
    .fetch_optional(pool)
    .await?)
}

/// The newest attempt of a Build of this name; of this run, and this attempt of it, where given.
///
/// # Errors
/// When the query fails.
pub async fn newest(
    pool: &PgPool,
    tenant_uid: &str,
    name: &str,
    run: Option<i32>,
    attempt: Option<i32>,
) -> Result<Option<Uuid>> {
    Ok(sqlx::query_scalar!(
        "select id from builds
         where tenant_id = (select id from tenants where uid = $1) and resource_name = $2
             and ($3::int is null or run = $3) and ($4::int is null or attempt = $4)
         order by id desc limit 1",
        tenant_uid,
        name,
        run,
        attempt
    )
    .fetch_optional(pool)
    .await?)
}

/// Which attempts of a tenant are asked for.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub status: Option<Status>,
    pub project: Option<String>,
    pub name: Option<String>,
    /// Only those made before this one.
    pub before: Option<Uuid>,
}

/// Ids of at most `limit` attempts, newest first. What narrows most has a statement of its own, which an index serves:
/// `db/sql/listed*.sql`.
///
/// # Errors
/// When the query fails.
pub async fn ids(pool: &PgPool, tenant_uid: &str, filter: &Filter, limit: i64) -> Result<Vec<Uuid>> {
    // No `..`: a new field can't be forgotten.
    let Filter { status, project, name, before } = filter;
    let (status, project, before) = (status.map(Status::as_str), project.as_deref(), *before);
    let ids = match (name, status, project) {
        (Some(name), ..) => {
            sqlx::query_file_scalar!("src/db/sql/listed_by_name.sql", tenant_uid, before, limit, name, status, project)
                .fetch_all(pool)
                .await
        }
        (None, Some(status), Some(project)) => {
            sqlx::query_file_scalar!(
                "src/db/sql/listed_by_project_and_status.sql",
                tenant_uid,
                before,
                limit,
                project,
                status
            )
            .fetch_all(pool)
            .await
        }
        (None, Some(status), None) => {
            sqlx::query_file_scalar!("src/db/sql/listed_by_status.sql", tenant_uid, before, limit, status)
                .fetch_all(pool)
                .await
        }
        (None, None, Some(project)) => {
            sqlx::query_file_scalar!("src/db/sql/listed_by_project.sql", tenant_uid, before, limit, project)
                .fetch_all(pool)
                .await
        }
        (None, None, None) => {
            sqlx::query_file_scalar!("src/db/sql/listed.sql", tenant_uid, before, limit).fetch_all(pool).await
        }
    };
    Ok(ids?)
}

/// These attempts, newest first: `db/sql/described.sql`.
///
/// # Errors
/// When the query fails.
pub async fn described(pool: &PgPool, builds: &[Uuid]) -> Result<Vec<Value>> {
    Ok(sqlx::query_file_scalar!("src/db/sql/described.sql", builds).fetch_all(pool).await?)
}

/// The place of a queued attempt in the queue; null for any other.
///
/// # Errors
/// When the query fails.
pub async fn queue_place(pool: &PgPool, build: Uuid) -> Result<Value> {
    let place = sqlx::query_file_scalar!("src/db/sql/queue_place.sql", build).fetch_optional(pool).await?;
    Ok(place.unwrap_or_default())
}

/// Rows of `build_steps`, and the number of the last where others follow.
#[derive(Clone, Debug, PartialEq)]
pub struct Steps {
    pub rows: Vec<Value>,
    pub next: Option<i32>,
}

/// The steps after this one in their order: one at least where there is one, at most `limit`, and as many as make
/// `bytes`: `db/sql/steps_page.sql`. What all of them printed may be more than anyone should hold at once.
///
/// # Errors
/// When the query fails.
pub async fn steps(pool: &PgPool, build: Uuid, after: i32, limit: i64, bytes: i64) -> Result<Steps> {
    let rows = sqlx::query_file!("src/db/sql/steps_page.sql", build, after, limit, bytes).fetch_all(pool).await?;
    let is_more = rows.last().is_some_and(|last| i64::try_from(rows.len()).is_ok_and(|count| count < last.remaining));
    let next = rows.last().filter(|_| is_more).map(|last| last.step_number);
    Ok(Steps { rows: rows.into_iter().map(|row| row.row).collect(), next })
}

/// The rows of `build_status_history`, in their order.
///
/// # Errors
/// When the query fails.
pub async fn history(pool: &PgPool, build: Uuid) -> Result<Vec<Value>> {
    Ok(sqlx::query_scalar!(
        "select to_jsonb(r) - 'id' - 'build_id' - 'changed_by_user_id' as \"row!\"
         from build_status_history r where build_id = $1 order by sequence",
        build
    )
    .fetch_all(pool)
    .await?)
}

/// The rows of `build_results` and `build_metrics`, null where there is none, and of `build_artifacts`.
///
/// # Errors
/// When the query fails.
pub async fn results(pool: &PgPool, build: Uuid) -> Result<Value> {
    Ok(sqlx::query_scalar!(
        "select jsonb_build_object(
             'result', (select to_jsonb(r) - 'id' - 'build_id' - 'project_id' - 'output_image_id' - 'counted_at'
                        from build_results r where r.build_id = $1),
             'metrics', (select to_jsonb(m) - 'id' - 'build_id' from build_metrics m where m.build_id = $1),
             'artifacts', (select coalesce(jsonb_agg(to_jsonb(a) - 'id' - 'build_id' - 'project_id' - 'image_id'
                               order by a.artifact_type, a.artifact_name), '[]')
                           from build_artifacts a where a.build_id = $1)
         ) as \"results!\"",
        build
    )
    .fetch_one(pool)
    .await?)
}
