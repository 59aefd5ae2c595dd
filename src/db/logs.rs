//! The tables `build_logs` and `build_log_cursors`: lines, numbered without gap over all
//! containers of an attempt, and how far each container's log has been read.

use image_factory_core::{loglevel::Level, status::Status};
use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use sqlx::{PgConnection, PgPool, postgres::PgCopyIn};
use uuid::Uuid;

use super::{Error, Result, steps};
use crate::{clock, failpoint};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub content: String,
    pub level: Level,
    /// When the container runtime read it.
    pub logged_at: Timestamp,
}

/// Most lines of a page.
const PAGE_LINES: i64 = 1_000;

/// How far one container's log is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    pub container: String,
    /// Timestamp of the last line read.
    pub last_timestamp: Option<Timestamp>,
    /// Lines read that carry exactly this timestamp.
    pub lines_at_timestamp: i32,
    /// Number of the attempt's last stored line.
    pub line_number: i64,
    /// The container has ended and all of its log has been read.
    pub finished: bool,
    /// Bytes stored of this container, a newline for each line.
    pub bytes: i64,
    /// Lines of this container were read and, because of the cap, not stored.
    pub capped: bool,
}

/// Lines `after` < number ≤ `until` with their times, from the first on: at least one where there is one, and no more
/// than make about `bytes`.
///
/// # Errors
/// When the query fails.
pub async fn between(
    pool: &PgPool,
    build: Uuid,
    after: i64,
    until: i64,
    bytes: i64,
) -> Result<Vec<(i64, Timestamp, String)>> {
    let rows =
        sqlx::query_file!("src/db/sql/log_lines.sql", build, after, until, bytes, PAGE_LINES).fetch_all(pool).await?;
    Ok(rows.into_iter().map(|row| (row.line_number, row.logged_at.to_jiff(), row.log_content)).collect())
}

/// Stores lines with what they change of the steps, and moves the cursor, in one transaction. The lines take the numbers that end at
/// `cursor.line_number`; a number already taken (another operator stored it) fails the whole. A
/// cursor never goes back, and not on from its end.
///
/// # Errors
/// When a statement fails, and `Overtaken` when the stored cursor is ahead of this one; nothing is
/// stored then.
pub async fn append(
    pool: &PgPool,
    build: Uuid,
    lines: &[Line],
    steps: &steps::Recorded,
    cursor: &Cursor,
) -> Result<()> {
    let mut tx = pool.begin().await?;
    if !lines.is_empty() {
        let first = cursor.line_number - i64::try_from(lines.len()).unwrap_or(i64::MAX) + 1;
        let mut copy = tx
            .copy_in_raw("copy build_logs (id, build_id, line_number, log_content, log_level, logged_at) from stdin (format binary)")
            .await?;
        if let Err(error) = send(&mut copy, build, first, lines).await {
            copy.abort("the lines could not be sent").await?;
            return Err(error.into());
        }
        copy.finish().await?;
    }
    let moved = sqlx::query_file!(
        "src/db/sql/log_cursor.sql",
        build,
        cursor.container,
        cursor.last_timestamp.map(ToSqlx::to_sqlx) as Option<jiff_sqlx::Timestamp>,
        cursor.lines_at_timestamp,
        cursor.line_number,
        cursor.finished,
        cursor.bytes,
        cursor.capped
    )
    .execute(&mut *tx)
    .await?;
    if moved.rows_affected() == 0 {
        return Err(Error::Overtaken);
    }
    steps::record(&mut tx, build, steps).await?;
    failpoint::statement("log.before-commit")?;
    tx.commit().await?;
    failpoint::statement("log.after-commit")?;
    Ok(())
}

/// A line as it is read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub number: i64,
    pub content: String,
    /// INFO, WARN, ERROR or DEBUG.
    pub level: String,
    pub logged_at: Timestamp,
}

/// A piece of an attempt's log, and the attempt's status at that moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    pub lines: Vec<Stored>,
    /// At that moment no line followed.
    pub is_last: bool,
    pub status: Status,
}

/// The lines after `after`, at least one where there is one, and as many as make `bytes`. Lines and
/// status are of one moment: no line ever follows the last page of an attempt that has ended. `None`:
/// there is no such attempt.
///
/// # Errors
/// When the query fails or a row holds what this version does not know.
pub async fn read(pool: &PgPool, build: Uuid, after: i64, bytes: i64) -> Result<Option<Page>> {
    let rows = sqlx::query_file!("src/db/sql/log_page.sql", build, after, bytes, PAGE_LINES).fetch_all(pool).await?;
    let Some(first) = rows.first() else { return Ok(None) };
    let status = super::builds::status(&first.status)?;
    let lines = rows.into_iter().filter_map(|row| {
        let logged_at = row.logged_at?.to_jiff();
        Some(Stored { number: row.line_number?, content: row.log_content?, level: row.log_level?, logged_at })
    });
    let lines: Vec<Stored> = lines.collect();
    let read: usize = lines.iter().map(|line| line.content.len()).sum();
    let is_full = |count: usize, most| i64::try_from(count).is_ok_and(|count| count >= most);
    let is_last = !is_full(lines.len(), PAGE_LINES) && !is_full(read, bytes);
    Ok(Some(Page { lines, is_last, status }))
}

/// Number of the last line stored; 0 where there is none.
///
/// # Errors
/// When the query fails.
pub async fn last_line(pool: &PgPool, build: Uuid) -> Result<i64> {
    let last = sqlx::query_file_scalar!("src/db/sql/last_line.sql", build).fetch_optional(pool).await?;
    Ok(last.unwrap_or(0))
}

/// Number of the first line that was printed at `since` or later; `None` where there is none yet:
/// `db/sql/first_line_since.sql`.
///
/// # Errors
/// When the query fails.
pub async fn first_line_since(pool: &PgPool, build: Uuid, since: Timestamp) -> Result<Option<i64>> {
    let since = since.to_sqlx();
    Ok(sqlx::query_file_scalar!("src/db/sql/first_line_since.sql", build, since as jiff_sqlx::Timestamp)
        .fetch_optional(pool)
        .await?)
}

/// Sends rows in COPY's binary format, while the server takes those before:
/// <https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.4>.
async fn send(
    copy: &mut PgCopyIn<&mut PgConnection>,
    build: Uuid,
    first: i64,
    lines: &[Line],
) -> std::result::Result<(), sqlx::Error> {
    let mut rows = b"PGCOPY\n\xff\r\n\0".to_vec();
    // No flags, no extension of the header.
    rows.extend_from_slice(&[0; 8]);
    for (number, line) in (first..).zip(lines) {
        row(&mut rows, build, number, line);
        if rows.len() >= PIECE_BYTES {
            copy.send(&*rows).await?;
            rows.clear();
        }
    }
    // No row has so many fields: the end.
    rows.extend_from_slice(&(-1_i16).to_be_bytes());
    copy.send(rows).await?;
    Ok(())
}

/// Bytes of rows that are sent at once.
const PIECE_BYTES: usize = 64 * 1024;

fn row(rows: &mut Vec<u8>, build: Uuid, number: i64, line: &Line) {
    rows.extend_from_slice(&6_i16.to_be_bytes());
    field(rows, clock::new_id().as_bytes());
    field(rows, build.as_bytes());
    field(rows, &number.to_be_bytes());
    field(rows, line.content.as_bytes());
    field(rows, line.level.as_str().as_bytes());
    field(rows, &(line.logged_at.as_microsecond() - POSTGRES_EPOCH).to_be_bytes());
}

/// 2000-01-01, from which Postgres counts microseconds.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

fn field(rows: &mut Vec<u8>, value: &[u8]) {
    // A line is far shorter than the two gigabytes at which this would matter.
    let length = i32::try_from(value.len()).unwrap_or(i32::MAX);
    rows.extend_from_slice(&length.to_be_bytes());
    rows.extend_from_slice(value);
}
