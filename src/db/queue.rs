//! The claim: which queued builds start now. One short transaction under one advisory lock reads
//! limits, counts and heads, lets the plan in core decide, and moves the rows.

use std::collections::BTreeMap;

use image_factory_core::{
    method::{Method, UnknownMethod},
    placement::{Placement, Wish, Worker},
    queue::{self, Assignment, Group, Head, Plan, Tenant},
    status::Status,
};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::{Error, Result, transitions, workers::BUILT_IN};
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

/// Whether there is more to claim is the second.
async fn claim_batch(pool: &PgPool) -> Result<(Vec<Uuid>, bool)> {
    let mut tx = pool.begin().await?;
    sqlx::query!("select pg_advisory_xact_lock(hashtextextended('image-factory claim', 0))::text as locked")
        .fetch_one(&mut *tx)
        .await?;
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
                methods: row.methods.iter().map(|name| method(name)).collect::<Result<_>>()?,
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
            let method = method(&row.build_method)?;
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

fn method(name: &str) -> Result<Method> {
    name.parse().map_err(|error: UnknownMethod| Error::Row(error.to_string()))
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
