//! The only SQL. One file a table or a question; long statements stand in `db/sql`.
//!
//! Times of rows are the database's own (`now()`), so that a wrong clock on a node changes no
//! history. Every function takes what it needs and gives rows or facts; none decides.

pub mod archive;
pub mod builds;
mod declared;
pub mod deliveries;
mod images;
pub mod launches;
pub mod logs;
pub mod notifications;
pub mod old_rows;
mod origins;
pub mod policies;
pub mod polls;
pub mod queue;
pub mod results;
pub mod rollup;
mod runs;
pub mod schedules;
pub mod settings;
pub mod slots;
pub mod steps;
pub mod together;
pub mod transitions;
pub mod verify;
pub mod webhooks;
pub mod workers;

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

use crate::config;

pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// Channel whose messages are `<what> <namespace>/<name>`: a Build whose attempt has this new status, or
/// [`STOP_ASKED`]. An empty one: something new may be claimed, by a new row or other limits.
pub const STATUS_CHANNEL: &str = "image_factory_status";
/// What a message on [`STATUS_CHANNEL`] says of an attempt that was asked to stop.
pub const STOP_ASKED: &str = "stop_asked";

/// Channel whose messages are `<namespace>/<name>`: a BuildSchedule whose row or slots have changed.
pub const SCHEDULES_CHANNEL: &str = "image_factory_schedules";
/// What stands before that where the controller alone is to look: the row is of an older BuildSchedule.
pub const LOOK: &str = "look ";

/// Whether Postgres answers.
///
/// # Errors
/// When it does not.
pub async fn ping(pool: &PgPool) -> Result<()> {
    sqlx::query("select 1").execute(pool).await?;
    Ok(())
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to query the database: {0}")]
    Sql(#[from] sqlx::Error),
    #[error("failed to read a row: {0}")]
    Row(String),
    #[error("failed to store a log: another operator has stored more of it")]
    Overtaken,
}

impl Error {
    /// Whether the statement broke this unique or check constraint.
    pub fn breaks(&self, constraint: &str) -> bool {
        matches!(self, Self::Sql(sqlx::Error::Database(error)) if error.constraint() == Some(constraint))
    }
}

pub type Result<T> = std::result::Result<T, Error>;

/// A pool that connects on first use: the operator starts while Postgres is down and says so in
/// its readiness.
///
/// # Errors
/// When the URL can't be parsed.
pub fn pool(database: &config::Database) -> Result<PgPool> {
    Ok(of(database.connections.get().into(), PATIENCE, options(database)?))
}

/// For a connection of the pool.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections that answer readers, beside the others: however many read, the work goes on.
pub const READERS: u32 = 5;

/// A pool as above for what people ask, each of whose statements ends within 15 seconds.
///
/// # Errors
/// When the URL can't be parsed.
pub fn readers(database: &config::Database) -> Result<PgPool> {
    Ok(of(READERS, PATIENCE, options(database)?.options([("statement_timeout", "15s")])))
}

/// Connections that store what webhooks receive: whoever reads, and whatever is built, a Git host is answered.
pub const RECEIVERS: u32 = 4;

/// A pool as above for deliveries; one that can't be stored at once is to be delivered again.
///
/// # Errors
/// When the URL can't be parsed.
pub fn receivers(database: &config::Database) -> Result<PgPool> {
    Ok(of(RECEIVERS, Duration::from_secs(3), options(database)?.options([("statement_timeout", "5s")])))
}

fn of(connections: u32, patience: Duration, options: PgConnectOptions) -> PgPool {
    PgPoolOptions::new().max_connections(connections).acquire_timeout(patience).connect_lazy_with(options)
}

fn options(database: &config::Database) -> Result<PgConnectOptions> {
    let options: PgConnectOptions = database.url.parse().map_err(Error::Sql)?;
    Ok(options
        .application_name("image-factory")
        // Compiling a query takes Postgres longer than running any of ours: a claim of a
        // millisecond took a second, under the lock.
        .options([("jit", "off")])
        // All of ours goes by indexes. A table that has grown since its statistics were taken would be read whole
        // instead, also by the check of a foreign key, whose plan lasts as long as its connection: 0.6 ms a row.
        .options([("enable_seqscan", "off")])
        // Each statement is planned once a connection, as the golden files have it, and not for the values of each time:
        // that took longer than to answer it.
        .options([("plan_cache_mode", "force_generic_plan")])
        // An operator that was paused or cut off in the middle of a transaction gives up its
        // locks, and one that waits for them looks again.
        .options([("idle_in_transaction_session_timeout", "15s"), ("lock_timeout", "15s")])
        .options([("tcp_keepalives_idle", "15"), ("tcp_keepalives_interval", "5"), ("tcp_keepalives_count", "3")]))
}
