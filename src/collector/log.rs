//! The log of one attempt on its way into Postgres: follows a container's log from where the
//! cursor stands and stores it in batches, lines and cursor in one transaction.

use image_factory_core::{
    loglevel::level_of,
    pod::{BUILD_CONTAINER, PREPARE_CONTAINER},
    steps::{self, Steps},
};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::LogParams};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{Error, reading};
use crate::{
    clock,
    db::{
        launches::Followed,
        logs::{self, Cursor, Line},
        steps::Recorded,
    },
    runtime::Context,
};

/// Batches that may wait while one is stored.
const WAITING: usize = 3;
/// Bytes read at once from the table, when an attempt is taken up again; a line may have 45 KiB.
const PAGE_BYTES: i64 = 256 * 1024;
/// What a line takes of the room at least, however short it is: it is a row, and its place in an index.
const LINE_BYTES: i64 = 64;

pub struct Log<'a> {
    context: &'a Context,
    build: Uuid,
    cursors: Vec<Cursor>,
    /// Number of the last stored line.
    last_line: i64,
    /// Read from the stored lines of the builder, and stored with them.
    steps: Steps,
}

impl<'a> Log<'a> {
    /// Takes up the log where any operator left it.
    pub async fn resume(context: &'a Context, attempt: Followed) -> Result<Self, Error> {
        let last_line = attempt.cursors.iter().map(|cursor| cursor.line_number).max().unwrap_or(0);
        let steps = Steps::new(attempt.method);
        let mut log = Self { context, build: attempt.id, cursors: attempt.cursors, last_line, steps };
        log.read_steps_again().await?;
        Ok(log)
    }

    /// From the stored lines come the steps that are stored: what they change is known. Reads the builder's whole
    /// log: once for each operator that takes the attempt up, and not for each stream.
    async fn read_steps_again(&mut self) -> Result<(), Error> {
        let Some((until, mut bytes_left)) =
            self.cursor(BUILD_CONTAINER).map(|cursor| (cursor.line_number, cursor.bytes))
        else {
            return Ok(());
        };
        let mut last = self.cursor(PREPARE_CONTAINER).map_or(0, |cursor| cursor.line_number);
        while last < until {
            let lines = logs::between(&self.context.pool, self.build, last, until, PAGE_BYTES).await?;
            let Some((number, ..)) = lines.last() else { return Ok(()) };
            last = *number;
            for (_, at, text) in &lines {
                bytes_left -= bytes(text);
                if bytes_left < 0 {
                    // The last row is our own (`conclude`), which is not among the builder's bytes.
                    break;
                }
                self.steps.read(steps::Line { at: *at, level: level_of(text), text });
            }
            self.steps.take_changes();
        }
        Ok(())
    }

    /// The steps as the stored lines tell them.
    pub fn steps(&mut self) -> &mut Steps {
        if self.is_capped() {
            self.steps.cut_off();
        }
        &mut self.steps
    }

    /// Whether lines were read and, because of the cap, not stored.
    pub fn is_capped(&self) -> bool {
        self.cursors.iter().any(|cursor| cursor.capped)
    }

    pub fn is_finished(&self, container: &str) -> bool {
        self.cursor(container).is_some_and(|cursor| cursor.finished)
    }

    fn cursor(&self, container: &str) -> Option<&Cursor> {
        self.cursors.iter().find(|cursor| cursor.container == container)
    }

    fn cursor_or_first(&self, container: &str) -> Cursor {
        self.cursor(container)
            .cloned()
            .unwrap_or_else(|| Cursor { container: container.to_owned(), ..Cursor::default() })
    }

    /// Reads the container's log from the cursor to the end of the stream, and stores it. With
    /// `follow` the stream ends when the container does (or the connection).
    pub async fn read(&mut self, pods: &Api<Pod>, pod: &str, container: &str, follow: bool) -> Result<(), Error> {
        let mut cursor = self.cursor_or_first(container);
        let params = LogParams {
            container: Some(container.to_owned()),
            follow,
            timestamps: true,
            // The client rounds to the nearest second, which can be after lines not yet stored. What was stored of
            // this one comes again and is skipped.
            since_time: cursor.last_timestamp.map(clock::whole_second),
            ..LogParams::default()
        };
        let stream = std::pin::pin!(pods.log_stream(pod, &params).await?);
        let from = cursor.clone();
        let (sender, mut batches) = mpsc::channel::<Vec<Line>>(WAITING);
        let storing = async {
            while let Some(mut batch) = batches.recv().await {
                // What was read meanwhile goes with it.
                for _ in 0..WAITING {
                    batch.extend(batches.try_recv().unwrap_or_default());
                }
                self.store(&mut batch, &mut cursor).await?;
            }
            Ok::<_, Error>(())
        };
        let reading = async { Ok(reading::read(stream, &from, sender).await) };
        // Where storing fails reading ends too; after reading has failed what it gave away is still stored.
        let (read, ()) = tokio::try_join!(reading, storing)?;
        Ok(read?)
    }

    async fn store(&mut self, batch: &mut Vec<Line>, cursor: &mut Cursor) -> Result<(), Error> {
        for line in batch.iter() {
            match cursor.last_timestamp {
                Some(last) if line.logged_at == last => cursor.lines_at_timestamp += 1,
                // The node's clock went back. Whoever takes the log up again asks for what is later than all of it.
                Some(last) if line.logged_at < last => {}
                _ => (cursor.last_timestamp, cursor.lines_at_timestamp) = (Some(line.logged_at), 1),
            }
        }
        // After the first line that did not fit nothing is kept: a log with holes would look whole.
        let kept = if self.is_capped() { 0 } else { fitting(batch, self.room(), self.room_for_lines()) };
        cursor.capped |= kept < batch.len();
        batch.truncate(kept);
        cursor.bytes += batch.iter().map(|line| bytes(&line.content)).sum::<i64>();
        cursor.line_number = self.last_line + i64::try_from(batch.len()).unwrap_or(0);
        if cursor.container == BUILD_CONTAINER {
            for Line { content, level, logged_at } in batch.iter() {
                self.steps.read(steps::Line { at: *logged_at, level: *level, text: content });
            }
        }
        self.append(batch, cursor).await?;
        batch.clear();
        Ok(())
    }

    /// Bytes that may still be stored of the attempt.
    fn room(&self) -> i64 {
        let stored: i64 = self.cursors.iter().map(|cursor| cursor.bytes).sum();
        i64::try_from(self.context.log_bytes).unwrap_or(i64::MAX) - stored
    }

    /// Lines that may still be stored of the attempt.
    fn room_for_lines(&self) -> i64 {
        i64::try_from(self.context.log_bytes).unwrap_or(i64::MAX) / LINE_BYTES - self.last_line
    }

    async fn append(&mut self, lines: &[Line], cursor: &Cursor) -> Result<(), Error> {
        let steps = Recorded::of(&mut self.steps);
        logs::append(&self.context.pool, self.build, lines, &steps, cursor).await?;
        self.context.has_stored(self.build);
        self.context.metrics.log_lines.inc_by(lines.len() as u64);
        self.last_line = cursor.line_number;
        self.cursors.retain(|known| known.container != cursor.container);
        self.cursors.push(cursor.clone());
        Ok(())
    }

    /// The container has ended and its log has been read to the end.
    pub async fn finished(&mut self, container: &str) -> Result<(), Error> {
        self.conclude(container, None).await
    }

    /// The same, with a row of our own that says what is missing.
    pub async fn conclude(&mut self, container: &str, missing: Option<Line>) -> Result<(), Error> {
        let lines: Vec<Line> = missing.into_iter().collect();
        let mut cursor = self.cursor_or_first(container);
        cursor.finished = true;
        cursor.line_number = self.last_line + i64::try_from(lines.len()).unwrap_or(0);
        self.append(&lines, &cursor).await
    }

    /// Lines stored for `container`, which was read after `before`.
    pub fn lines_of(&self, container: &str, before: &str) -> i64 {
        let Some(cursor) = self.cursor(container) else { return 0 };
        cursor.line_number - self.cursor(before).map_or(0, |before| before.line_number)
    }
}

/// How many of the lines fit, from the first on.
fn fitting(lines: &[Line], mut room: i64, mut room_for_lines: i64) -> usize {
    lines
        .iter()
        .take_while(|line| {
            room -= bytes(&line.content);
            room_for_lines -= 1;
            room >= 0 && room_for_lines >= 0
        })
        .count()
}

fn bytes(text: &str) -> i64 {
    i64::try_from(text.len() + 1).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use image_factory_core::loglevel::Level;

    use super::*;

    fn line(second: i64) -> Line {
        Line { content: String::new(), level: Level::Info, logged_at: jiff::Timestamp::from_second(second).unwrap() }
    }

    #[test]
    fn a_second_reading_begins_before_what_is_not_yet_stored() {
        for (stored, begins) in [
            ("2026-11-24T10:00:00.95Z", "2026-11-24T10:00:00Z"),
            ("2026-11-24T10:00:00.499999Z", "2026-11-24T10:00:00Z"),
            ("2026-11-24T10:00:01Z", "2026-11-24T10:00:01Z"),
        ] {
            assert_eq!(clock::whole_second(stored.parse().unwrap()).to_string(), begins);
        }
    }

    #[test]
    fn lines_fit_with_their_newline_up_to_the_first_that_does_not() {
        let lines = ["abc", "defgh", ""].map(|text| Line { content: text.to_owned(), ..line(1) });
        for (room, kept) in [(0, 0), (3, 0), (4, 1), (9, 1), (10, 2), (11, 3), (-5, 0)] {
            assert_eq!(fitting(&lines, room, 3), kept, "{room} bytes");
        }
        for (room, kept) in [(-1, 0), (0, 0), (1, 1), (2, 2), (9, 3)] {
            assert_eq!(fitting(&lines, 11, room), kept, "{room} lines");
        }
    }
}
