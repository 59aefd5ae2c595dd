//! The growing end of logs: one reader of the table a build, whatever the number of its viewers. It
//! looks when this process has stored a batch, and by timer for what another has; what it finds goes
//! to all viewers as the same bytes. A viewer that has missed some, or comes later, reads the table
//! itself.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use axum::body::Bytes;
use image_factory_core::status::Status;
use prometheus_client::metrics::gauge::Gauge;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::sleep,
};
use uuid::Uuid;

use crate::{
    db::{
        archive,
        logs::{self, Stored},
    },
    runtime::Context,
};

/// Bytes of lines that are read at once, more only for a single line.
pub const CHUNK: i64 = 64 * 1024;
/// Chunks that wait for a viewer: with `CHUNK`, what a tail takes of memory.
const WAITING: usize = 8;
/// With the collector's batches of 200 ms, a line is there within a second wherever it was stored.
const LOOK: Duration = Duration::from_millis(400);
const LOOK_QUEUED: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_secs(2);

/// Lines of one build without a gap, at least one.
#[derive(Debug)]
pub struct Chunk {
    pub lines: Vec<Stored>,
    /// The lines as server-sent events.
    pub events: Bytes,
}

/// What a tail tells.
#[derive(Clone, Debug)]
pub enum News {
    Lines(Arc<Chunk>),
    /// Number of the last line there will ever be, and the attempt, as `archive::described` has it.
    Ended(i64, Arc<Value>),
}

/// Lines as server-sent events, each with its number as the id:
/// <https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation>. JSON
/// has no line end in it, whatever a line holds.
pub fn events(lines: &[Stored]) -> Bytes {
    let mut text = String::with_capacity(lines.iter().map(|line| line.content.len() + 128).sum());
    for Stored { number, content, level, logged_at } in lines {
        let data = json!({"line": number, "at": logged_at, "level": level, "text": content});
        text.extend(["id: ", &number.to_string(), "\ndata: ", &data.to_string(), "\n\n"]);
    }
    text.into()
}

/// A tail that runs for as long as the sender lives, and how far it has told.
type Running = (broadcast::WeakSender<News>, Arc<AtomicI64>);

pub struct Tails {
    pool: PgPool,
    stored: broadcast::Sender<Uuid>,
    running: Mutex<HashMap<Uuid, Running>>,
    gauge: Gauge,
}

impl Tails {
    pub fn new(context: &Context) -> Self {
        Self {
            pool: context.pool.clone(),
            stored: context.stored.clone(),
            running: Mutex::default(),
            gauge: context.metrics.http_log_tails.clone(),
        }
    }

    /// News of this build from now on, and the number of the last line that was told before. The caller
    /// has its lines up to `after`.
    pub fn join(&self, build: Uuid, after: i64) -> (broadcast::Receiver<News>, i64) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((sender, told)) = running.get(&build)
            && let Some(sender) = sender.upgrade()
        {
            let news = sender.subscribe();
            return (news, told.load(Ordering::Acquire));
        }
        // Those that have ended hold no sender any more.
        running.retain(|_, (tail, _)| tail.strong_count() > 0);
        let (sender, news) = broadcast::channel(WAITING);
        let told = Arc::new(AtomicI64::new(after));
        running.insert(build, (sender.downgrade(), told.clone()));
        let tail = Tail { pool: self.pool.clone(), build, told, sender };
        let (stored, counted) = (self.stored.subscribe(), Counted::new(&self.gauge));
        tokio::spawn(async move {
            tail.run(stored).await;
            drop(counted);
        });
        (news, after)
    }
}

struct Tail {
    pool: PgPool,
    build: Uuid,
    /// Number of the last line told. Raised before the line is: whoever joins asks for it afterwards.
    told: Arc<AtomicI64>,
    sender: broadcast::Sender<News>,
}

impl Tail {
    /// Runs until the attempt has ended or nobody listens.
    async fn run(self, mut stored: broadcast::Receiver<Uuid>) {
        while self.sender.receiver_count() > 0 {
            // What was stored until now is what this look finds.
            stored = stored.resubscribe();
            match self.look().await {
                Ok(Some(pause)) => {
                    tokio::select! {
                        () = sleep(pause) => {}
                        () = told(&mut stored, self.build) => {}
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(build.id = %self.build, %error, "a log could not be read for its viewers; it is tried again");
                    sleep(RETRY).await;
                }
            }
        }
    }

    /// Tells what is new; gives how long to wait, and nothing where the attempt has ended.
    async fn look(&self) -> crate::db::Result<Option<Duration>> {
        loop {
            let after = self.told.load(Ordering::Relaxed);
            let Some(page) = logs::read(&self.pool, self.build, after, CHUNK).await? else { return Ok(None) };
            if let Some(last) = page.lines.last() {
                self.told.store(last.number, Ordering::Release);
                let chunk = Chunk { events: events(&page.lines), lines: page.lines };
                self.tell(News::Lines(Arc::new(chunk)));
            }
            match page.status {
                _ if !page.is_last => {}
                Status::Queued => return Ok(Some(LOOK_QUEUED)),
                Status::InProgress => return Ok(Some(LOOK)),
                Status::Success | Status::Failed | Status::Cancelled => {
                    let build = archive::described(&self.pool, &[self.build]).await?.pop().unwrap_or_default();
                    self.tell(News::Ended(self.told.load(Ordering::Relaxed), Arc::new(build)));
                    return Ok(None);
                }
            }
        }
    }

    fn tell(&self, news: News) {
        // Nobody listens any more: the next turn ends it.
        let _ = self.sender.send(news);
    }
}

/// Waits until this process has stored more of the build.
async fn told(stored: &mut broadcast::Receiver<Uuid>, build: Uuid) {
    loop {
        match stored.recv().await {
            Ok(other) if other != build => {}
            Ok(_) | Err(RecvError::Lagged(_)) => return,
            // The timer still looks.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// One of what a gauge counts, for as long as it lives.
pub struct Counted(Gauge);

impl Counted {
    pub fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_line_holds_it_is_one_event() {
        let line = |number, content: &str| Stored {
            number,
            content: content.to_owned(),
            level: "INFO".to_owned(),
            logged_at: "2026-11-24T10:00:00.5Z".parse().unwrap(),
        };
        let hostile = "a\r\n\ndata: {}\n\nid: 9\u{2028}\u{1b}[31m\"\\";
        let text = String::from_utf8(events(&[line(1, ""), line(2, hostile)]).to_vec()).unwrap();
        let frames: Vec<&str> = text.split_terminator("\n\n").collect();
        assert_eq!(
            frames[0],
            r#"id: 1
data: {"at":"2026-11-24T10:00:00.5Z","level":"INFO","line":1,"text":""}"#
        );
        let (id, data) = frames[1].split_once("\ndata: ").unwrap();
        let data: Value = serde_json::from_str(data).unwrap();
        assert_eq!((frames.len(), id, data["text"].as_str()), (2, "id: 2", Some(hostile)));
    }
}
