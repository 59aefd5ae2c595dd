//! The table `build_steps`, and `builds.steps_total`: what the steps of an attempt are, live.

use image_factory_core::steps::{Change, Steps};
use sqlx::PgConnection;
use uuid::Uuid;

use super::Result;
use crate::clock;

/// What is to be stored of an attempt's steps.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    changed: Vec<Change>,
    total: i32,
}

impl Recorded {
    /// What changed since this was last asked; whoever asks stores it.
    pub fn of(steps: &mut Steps) -> Self {
        let changed = steps.take_changes();
        if changed.is_empty() {
            return Self::default();
        }
        Self { changed, total: i32::try_from(steps.progress().total).unwrap_or(i32::MAX) }
    }
}

/// Stores it, in the transaction of `conn`. Nothing is asked of Postgres where nothing changed.
pub(super) async fn record(conn: &mut PgConnection, build: Uuid, recorded: &Recorded) -> Result<()> {
    let steps = &recorded.changed;
    if steps.is_empty() {
        return Ok(());
    }
    let text = |value: fn(&Change) -> Option<String>| column(steps, value);
    sqlx::query_file!(
        "src/db/sql/steps.sql",
        build,
        &column(steps, |_| clock::new_id()),
        &column(steps, |step| step.number),
        &column(steps, |step| step.name.clone()),
        &text(|step| step.instruction.map(str::to_owned)) as &[Option<String>],
        &column(steps, |step| step.status.as_str().to_owned()),
        &column(steps, |step| step.cached),
        &text(|step| step.stdout.clone()) as &[Option<String>],
        &text(|step| step.stderr.clone()) as &[Option<String>],
        &text(|step| step.error.as_ref().map(|error| error.message.clone())) as &[Option<String>],
        &text(|step| step.error.as_ref().and_then(|error| error.code.clone())) as &[Option<String>],
        &column(steps, |step| step.duration_seconds) as &[Option<i32>],
        recorded.total
    )
    .execute(conn)
    .await?;
    Ok(())
}

fn column<T>(steps: &[Change], value: impl Fn(&Change) -> T) -> Vec<T> {
    steps.iter().map(value).collect()
}
