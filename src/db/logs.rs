//! The tables `build_logs` and `build_log_cursors`: lines, numbered without gap over all
//! containers of an attempt, and how far each container's log has been read.

use image_factory_core::loglevel::Level;
use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use sqlx::PgPool;
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

/// Lines `after` < number ≤ `until` with their times, from the first on, at most `limit`.
///
/// # Errors
/// When the query fails.
pub async fn between(
    pool: &PgPool,
    build: Uuid,
    after: i64,
    until: i64,
    limit: i64,
) -> Result<Vec<(i64, Timestamp, String)>> {
    let rows = sqlx::query!(
        "select line_number, logged_at, log_content from build_logs
         where build_id = $1 and line_number > $2 and line_number <= $3
         order by line_number
         limit $4",
        build,
        after,
        until,
        limit
    )
    .fetch_all(pool)
    .await?;
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
            .copy_in_raw("copy build_logs (id, build_id, line_number, log_content, log_level, logged_at) from stdin")
            .await?;
        if let Err(error) = copy.send(copy_text(build, first, lines)).await {
            copy.abort("the lines could not be sent").await?;
            return Err(error.into());
        }
        copy.finish().await?;
    }
    let moved = sqlx::query!(
        "insert into build_log_cursors as stored (build_id, container, last_timestamp, lines_at_timestamp, line_number,
             finished, bytes, capped)
         values ($1, $2, $3, $4, $5, $6, $7, $8)
         on conflict on constraint build_log_cursors_pkey do update
         set last_timestamp = excluded.last_timestamp, lines_at_timestamp = excluded.lines_at_timestamp,
             line_number = excluded.line_number, finished = excluded.finished, bytes = excluded.bytes,
             capped = excluded.capped
         where not stored.finished and stored.line_number <= excluded.line_number",
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

/// Rows in COPY's text format: <https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.2>.
fn copy_text(build: Uuid, first: i64, lines: &[Line]) -> Vec<u8> {
    let build_id = build.to_string();
    let mut text = String::with_capacity(lines.iter().map(|line| line.content.len() + 128).sum());
    for (number, line) in (first..).zip(lines) {
        let id = clock::new_id();
        text.extend([&id.to_string(), "\t", &build_id, "\t", &number.to_string(), "\t"]);
        for char in line.content.chars() {
            match char {
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                other => text.push(other),
            }
        }
        text.extend(["\t", line.level.as_str(), "\t", &line.logged_at.to_string(), "\n"]);
    }
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_survives_copys_own_special_characters() {
        let line = Line {
            content: "a\tb\\c\r\n".to_owned(),
            level: Level::Warn,
            logged_at: "2026-11-24T10:00:00.123456789Z".parse().unwrap(),
        };
        let text = String::from_utf8(copy_text(Uuid::nil(), 7, &[line])).unwrap();
        let fields: Vec<&str> = text.trim_end_matches('\n').split('\t').collect();
        assert_eq!(
            fields[1..],
            ["00000000-0000-0000-0000-000000000000", "7", "a\\tb\\\\c\\r\\n", "WARN", "2026-11-24T10:00:00.123456789Z"]
        );
    }
}
