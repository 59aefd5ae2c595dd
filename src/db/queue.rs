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

/// Claims every build that has room now. Any number of operators may call it at once: they take
/// turns, and no limit is exceeded at any commit.
///
/// # Errors
/// When a statement fails; what was claimed in a transaction before stays claimed.
pub async fn claim(pool: &PgPool) -> Result<Vec<Uuid>> {
    let mut claimed = Vec::new();
    loop {
        let (batch, cut) = claim_batch(pool).await?;
        claimed.extend(batch);
        if !cut {
            return Ok(claimed);
        }
    }
}

/// Queued builds start, and are given up, by one at a time, to the end of the transaction.
pub(super) async fn take_turn(conn: &mut PgConnection) -> Result<()> {
    sqlx::query!("select pg_advisory_xact_lock(hashtextextended('image-factory claim', 0))::text as locked")
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
async fn claim_batch(pool: &PgPool) -> Result<(Vec<Uuid>, bool)> {
    let mut tx = pool.begin().await?;
    take_turn(&mut tx).await?;
    let places = places(&mut tx).await?;
    let Plan { assignments, cut } = planned(&mut tx, &places).await?;
    let changes: Vec<_> = assignments.iter().map(change).collect();
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
    Ok((claimed, cut))
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

async fn planned(conn: &mut PgConnection, places: &[Place]) -> Result<Plan> {
    let workers: Vec<Worker> = places.iter().map(|place| place.worker.clone()).collect();
    let room: i32 = workers.iter().filter(|worker| worker.has_room()).map(|worker| worker.limit - worker.running).sum();
    if room == 0 {
        return Ok(Plan::default());
    }
    let (tenants, groups) = heads(conn, room).await?;
    Ok(queue::plan(tenants, workers, groups))
}

/// Everything that could start on `room` free places.
async fn heads(conn: &mut PgConnection, room: i32) -> Result<(Vec<Tenant>, Vec<Group>)> {
    let mut tenants: Vec<Tenant> = Vec::new();
    let mut groups: Vec<Group> = Vec::new();
    let mut last_group = None;
    // In the order of tenants and, within them, groups.
    for row in sqlx::query_file!("src/db/sql/heads.sql", room).fetch_all(conn).await? {
        if tenants.last().is_none_or(|tenant| tenant.id != row.tenant_id) {
            tenants.push(Tenant {
                id: row.tenant_id,
                weight: row.weight,
                by_priority: row.by_priority,
                limit: row.most,
                running: row.running,
                project_limit: row.most_per_project,
                ..Tenant::default()
            });
            last_group = None;
        }
        if last_group != Some(row.queue_group) {
            last_group = Some(row.queue_group);
            let method = builds::method(&row.build_method)?;
            if let Some(tenant) = tenants.last_mut() {
                tenant.running_by_project.insert(row.project_id, row.project_running);
                tenant.running_by_method.insert(method, row.method_running);
                tenant.method_limits.extend(row.most_of_method.map(|most| (method, most)));
            }
            groups.push(Group {
                tenant: row.tenant_id,
                project: row.project_id,
                method,
                placement: placement(row.placement)?,
                heads: Vec::new(),
                more: false,
            });
        }
        if let Some(group) = groups.last_mut() {
            group.heads.push(Head {
                build: row.id,
                priority: row.priority,
                queued_at: row.queued_at.to_jiff(),
                wish: Wish { warm: row.warm, avoid: row.avoid },
            });
            group.more = usize::try_from(row.share).is_ok_and(|share| group.heads.len() >= share);
        }
    }
    Ok((tenants, groups))
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
