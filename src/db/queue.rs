//! The claim: which queued builds start now. One short transaction under one advisory lock reads
//! limits, counts and heads, lets the plan in core decide, and moves the rows. And what becomes of those that don't
//! start: what they wait for, and until when.

use std::{collections::BTreeMap, time::Duration};

use image_factory_core::{
    outcome::span,
    placement::{Placement, Wish, Worker},
    queue::{self, Assignment, Group, Head, Plan, Tenant},
    reason::Reason,
    status::Status,
};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::{Error, Result, builds, results, transitions, workers::BUILT_IN};
use crate::failpoint;

/// Of a tenant with more groups a claim looks at some: `db/sql/groups.sql`. Among those all goes by age and priority.
const GROUPS: i32 = 256;

/// Where so many heads were too few, twice as many are read, up to this: `core::queue::asks`.
const MOST_SPREAD: u32 = 32;

/// Claims every build that has room now. Any number of operators may call it at once: they take
/// turns, and no limit is exceeded at any commit.
///
/// # Errors
/// When a statement fails; what was claimed in a transaction before stays claimed.
pub async fn claim(pool: &PgPool) -> Result<Vec<Uuid>> {
    let mut claimed = Vec::new();
    let mut spread = 2;
    loop {
        let (batch, more) = claim_batch(pool, spread).await?;
        claimed.extend(batch);
        if !more {
            return Ok(claimed);
        }
        spread = MOST_SPREAD.min(2 * spread);
    }
}

/// Queued builds start, and are given up, by one at a time, to the end of the transaction. Until there the queue is read
/// by index scans alone: a burst leaves dead entries behind, which those pass over once, and a bitmap scan, which the
/// planner takes where its statistics are older than the burst, each time until the next vacuum.
pub(super) async fn take_turn(conn: &mut PgConnection) -> Result<()> {
    sqlx::query!(
        "select pg_advisory_xact_lock(hashtextextended('image-factory claim', 0))::text as locked,
                set_config('enable_bitmapscan', 'off', true) as read_by"
    )
    .fetch_one(conn)
    .await?;
    Ok(())
}

/// Fails queued builds that have waited for longer than their tenant's policy, or else the operator, lets them; at
/// most so many. Gives them.
///
/// # Errors
/// When a statement fails; none has failed then.
pub async fn time_out(pool: &PgPool, limit: i64) -> Result<Vec<Uuid>> {
    let overdue = sqlx::query_file!("src/db/sql/overdue.sql", limit).fetch_all(pool).await?;
    if overdue.is_empty() {
        return Ok(Vec::new());
    }
    let change = |build, minutes: i32, by_policy: bool, waits: String| {
        let waited = span(Duration::from_mins(minutes.unsigned_abs().into()));
        let whose = if by_policy { "the policy of its tenant" } else { "the operator" };
        let message = format!("it waited in the queue for {waited}, as long as {whose} lets it: {waits}");
        transitions::Change {
            build,
            reason: format!("{}: {message}", Reason::QueueTimeout),
            message: Some(message),
            ..transitions::Change::default()
        }
    };
    let changes: Vec<_> =
        overdue.into_iter().map(|row| change(row.id, row.minutes, row.by_policy, row.message)).collect();
    let mut tx = pool.begin().await?;
    take_turn(&mut tx).await?;
    let ended = transitions::apply(&mut tx, Status::Queued, Status::Failed, &changes).await?;
    results::insert_unstarted(&mut tx, &ended, "timeout", Reason::QueueTimeout).await?;
    tx.commit().await?;
    Ok(ended)
}

/// A queued build, and what holds it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub build: Uuid,
    /// The UID of its custom resource.
    pub resource_uid: String,
    pub waiting_for: Option<String>,
    /// In its tenant, from 1.
    pub position: i64,
}

/// The whole queue.
///
/// # Errors
/// When the query fails.
pub async fn waiting(pool: &PgPool) -> Result<Vec<Waiting>> {
    Ok(sqlx::query_file_as!(Waiting, "src/db/sql/waiting.sql").fetch_all(pool).await?)
}

/// Whether there is more to claim is the second.
async fn claim_batch(pool: &PgPool, spread: u32) -> Result<(Vec<Uuid>, bool)> {
    let mut tx = pool.begin().await?;
    take_turn(&mut tx).await?;
    let places = places(&mut tx).await?;
    let (plan, more) = planned(&mut tx, &places, spread).await?;
    let changes: Vec<_> = plan.assignments.iter().map(change).collect();
    let claimed = transitions::apply(&mut tx, Status::Queued, Status::InProgress, &changes).await?;
    // What woke this claim may have been the end of a build. Mostly another takes its place, and the
    // counts stay.
    let taken =
        |worker| changes.iter().filter(|one| one.worker == Some(worker) && claimed.contains(&one.build)).count();
    if places
        .iter()
        .any(|Place { worker, recorded }| usize::try_from(recorded - worker.running) != Ok(taken(worker.id)))
    {
        super::workers::count_running(&mut tx).await?;
    }
    if !claimed.is_empty() {
        failpoint::statement("claim.before-commit")?;
    }
    tx.commit().await?;
    if !claimed.is_empty() {
        failpoint::statement("claim.after-commit")?;
    }
    Ok((claimed, more))
}

struct Place {
    worker: Worker,
    /// What `current_builds_count` says.
    recorded: i32,
}

async fn places(conn: &mut PgConnection) -> Result<Vec<Place>> {
    let rows = sqlx::query_file!("src/db/sql/places.sql", BUILT_IN).fetch_all(conn).await?;
    rows.into_iter()
        .map(|row| {
            let worker = Worker {
                id: row.id,
                name: row.worker_name,
                tenant: row.tenant_id,
                zone: row.zone,
                labels: labels(row.labels),
                methods: row.methods.iter().map(|name| builds::method(name)).collect::<Result<_>>()?,
                running: row.running,
                limit: row.concurrent_builds_limit,
                declared: row.declared,
                takes: row.takes,
            };
            Ok(Place { worker, recorded: row.current_builds_count })
        })
        .collect()
}

fn change(assignment: &Assignment) -> transitions::Change {
    transitions::Change {
        build: assignment.build,
        worker: Some(assignment.worker),
        reason: "claimed: within every limit of its tenant and its worker".to_owned(),
        ..transitions::Change::default()
    }
}

/// Whether there is more to claim is the second.
async fn planned(conn: &mut PgConnection, places: &[Place], spread: u32) -> Result<(Plan, bool)> {
    let workers: Vec<Worker> = places.iter().map(|place| place.worker.clone()).collect();
    if !workers.iter().any(Worker::has_room) {
        return Ok((Plan::default(), false));
    }
    let Waits { tenants, groups, keys, has_more } = waits(conn).await?;
    let groups = with_heads(conn, &tenants, &workers, groups, &keys, spread).await?;
    let plan = queue::plan(tenants, workers, groups);
    let more = plan.cut || has_more && !plan.assignments.is_empty();
    Ok((plan, more))
}

/// What waits: tenants with room, and their groups.
#[derive(Default)]
struct Waits {
    tenants: Vec<Tenant>,
    /// Without heads.
    groups: Vec<Group>,
    /// Of each group what the database knows it by, and whether priority orders it.
    keys: Vec<(Uuid, bool)>,
    /// Whether there are more groups.
    has_more: bool,
}

async fn waits(conn: &mut PgConnection) -> Result<Waits> {
    let mut found = Waits::default();
    // In the order of tenants.
    for row in sqlx::query_file!("src/db/sql/groups.sql", GROUPS).fetch_all(conn).await? {
        if found.tenants.last().is_none_or(|tenant| tenant.id != row.tenant_id) {
            found.tenants.push(Tenant {
                id: row.tenant_id,
                weight: row.weight,
                by_priority: row.by_priority,
                limit: row.most,
                running: row.running,
                project_limit: row.most_per_project,
                ..Tenant::default()
            });
        }
        let method = builds::method(&row.build_method)?;
        if let Some(tenant) = found.tenants.last_mut() {
            tenant.running_by_project.insert(row.project_id, row.project_running);
            tenant.running_by_method.insert(method, row.method_running);
            tenant.method_limits.extend(row.most_of_method.map(|most| (method, most)));
        }
        found.groups.push(Group {
            tenant: row.tenant_id,
            project: row.project_id,
            method,
            placement: placement(row.placement)?,
            heads: Vec::new(),
            more: false,
        });
        found.keys.push((row.queue_group, row.by_priority));
        found.has_more |= row.has_more;
    }
    Ok(found)
}

/// The groups that could start something, with their heads.
async fn with_heads(
    conn: &mut PgConnection,
    tenants: &[Tenant],
    workers: &[Worker],
    groups: Vec<Group>,
    keys: &[(Uuid, bool)],
    spread: u32,
) -> Result<Vec<Group>> {
    let asks = queue::asks(tenants, workers, &groups, spread);
    let with_room = groups.into_iter().zip(asks).zip(keys).filter(|((_, ask), _)| ask.heads > 0);
    let mut asked: Vec<_> = with_room.map(|((group, ask), key)| (group, ask, key)).collect();
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query_file!(
        "src/db/sql/heads.sql",
        &asked.iter().map(|(group, ..)| group.tenant).collect::<Vec<Uuid>>(),
        &asked.iter().map(|(_, _, (key, _))| *key).collect::<Vec<Uuid>>(),
        &asked.iter().map(|(_, _, (_, by_priority))| *by_priority).collect::<Vec<bool>>(),
        &asked.iter().map(|(_, ask, _)| ask.heads).collect::<Vec<i32>>()
    )
    .fetch_all(conn)
    .await?;
    for row in rows {
        // Places are counted from 1.
        if let Some((group, ..)) = usize::try_from(row.place - 1).ok().and_then(|place| asked.get_mut(place)) {
            group.heads.push(Head {
                build: row.id,
                priority: row.priority,
                queued_at: row.queued_at.to_jiff(),
                wish: Wish { warm: row.warm, avoid: row.avoid },
            });
        }
    }
    for (group, ask, _) in &mut asked {
        group.more = !ask.is_all && usize::try_from(ask.heads).is_ok_and(|heads| group.heads.len() >= heads);
    }
    Ok(asked.into_iter().map(|(group, ..)| group).collect())
}

fn placement(value: Option<serde_json::Value>) -> Result<Placement> {
    value.map_or_else(
        || Ok(Placement::default()),
        |value| serde_json::from_value(value).map_err(|error| Error::Row(format!("a placement: {error}"))),
    )
}

/// Labels are an object; a value that is no text counts as its JSON.
fn labels(value: serde_json::Value) -> BTreeMap<String, String> {
    let serde_json::Value::Object(labels) = value else { return BTreeMap::new() };
    labels
        .into_iter()
        .map(|(label, value)| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            (label, text)
        })
        .collect()
}
