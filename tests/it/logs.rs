//! Storing a log: what two operators that both believe they follow a container can't do to it.

use image_factory::db::{
    self,
    logs::{self, Cursor, Line},
};
use image_factory_core::loglevel::Level;
use sqlx::PgPool;
use uuid::Uuid;

use crate::schema::rows::{queued, two_tenants};

async fn build(pool: &PgPool) -> Uuid {
    two_tenants(pool).await.unwrap();
    queued(pool, "green", "web", 0, 0).await.unwrap();
    sqlx::query_scalar("select md5('green/web')::uuid").fetch_one(pool).await.unwrap()
}

fn line(content: &str) -> Line {
    Line { content: content.to_owned(), level: Level::Info, logged_at: "2026-11-24T10:00:00Z".parse().unwrap() }
}

fn cursor(line_number: i64) -> Cursor {
    Cursor { container: "build".to_owned(), line_number, bytes: 4 * line_number, ..Cursor::default() }
}

#[sqlx::test(migrations = "./migrations")]
async fn a_cursor_comes_back_as_it_was_stored(pool: PgPool) {
    let id = build(&pool).await;
    let stored = Cursor {
        last_timestamp: Some("2026-11-24T10:00:00.123456Z".parse().unwrap()),
        lines_at_timestamp: 1,
        capped: true,
        ..cursor(1)
    };
    logs::append(&pool, id, &[line("one")], &stored).await.unwrap();
    assert_eq!(logs::cursors(&pool, id).await.unwrap(), [stored]);
}

#[sqlx::test(migrations = "./migrations")]
async fn a_stale_operator_neither_moves_a_cursor_back_nor_ends_a_log_it_has_not_read(pool: PgPool) {
    let id = build(&pool).await;
    let lines = [line("one"), line("two")];
    logs::append(&pool, id, &lines, &cursor(2)).await.unwrap();
    for stale in [cursor(1), Cursor { finished: true, ..cursor(1) }] {
        assert!(matches!(logs::append(&pool, id, &[], &stale).await, Err(db::Error::Overtaken)));
    }
    assert_eq!(logs::cursors(&pool, id).await.unwrap(), [cursor(2)]);
}

#[sqlx::test(migrations = "./migrations")]
async fn a_log_that_was_read_to_its_end_gets_no_more_lines(pool: PgPool) {
    let id = build(&pool).await;
    let end = Cursor { finished: true, ..cursor(1) };
    logs::append(&pool, id, &[line("one")], &end).await.unwrap();
    assert!(matches!(logs::append(&pool, id, &[line("two")], &cursor(2)).await, Err(db::Error::Overtaken)));
    let count: i64 = sqlx::query_scalar("select count(*) from build_logs").fetch_one(&pool).await.unwrap();
    assert_eq!((logs::cursors(&pool, id).await.unwrap(), count), (vec![end], 1), "the lines go with the cursor");
}
