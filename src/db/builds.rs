//! The table `builds` with what belongs to an attempt from its first moment: `build_configs`,
//! `build_triggers` and the first row of `build_status_history`.

mod newest;

use image_factory_core::{method::Method, placement::Placement, reason::Reason, status::Status};
use serde_json::Value;
use sqlx::{PgConnection, PgPool, types::Json};
use uuid::Uuid;

pub use self::newest::{Newest, PushedImage, QueuePlace, Steps, newest, newest_of};
use super::{Error, Result, origins, transitions};
use crate::{clock, failpoint};

/// The custom resource an attempt belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub generation: i64,
}

/// Everything an attempt is made of. Rows of tenant, project, image and user appear on first use.
#[derive(Clone, Debug)]
pub struct NewAttempt {
    pub tenant_uid: String,
    pub resource: Resource,
    pub project: String,
    pub repository: String,
    pub tag: String,
    pub run: i32,
    pub attempt: i32,
    pub inputs_hash: String,
    pub observed_rerun: Option<String>,
    pub priority: i32,
    /// Which workers may take it; `None` for any.
    pub placement: Option<Placement>,
    pub config: NewConfig,
    pub trigger: Trigger,
    /// The slot or delivery the Build says that it was made for; if that is true, it is the trigger.
    pub origin: Option<Uuid>,
    /// A spec that is refused has its row too: null → queued → failed at once.
    pub refused: Option<(Reason, String)>,
}

/// `build_configs`.
#[derive(Clone, Debug)]
pub struct NewConfig {
    pub method: Method,
    pub dockerfile: Option<String>,
    pub context: Option<String>,
    pub cache_enabled: bool,
    pub cache_repo: Option<String>,
    pub metadata: Value,
    pub platforms: Option<Value>,
    pub cache_from: Option<Value>,
    pub cache_to: Option<Value>,
    pub target: Option<String>,
    pub builder: Option<String>,
    pub buildpacks: Option<Value>,
    pub packer_template: Option<String>,
    pub build_args: Value,
    pub environment: Value,
    /// References to Secrets, never values.
    pub secrets: Value,
    pub spec: Value,
}

/// `build_triggers`.
#[derive(Clone, Debug)]
pub struct Trigger {
    /// manual, webhook, schedule or git_event.
    pub kind: String,
    pub source: String,
    /// Who did it, where the cluster can tell.
    pub user: Option<String>,
}

/// Inserts an attempt. `None`: this run and attempt already has its row (another operator was
/// faster); nothing is changed then.
///
/// # Errors
/// When a statement fails; nothing is inserted then.
pub async fn enqueue(pool: &PgPool, new: &NewAttempt) -> Result<Option<Uuid>> {
    let mut tx = pool.begin().await?;
    let id = clock::new_id();
    if new.run > 1 {
        supersede(&mut tx, &new.resource.uid, new.run).await?;
    }
    match insert(&mut tx, id, new).await {
        Ok(()) => {}
        Err(error) if error.breaks("builds_resource_uid_run_attempt_key") => return Ok(None),
        Err(error) => return Err(error),
    }
    if let Some((reason, message)) = &new.refused {
        let change = transitions::Change {
            build: id,
            reason: format!("{reason}: {message}"),
            message: Some(message.clone()),
            ..transitions::Change::default()
        };
        transitions::apply(&mut tx, Status::Queued, Status::Failed, &[change]).await?;
        super::results::insert_unstarted(&mut tx, &[id], Status::Failed.as_str(), *reason).await?;
    }
    failpoint::statement("enqueue.before-commit")?;
    tx.commit().await?;
    failpoint::statement("enqueue.after-commit")?;
    Ok(Some(id))
}

async fn insert(conn: &mut PgConnection, id: Uuid, new: &NewAttempt) -> Result<()> {
    let tenant = tenant(conn, &new.tenant_uid, &new.resource.namespace).await?;
    let user = match &new.trigger.user {
        Some(username) => Some(user(conn, username).await?),
        None => None,
    };
    // The project's row is locked to the end of the transaction: numbers have no gap and no double.
    let project = sqlx::query!(
        "insert into projects (id, tenant_id, name, next_build_number) values ($1, $2, $3, 2)
         on conflict on constraint projects_tenant_id_name_key
         do update set next_build_number = projects.next_build_number + 1
         returning id, next_build_number - 1 as \"number!\"",
        clock::new_id(),
        tenant,
        new.project
    )
    .fetch_one(&mut *conn)
    .await?;
    let image = sqlx::query_scalar!(
        "insert into images (id, project_id, repository, tag) values ($1, $2, $3, $4)
         on conflict on constraint images_project_id_repository_tag_key do update set tag = excluded.tag
         returning id",
        clock::new_id(),
        project.id,
        new.repository,
        new.tag
    )
    .fetch_one(&mut *conn)
    .await?;
    sqlx::query!(
        "insert into builds (id, tenant_id, project_id, image_id, build_number, triggered_by_user_id, status,
             resource_namespace, resource_name, resource_uid, run, attempt, inputs_hash, observed_rerun,
             observed_generation, priority, build_method, placement, queued_at)
         values ($1, $2, $3, $4, $5, $6, 'queued', $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, now())",
        id,
        tenant,
        project.id,
        image,
        project.number,
        user,
        new.resource.namespace,
        new.resource.name,
        new.resource.uid,
        new.run,
        new.attempt,
        new.inputs_hash,
        new.observed_rerun,
        new.resource.generation,
        new.priority,
        new.config.method.as_str(),
        new.placement.as_ref().map(Json) as Option<Json<&Placement>>
    )
    .execute(&mut *conn)
    .await?;
    insert_config(conn, id, &new.config).await?;
    let claimed = match new.origin {
        Some(origin) => origins::claim(conn, id, origin, tenant, &new.resource.name).await?,
        None => None,
    };
    let trigger = claimed.as_ref().unwrap_or(&new.trigger);
    // Nobody asked for what was made for a slot or a delivery.
    let user = if claimed.is_some() { None } else { user };
    sqlx::query_file!(
        "src/db/sql/first_rows.sql",
        id,
        clock::new_id(),
        trigger.kind,
        trigger.source,
        user,
        clock::new_id(),
        format!("run {} was made: {} ({})", new.run, trigger.kind, trigger.source)
    )
    .fetch_one(&mut *conn)
    .await?;
    Ok(())
}

pub(super) async fn tenant(conn: &mut PgConnection, uid: &str, name: &str) -> Result<Uuid> {
    Ok(sqlx::query_scalar!(
        "insert into tenants (id, uid, name) values ($1, $2, $3)
         on conflict on constraint tenants_uid_key do update set name = excluded.name
         returning id",
        clock::new_id(),
        uid,
        name
    )
    .fetch_one(conn)
    .await?)
}

/// A project of a tenant, made on first use.
pub(super) async fn project(conn: &mut PgConnection, tenant: Uuid, name: &str) -> Result<Uuid> {
    sqlx::query!(
        "insert into projects (id, tenant_id, name) values ($1, $2, $3)
         on conflict on constraint projects_tenant_id_name_key do nothing",
        clock::new_id(),
        tenant,
        name
    )
    .execute(&mut *conn)
    .await?;
    Ok(sqlx::query_scalar!("select id from projects where tenant_id = $1 and name = $2", tenant, name)
        .fetch_one(conn)
        .await?)
}

/// The same for all of these at once, without their ids; a name that has changed waits for the next build.
pub(super) async fn tenants(conn: &mut PgConnection, uids: &[String], names: &[String]) -> Result<()> {
    let ids: Vec<Uuid> = uids.iter().map(|_| clock::new_id()).collect();
    sqlx::query!(
        "insert into tenants (id, uid, name)
         select * from unnest($1::uuid[], $2::text[], $3::text[])
         on conflict on constraint tenants_uid_key do nothing",
        &ids,
        uids,
        names
    )
    .execute(conn)
    .await?;
    Ok(())
}

async fn user(conn: &mut PgConnection, username: &str) -> Result<Uuid> {
    Ok(sqlx::query_scalar!(
        "insert into users (id, username) values ($1, $2)
         on conflict on constraint users_username_key do update set username = excluded.username
         returning id",
        clock::new_id(),
        username
    )
    .fetch_one(conn)
    .await?)
}

async fn insert_config(conn: &mut PgConnection, build: Uuid, config: &NewConfig) -> Result<()> {
    // No `..`: a new field can't be forgotten.
    let NewConfig {
        method,
        dockerfile,
        context,
        cache_enabled,
        cache_repo,
        metadata,
        platforms,
        cache_from,
        cache_to,
        target,
        builder,
        buildpacks,
        packer_template,
        build_args,
        environment,
        secrets,
        spec,
    } = config;
    sqlx::query!(
        "insert into build_configs (id, build_id, build_method, dockerfile, build_context, cache_enabled, cache_repo,
             metadata, platforms, cache_from, cache_to, target_stage, builder, buildpacks, packer_template,
             build_args, environment, secrets, spec)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)",
        clock::new_id(),
        build,
        method.as_str(),
        dockerfile.as_deref(),
        context.as_deref(),
        cache_enabled,
        cache_repo.as_deref(),
        metadata,
        platforms.as_ref(),
        cache_from.as_ref(),
        cache_to.as_ref(),
        target.as_deref(),
        builder.as_deref(),
        buildpacks.as_ref(),
        packer_template.as_deref(),
        build_args,
        environment,
        secrets,
        spec
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What may change under a live attempt, and the `metadata.generation` that says so.
#[derive(Clone, Debug)]
pub struct Amendment {
    pub priority: i32,
    pub placement: Option<Placement>,
    pub spec: Value,
    pub generation: i64,
}

/// Has the live attempts of a Build go by a changed spec of the same inputs, and wakes the dispatcher. An attempt that
/// runs does so with what it was started with, its place and its timeout: it takes on only what follows its end,
/// retries and retention. What was read before a newer change is left alone.
///
/// # Errors
/// When the statement fails.
pub async fn amend(pool: &PgPool, resource_uid: &str, to: &Amendment) -> Result<()> {
    sqlx::query!(
        "with amended as (
             update builds
             set priority = $2, placement = case status when 'queued' then $3 else placement end, observed_generation = $4
             where resource_uid = $1 and status in ('queued', 'in_progress') and observed_generation < $4
             returning id, status
         ),
         config as (
             update build_configs
             set spec = case amended.status
                     when 'queued' then $5
                     else spec - array['retries', 'retention'] || jsonb_strip_nulls(jsonb_build_object(
                         'retries', $5::jsonb -> 'retries', 'retention', $5::jsonb -> 'retention'))
                 end
             from amended
             where build_id = amended.id
         )
         select pg_notify('image_factory_status', '')::text as notified from amended",
        resource_uid,
        to.priority,
        to.placement.as_ref().map(Json) as Option<Json<&Placement>>,
        to.generation,
        to.spec
    )
    .fetch_all(pool)
    .await?;
    Ok(())
}

pub(super) fn status(text: &str) -> Result<Status> {
    text.parse().map_err(|error: image_factory_core::status::UnknownStatus| Error::Row(error.to_string()))
}

pub(super) fn method(text: &str) -> Result<Method> {
    text.parse().map_err(|error: image_factory_core::method::UnknownMethod| Error::Row(error.to_string()))
}

/// Asks every live attempt of a Build to stop: a queued one is cancelled at once, with its result;
/// a running one is marked for the dispatcher, which deletes its Job. Gives how many were cancelled
/// or newly marked.
///
/// # Errors
/// When a statement fails; nothing is changed then.
pub async fn request_cancel(pool: &PgPool, resource_uid: &str, reason: Reason, sentence: &str) -> Result<usize> {
    request(pool, resource_uid, Which::All, reason, sentence).await
}

/// The same because `spec.cancel` is true in this generation: what a newer one has asked for goes on.
///
/// # Errors
/// When a statement fails; nothing is changed then.
pub async fn request_cancel_of(pool: &PgPool, resource_uid: &str, generation: i64) -> Result<usize> {
    request(pool, resource_uid, Which::UpToGeneration(generation), Reason::Cancelled, "spec.cancel is true").await
}

/// Which of a Build's live attempts shall stop.
enum Which {
    All,
    BeforeRun(i32),
    UpToGeneration(i64),
}

async fn request(pool: &PgPool, resource_uid: &str, which: Which, reason: Reason, sentence: &str) -> Result<usize> {
    let mut tx = pool.begin().await?;
    let count = cancel(&mut tx, resource_uid, which, reason, sentence).await?;
    if count > 0 {
        failpoint::statement("cancel.before-commit")?;
    }
    tx.commit().await?;
    if count > 0 {
        failpoint::statement("cancel.after-commit")?;
    }
    Ok(count)
}

/// A new run cancels the live attempts of the runs before it.
async fn supersede(conn: &mut PgConnection, resource_uid: &str, run: i32) -> Result<()> {
    let sentence = format!("run {run} takes its place");
    cancel(conn, resource_uid, Which::BeforeRun(run), Reason::Superseded, &sentence).await?;
    Ok(())
}

async fn cancel(
    conn: &mut PgConnection,
    resource_uid: &str,
    which: Which,
    reason: Reason,
    sentence: &str,
) -> Result<usize> {
    super::runs::take_turn(conn, resource_uid).await?;
    let (before_run, generation) = match which {
        Which::All => (None, None),
        Which::BeforeRun(run) => (Some(run), None),
        Which::UpToGeneration(generation) => (None, Some(generation)),
    };
    let marked = sqlx::query_file!("src/db/sql/stop_asked.sql", resource_uid, reason.as_str(), before_run, generation)
        .fetch_all(&mut *conn)
        .await?;
    let queued: Vec<transitions::Change> = marked
        .iter()
        .filter(|row| row.status == Status::Queued.as_str())
        .map(|row| transitions::Change {
            build: row.id,
            reason: format!("{reason}: {sentence}"),
            message: Some(sentence.to_owned()),
            ..transitions::Change::default()
        })
        .collect();
    let cancelled = transitions::apply(conn, Status::Queued, Status::Cancelled, &queued).await?;
    super::results::insert_unstarted(conn, &cancelled, Status::Cancelled.as_str(), reason).await?;
    Ok(marked.len())
}

/// UIDs and names of the Builds that have a live attempt: what the sweep compares with the cluster.
///
/// # Errors
/// When the query fails.
pub async fn live_resources(pool: &PgPool) -> Result<Vec<Resource>> {
    let rows = sqlx::query!(
        "select distinct resource_namespace, resource_name, resource_uid
         from builds where status in ('queued', 'in_progress')"
    )
    .fetch_all(pool)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Resource {
            namespace: row.resource_namespace,
            name: row.resource_name,
            uid: row.resource_uid,
            generation: 0,
        })
        .collect())
}
