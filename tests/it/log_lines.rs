//! Storing a log: every byte as it was printed, each number once, lines and cursor together or not at all.

use image_factory::db::{
    Error,
    launches::followed,
    logs::{Cursor, Line, append, first_line_since},
    steps::Recorded,
};
use image_factory_core::loglevel::Level;
use jiff::Timestamp;
use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;

use crate::attempts::{attempt, queued};

fn lines(texts: &[&str]) -> Vec<Line> {
    let at = Timestamp::from_microsecond(1_900_000_000_123_456).expect("a time");
    texts.iter().map(|text| Line { content: (*text).to_owned(), level: Level::Info, logged_at: at }).collect()
}

fn cursor(line_number: i64) -> Cursor {
    Cursor { container: "build".to_owned(), line_number, ..Cursor::default() }
}

async fn cursors(pool: &PgPool, build: Uuid) -> Vec<Cursor> {
    followed(pool, build).await.expect("no error").expect("the attempt is there").cursors
}

async fn stored(pool: &PgPool, build: Uuid) -> sqlx::Result<Vec<(i64, String)>> {
    sqlx::query_as("select line_number, log_content from build_logs where build_id = $1 order by line_number")
        .bind(build)
        .fetch_all(pool)
        .await
}

#[sqlx::test(migrations = "./migrations")]
async fn whatever_a_build_prints_is_stored_as_it_is(pool: PgPool) -> sqlx::Result<()> {
    let id = queued(&pool, &attempt("green", "wall")).await;
    let hostile = [
        "",
        " ",
        "\\N",
        "\\.",
        "\\",
        "a\tb\\tc",
        "two\nlines\r\nin one\r",
        "\u{1b}[31mred\u{1b}[0m",
        "\u{8}\u{b}\u{c}\u{7f}\u{1}",
        "\"quoted\", 'so', $1; drop table builds; --",
        "naïve – 日本語 – 🏭 – \u{fffd} – e\u{301}",
        "trailing backslash \\",
    ];
    append(&pool, id, &lines(&hostile), &Recorded::default(), &cursor(12)).await.expect("no error");
    let long = "x".repeat(1_000_000);
    append(&pool, id, &lines(&[&long]), &Recorded::default(), &cursor(13)).await.expect("no error");
    let mut expected: Vec<(i64, String)> = (1..).zip(hostile.map(str::to_owned)).collect();
    expected.push((13, long));
    assert_eq!(stored(&pool, id).await?, expected);
    let (at, ids): (i64, i64) = sqlx::query_as(
        "select (extract(epoch from max(logged_at)) * 1000000)::bigint, count(distinct id) from build_logs",
    )
    .fetch_one(&pool)
    .await?;
    assert_eq!((at, ids), (1_900_000_000_123_456, 13), "the time to the microsecond, and an id for each");
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn a_number_that_is_taken_fails_the_batch_and_moves_no_cursor(pool: PgPool) -> sqlx::Result<()> {
    let id = queued(&pool, &attempt("green", "wall")).await;
    let first = Cursor { last_timestamp: Some(lines(&[""])[0].logged_at), lines_at_timestamp: 3, ..cursor(3) };
    append(&pool, id, &lines(&["one", "two", "three"]), &Recorded::default(), &first).await.expect("no error");

    // Another operator that had stopped at line 2.
    let error = append(&pool, id, &lines(&["three", "four"]), &Recorded::default(), &cursor(4))
        .await
        .expect_err("line 3 is taken");
    assert!(error.to_string().contains("duplicate key"), "{error}");
    assert_eq!(stored(&pool, id).await?.len(), 3);
    assert_eq!(cursors(&pool, id).await, std::slice::from_ref(&first));

    let last = Cursor { finished: true, ..cursor(4) };
    append(&pool, id, &lines(&["four"]), &Recorded::default(), &last).await.expect("no error");
    assert_eq!(cursors(&pool, id).await, [last]);
    assert_eq!(stored(&pool, id).await?.last(), Some(&(4, "four".to_owned())));
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn a_batch_that_can_not_be_stored_leaves_the_connection_usable_and_nothing_behind(
    pool: PgPool,
) -> sqlx::Result<()> {
    let id = queued(&pool, &attempt("green", "wall")).await;
    for _ in 0..10 {
        // Postgres holds no NUL; whoever reads the log replaces it before.
        append(&pool, id, &lines(&["fine", "a\0b"]), &Recorded::default(), &cursor(2))
            .await
            .expect_err("it can't be stored");
    }
    assert_eq!(stored(&pool, id).await?, []);
    assert_eq!(cursors(&pool, id).await, []);
    append(&pool, id, &lines(&["fine"]), &Recorded::default(), &cursor(1)).await.expect("no error");
    assert_eq!(stored(&pool, id).await?, [(1, "fine".to_owned())]);
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn of_two_that_follow_the_same_log_every_line_is_stored_once(pool: PgPool) -> sqlx::Result<()> {
    const LINES: i64 = 60;
    let id = queued(&pool, &attempt("green", "wall")).await;
    let follow = async |batch: i64| {
        loop {
            // From where any operator left it, as the collector does after a failure.
            let at = cursors(&pool, id).await.first().map_or(0, |cursor| cursor.line_number);
            if at == LINES {
                return;
            }
            let to = (at + batch).min(LINES);
            let texts: Vec<String> = (at + 1..=to).map(|number| format!("line {number}")).collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            if let Err(error) = append(&pool, id, &lines(&texts), &Recorded::default(), &cursor(to)).await {
                assert!(error.to_string().contains("duplicate key"), "{error}");
            }
        }
    };
    tokio::join!(follow(1), follow(3), follow(7));
    let expected: Vec<(i64, String)> = (1..=LINES).map(|number| (number, format!("line {number}"))).collect();
    assert_eq!(stored(&pool, id).await?, expected);
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn a_cursor_comes_back_as_it_was_stored(pool: PgPool) {
    let id = queued(&pool, &attempt("green", "wall")).await;
    let read = lines(&["one"]);
    let moved =
        Cursor { last_timestamp: Some(read[0].logged_at), lines_at_timestamp: 1, bytes: 4, capped: true, ..cursor(1) };
    append(&pool, id, &read, &Recorded::default(), &moved).await.expect("no error");
    assert_eq!(cursors(&pool, id).await, [moved]);
}

#[sqlx::test(migrations = "./migrations")]
async fn a_stale_operator_neither_moves_a_cursor_back_nor_ends_a_log_it_has_not_read(pool: PgPool) {
    let id = queued(&pool, &attempt("green", "wall")).await;
    append(&pool, id, &lines(&["one", "two"]), &Recorded::default(), &cursor(2)).await.expect("no error");
    for stale in [cursor(1), Cursor { finished: true, ..cursor(1) }] {
        assert!(matches!(append(&pool, id, &[], &Recorded::default(), &stale).await, Err(Error::Overtaken)));
    }
    assert_eq!(cursors(&pool, id).await, [cursor(2)]);
}

#[sqlx::test(migrations = "./migrations")]
async fn a_log_that_was_read_to_its_end_gets_no_more_lines(pool: PgPool) -> sqlx::Result<()> {
    let id = queued(&pool, &attempt("green", "wall")).await;
    let end = Cursor { finished: true, ..cursor(1) };
    append(&pool, id, &lines(&["one"]), &Recorded::default(), &end).await.expect("no error");
    assert!(matches!(
        append(&pool, id, &lines(&["two"]), &Recorded::default(), &cursor(2)).await,
        Err(Error::Overtaken)
    ));
    assert_eq!(cursors(&pool, id).await, [end]);
    assert_eq!(stored(&pool, id).await?, [(1, "one".to_owned())], "the lines go with the cursor");
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn lines_are_those_of_a_build(pool: PgPool) -> sqlx::Result<()> {
    let nobody = Uuid::nil();
    let refused = append(&pool, nobody, &lines(&["one"]), &Recorded::default(), &cursor(1)).await;
    assert!(refused.unwrap_err().to_string().contains("build_log_cursors_build_id_fkey"));
    assert_eq!(stored(&pool, nobody).await?, [], "the lines go with the cursor");
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn the_first_line_since_a_time_is_found_in_a_long_log_without_reading_it(pool: PgPool) -> sqlx::Result<()> {
    let id = queued(&pool, &attempt("green", "wall")).await;
    assert_eq!(first_line_since(&pool, id, Timestamp::UNIX_EPOCH).await.expect("no error"), None);
    // A line a second, whose neighbours are in a somewhat different order.
    sqlx::query(
        "insert into build_logs (id, build_id, line_number, log_content, log_level, logged_at)
         select gen_random_uuid(), $1, n, 'x', 'INFO', to_timestamp(2000000000 + n + case n % 7 when 0 then 5 when 3 then -4 else 0 end)
         from generate_series(1, 50000) n",
    )
    .bind(id)
    .execute(&pool)
    .await?;
    let since = |second: i64| Timestamp::from_second(2_000_000_000 + second).expect("a time");
    for second in
        [-10, 0, 1, 2, 6, 7, 8, 500, 999, 1_000, 1_001, 1_004, 24_999, 31_415, 49_990, 49_999, 50_000, 50_003, 50_010]
    {
        let naive: Option<i64> = sqlx::query_scalar(
            "select min(line_number) from build_logs where build_id = $1 and logged_at >= to_timestamp(2000000000 + $2)",
        )
        .bind(id)
        .bind(second)
        .fetch_one(&pool)
        .await?;
        assert_eq!(first_line_since(&pool, id, since(second)).await.expect("no error"), naive, "since {second}");
    }
    let mut connection = pool.acquire().await?;
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
        "prepare asked as {}",
        include_str!("../../src/db/sql/first_line_since.sql")
    )))
    .execute(&mut *connection)
    .await?;
    let explain = format!(
        "explain (analyze, costs off, timing off, format json) execute asked('{id}', to_timestamp(2000031415))"
    );
    let row = sqlx::raw_sql(sqlx::AssertSqlSafe(explain)).fetch_one(&mut *connection).await?;
    let plan: Value = sqlx::Row::try_get(&row, 0)?;
    let read = lines_read(&plan[0]["Plan"]);
    assert!((2..=2_500).contains(&read), "{read} of 50000 lines were read: {plan:#}");
    Ok(())
}

/// How many lines a plan has looked at.
fn lines_read(node: &Value) -> i64 {
    let count = |key: &str| node[key].as_i64().unwrap_or_default();
    let is_of_log = node["Relation Name"].as_str().is_some_and(|table| table.starts_with("build_logs"));
    let here = (count("Actual Rows") + count("Rows Removed by Filter")) * count("Actual Loops");
    let below: i64 = node["Plans"].as_array().into_iter().flatten().map(lines_read).sum();
    below + if is_of_log { here } else { 0 }
}
