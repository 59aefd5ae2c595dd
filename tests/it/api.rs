//! The API on real rows: what is told of builds, whose rows are seen by whom, and logs that are taken
//! up again by the number of a line, by many viewers at once.

mod builds;
mod logs;
mod server;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use image_factory::db::{
    logs::{Cursor, Line, append},
    queue::claim,
    steps::Recorded,
};
use image_factory_core::loglevel::Level;
use jiff::Timestamp;
use sqlx::{PgPool, postgres::PgPoolOptions};
use uuid::Uuid;

use crate::attempts::{attempt, limits, queued};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_900_000_000 + second).expect("a time")
}

/// Lines `line <number>`, printed one a second, as the collector stores them.
async fn store(pool: &PgPool, build: Uuid, numbers: std::ops::RangeInclusive<i64>) {
    let line = |number| Line { content: format!("line {number}"), level: Level::Info, logged_at: at(number) };
    let cursor = Cursor { container: "build".to_owned(), line_number: *numbers.end(), ..Cursor::default() };
    append(pool, build, &numbers.map(line).collect::<Vec<_>>(), &Recorded::default(), &cursor)
        .await
        .expect("they can be stored");
}

fn texts(numbers: std::ops::RangeInclusive<i64>) -> Vec<String> {
    numbers.map(|number| format!("line {number}")).collect()
}

async fn running(pool: &PgPool, tenant: &str, name: &str) -> Uuid {
    limits(pool, 100, 100).await;
    let id = queued(pool, &attempt(tenant, name)).await;
    claim(pool).await.expect("it can be claimed");
    id
}

/// A pool of its own on the same database, and how many statements went through it: each takes a
/// connection for itself.
pub fn counted(pool: &PgPool) -> (PgPool, Arc<AtomicUsize>) {
    let statements = Arc::new(AtomicUsize::new(0));
    let counted = statements.clone();
    let first = statements.clone();
    let options = PgPoolOptions::new()
        .max_connections(4)
        .before_acquire(move |_, _| {
            counted.fetch_add(1, Ordering::Relaxed);
            Box::pin(async { Ok(true) })
        })
        // One that is new is taken without that.
        .after_connect(move |_, _| {
            first.fetch_add(1, Ordering::Relaxed);
            Box::pin(async { Ok(()) })
        });
    (options.connect_lazy_with((*pool.connect_options()).clone()), statements)
}
