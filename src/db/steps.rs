//! The table `build_steps`, and `builds.steps_total`: what the steps of an attempt are, live.

use image_factory_core::{
    layers::Made,
    steps::{Change, Steps},
};
use sqlx::PgConnection;
use uuid::Uuid;

use super::Result;
use crate::clock;

/// What is to be stored of an attempt's steps.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    changed: Vec<Change>,
    /// Steps known so far; `None`: as many as before.
    total: Option<i32>,
    layers: Vec<Layer>,
}

/// The layer that a step made.
#[derive(Clone, Debug)]
struct Layer {
    step: i32,
    digest: String,
    size_bytes: i64,
}

impl Recorded {
    /// What changed since this was last asked; whoever asks stores it.
    pub fn of(steps: &mut Steps) -> Self {
        let changed = steps.take_changes();
        if changed.is_empty() {
            return Self::default();
        }
        Self { changed, total: i32::try_from(steps.progress().total).ok(), ..Self::default() }
    }

    /// With the layers that the steps made.
    #[must_use]
    pub fn with(mut self, made: &[Made<'_>]) -> Self {
        let layer = |made: &Made<'_>| Layer {
            step: made.step,
            digest: made.layer.digest.clone(),
            size_bytes: i64::try_from(made.layer.size_bytes).unwrap_or(i64::MAX),
        };
        self.layers = made.iter().map(layer).collect();
        self
    }
}

/// Stores it, in the transaction of `conn`. Nothing is asked of Postgres where nothing changed.
pub(super) async fn record(conn: &mut PgConnection, build: Uuid, recorded: &Recorded) -> Result<()> {
    let Recorded { changed: steps, total, layers } = recorded;
    if steps.is_empty() && layers.is_empty() {
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
        *total,
        &column(layers, |layer| layer.step),
        &column(layers, |layer| layer.digest.clone()),
        &column(layers, |layer| layer.size_bytes)
    )
    .execute(conn)
    .await?;
    Ok(())
}

fn column<R, T>(rows: &[R], value: impl Fn(&R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}
