//! Reads a container's log from a stream and gives it away in batches of whole lines, without those that
//! the cursor has counted already. Apart from storing, so that the next batch is read while one is stored.

use std::time::Duration;

use futures::{AsyncRead, AsyncReadExt};
use jiff::Timestamp;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::lines::{Splitter, parse};
use crate::db::logs::{Cursor, Line};

/// A batch is given away when it has this many lines or bytes, or is this old.
const BATCH_LINES: usize = 1_000;
const BATCH_BYTES: usize = 1024 * 1024;
const BATCH_AGE: Duration = Duration::from_millis(200);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to read a log: {0}")]
    Stream(#[from] std::io::Error),
    /// In the place of lines.
    #[error("the kubelet can't give a log: {0}")]
    Kubelet(String),
}

/// Reads to the end of the stream, or until nobody takes the batches any more. Before an error what is whole
/// is given away; the rest comes again.
pub async fn read(
    mut stream: impl AsyncRead + Unpin,
    cursor: &Cursor,
    batches: mpsc::Sender<Vec<Line>>,
) -> Result<(), Error> {
    let mut skip = Skip::new(cursor);
    let mut splitter = Splitter::default();
    let mut buffer = vec![0; 64 * 1024];
    let mut batch = Batch { lines: Vec::new(), bytes: 0, due: Instant::now(), batches };
    loop {
        let read = tokio::select! {
            read = stream.read(&mut buffer) => read,
            () = sleep_until(batch.due), if !batch.lines.is_empty() => {
                batch.give().await;
                continue;
            }
        };
        let (pieces, mut ended) = match read {
            Ok(0) => (splitter.end().into_iter().collect(), Some(Ok(()))),
            Ok(count) => (splitter.push(&buffer[..count]), None),
            Err(error) => (Vec::new(), Some(Err(error.into()))),
        };
        for piece in pieces {
            match parse(&piece) {
                Ok(line) if skip.passes(&line) => {}
                Ok(line) => batch.add(line).await,
                Err(said) => {
                    ended = Some(Err(Error::Kubelet(said)));
                    break;
                }
            }
        }
        if let Some(ended) = ended {
            batch.give().await;
            return ended;
        }
        if batch.batches.is_closed() {
            return Ok(());
        }
    }
}

struct Batch {
    lines: Vec<Line>,
    bytes: usize,
    /// When the oldest of its lines has waited long enough.
    due: Instant,
    batches: mpsc::Sender<Vec<Line>>,
}

impl Batch {
    async fn add(&mut self, line: Line) {
        if self.lines.is_empty() {
            self.due = Instant::now() + BATCH_AGE;
        }
        self.bytes += line.content.len();
        self.lines.push(line);
        if self.lines.len() >= BATCH_LINES || self.bytes >= BATCH_BYTES {
            self.give().await;
        }
    }

    /// Waits for whoever stores them. Lines that nobody takes come again another time.
    async fn give(&mut self) {
        self.bytes = 0;
        let lines = std::mem::take(&mut self.lines);
        if !lines.is_empty() {
            let _ = self.batches.send(lines).await;
        }
    }
}

/// Passes over lines that the cursor has counted already.
struct Skip {
    until: Option<Timestamp>,
    at_timestamp: i32,
}

impl Skip {
    fn new(cursor: &Cursor) -> Self {
        Self { until: cursor.last_timestamp, at_timestamp: cursor.lines_at_timestamp }
    }

    fn passes(&mut self, line: &Line) -> bool {
        let Some(until) = self.until else { return false };
        if line.logged_at < until {
            return true;
        }
        if line.logged_at == until && self.at_timestamp > 0 {
            self.at_timestamp -= 1;
            return true;
        }
        self.until = None;
        false
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use image_factory_core::loglevel::Level;

    use super::*;

    fn line(second: i64) -> Line {
        Line { content: String::new(), level: Level::Info, logged_at: Timestamp::from_second(second).unwrap() }
    }

    #[test]
    fn a_second_reading_passes_over_exactly_what_was_stored() {
        let cursor = Cursor {
            last_timestamp: Some(Timestamp::from_second(10).unwrap()),
            lines_at_timestamp: 2,
            ..Cursor::default()
        };
        let mut skip = Skip::new(&cursor);
        let passed: Vec<bool> = [9, 10, 10, 10, 10, 11, 11].map(|second| skip.passes(&line(second))).to_vec();
        assert_eq!(passed, [true, true, true, false, false, false, false]);
    }

    #[test]
    fn a_first_reading_passes_over_nothing() {
        let mut skip = Skip::new(&Cursor::default());
        assert!(!skip.passes(&line(0)) && !skip.passes(&line(0)));
    }

    /// Lengths of the batches, and the lines.
    async fn batches(text: &str) -> (Vec<usize>, Vec<String>) {
        let (sender, mut receiver) = mpsc::channel::<Vec<Line>>(1);
        let cursor = Cursor::default();
        let taking = async {
            let (mut lengths, mut lines) = (Vec::new(), Vec::new());
            while let Some(batch) = receiver.recv().await {
                lengths.push(batch.len());
                lines.extend(batch.into_iter().map(|line| line.content));
            }
            (lengths, lines)
        };
        let (read, taken) = tokio::join!(read(text.as_bytes(), &cursor, sender), taking);
        read.unwrap();
        taken
    }

    #[tokio::test]
    async fn a_log_arrives_whole_and_in_batches() {
        let text: Vec<String> = (0..2_500).map(|number| format!("2026-11-24T10:00:00Z line {number}\n")).collect();
        let text = text.concat();
        let (lengths, lines) = batches(&text).await;
        assert_eq!(lengths.iter().sum::<usize>(), 2_500);
        assert!(lengths.iter().all(|length| *length <= BATCH_LINES), "{lengths:?}");
        assert_eq!(lines, (0..2_500).map(|number| format!("line {number}")).collect::<Vec<_>>());
        let long = format!("2026-11-24T10:00:00Z {}\n", "x".repeat(15_000));
        let (lengths, lines) = batches(&long.repeat(300)).await;
        assert!(lengths.len() > 3 && lines.len() == 300, "long lines make small batches: {lengths:?}");
    }

    #[tokio::test]
    async fn reading_ends_where_nobody_stores() {
        let (sender, receiver) = mpsc::channel::<Vec<Line>>(1);
        drop(receiver);
        let line = "2026-11-24T10:00:00Z again\n";
        let endless = futures::stream::repeat_with(|| Ok(line)).into_async_read();
        read(endless, &Cursor::default(), sender).await.unwrap();
    }

    #[tokio::test]
    async fn what_stands_before_the_kubelets_own_words_is_kept_and_they_are_no_line() {
        let (sender, mut receiver) = mpsc::channel::<Vec<Line>>(1);
        let text = "2026-11-24T10:00:00Z first\nfailed to create fsnotify watcher: too many open files";
        let error = read(text.as_bytes(), &Cursor::default(), sender).await.unwrap_err();
        assert!(error.to_string().contains("too many open files"), "{error}");
        let batch = receiver.recv().await.unwrap();
        assert_eq!(batch.iter().map(|line| line.content.as_str()).collect::<Vec<_>>(), ["first"]);
        assert!(receiver.recv().await.is_none());
    }
}
