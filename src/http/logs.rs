//! `/api/v1/…/logs`: a log as it grows, as server-sent events or as plain text. The id of an event is
//! the number of its line, so whoever was cut off goes on after the last one it has seen. A stream
//! ends with the event `end`, which tells the outcome; one that ends without it is to be taken up again.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::{
    sync::{broadcast::error::RecvError, mpsc},
    time::{sleep, timeout},
};
use uuid::Uuid;

use super::{
    Served,
    access::Caller,
    builds::{self, Found},
    connections::Lasts,
    parameters::{Id, Named, Parameters},
    refusal::Refusal,
    tails::{self, CHUNK, Counted, News, Tails},
};
use crate::{
    clock,
    db::{
        archive,
        logs::{self, Stored},
    },
};

/// Viewers at once.
pub const VIEWERS: usize = 1_000;
/// A comment after as much silence: neither side takes the other for dead.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// A viewer that takes nothing for so long is left.
const PATIENCE: Duration = Duration::from_mins(1);
/// Then the viewer comes again, and must still have the right to.
const LIFETIME: Duration = Duration::from_mins(15);
/// How long a browser waits before it comes again, in milliseconds.
const RETRY: &str = "retry: 1000\n\n";

/// Places for viewers, and how many each tenant's builds have. One tenant may have as many as are then still free: a
/// single one at most half, and there is always room for another.
#[derive(Clone, Default)]
pub struct Seats(Arc<Mutex<BTreeMap<String, usize>>>);

impl Seats {
    fn take(&self, tenant: &str) -> Result<Seat, Refusal> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let free = VIEWERS.saturating_sub(taken.values().sum());
        if taken.get(tenant).copied().unwrap_or_default() >= free {
            return Err(Refusal::Unavailable(
                "as many logs of this namespace are being read as this server can serve; try again",
            ));
        }
        *taken.entry(tenant.to_owned()).or_default() += 1;
        Ok(Seat { seats: self.clone(), tenant: tenant.to_owned() })
    }
}

/// A place, for as long as it lives.
struct Seat {
    seats: Seats,
    tenant: String,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.tenant) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.tenant);
            }
        }
    }
}

/// What is asked for of a log.
struct Asked {
    from: Option<i64>,
    since: Option<Since>,
    follow: bool,
    as_text: bool,
}

impl Asked {
    /// A browser that comes again repeats its query: what it has seen by then counts for more.
    fn read(headers: &HeaderMap, parameters: &mut Parameters) -> Result<Self, Refusal> {
        let seen = match headers.get("last-event-id") {
            None => None,
            Some(value) => {
                let number = value.to_str().ok().and_then(|text| text.parse::<i64>().ok()).filter(|id| *id >= 0);
                Some(number.ok_or_else(|| {
                    Refusal::Parameter("header Last-Event-ID must be the number of a line".to_owned())
                })?)
            }
        };
        let from = parameters.take_number("from", 1, i64::MAX)?;
        let since =
            parameters.take::<Since>("since", "a time such as 2026-11-24T10:00:00Z, or a duration such as 10m")?;
        let follow = parameters.take::<bool>("follow", "true or false")?.unwrap_or(true);
        let accepts = |what: &str| {
            headers.get_all(header::ACCEPT).iter().any(|value| value.to_str().is_ok_and(|value| value.contains(what)))
        };
        Ok(Self {
            from: seen.map_or(from, |seen| Some(seen.saturating_add(1))),
            since: since.filter(|_| seen.is_none()),
            follow,
            as_text: accepts("text/plain") && !accepts("text/event-stream"),
        })
    }
}

/// From when on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Since {
    At(Timestamp),
    Ago(SignedDuration),
}

impl FromStr for Since {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self::At).or_else(|_| text.parse().map(|ago: SignedDuration| Self::Ago(ago.abs())))
    }
}

impl Since {
    fn at(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::Ago(ago) => now.saturating_sub(ago).unwrap_or(Timestamp::MIN),
        }
    }
}

pub async fn by_name(
    State(served): State<Served>,
    caller: Caller,
    named: Named,
    headers: HeaderMap,
    mut parameters: Parameters,
) -> Result<Response, Refusal> {
    let which = parameters.take_attempt()?;
    let asked = Asked::read(&headers, &mut parameters)?;
    parameters.end()?;
    let found = builds::attempt(&served, &caller, &named, which).await?;
    stream(&served, &found, &asked).await
}

pub async fn by_id(
    State(served): State<Served>,
    caller: Caller,
    id: Id,
    headers: HeaderMap,
    mut parameters: Parameters,
) -> Result<Response, Refusal> {
    let asked = Asked::read(&headers, &mut parameters)?;
    parameters.end()?;
    let found = builds::known(&served, &caller, &id).await?;
    stream(&served, &found, &asked).await
}

async fn stream(served: &Served, &Found { id: build, ref tenant }: &Found, asked: &Asked) -> Result<Response, Refusal> {
    let seat = served.seats.take(tenant)?;
    let pool = &served.context.pool;
    let mut after = 0;
    if asked.from.is_some() || asked.since.is_some() {
        // Whoever asks for what is not there yet has all there is: others may share its tail.
        let last = logs::last_line(pool, build).await?;
        after = asked.from.map_or(0, |from| from - 1).min(last);
        if let Some(since) = asked.since {
            let first = logs::first_line_since(pool, build, since.at(clock::now())).await?;
            after = after.max(first.map_or(last, |first| first - 1));
        }
    }
    let (sender, mut frames) = mpsc::channel(1);
    let viewer = Viewer {
        pool: pool.clone(),
        tails: served.tails.clone(),
        build,
        after,
        follow: asked.follow,
        as_text: asked.as_text,
        frames: sender,
    };
    let counted = Counted::new(&served.context.metrics.http_log_viewers);
    let stop = served.stop.clone();
    tokio::spawn(async move {
        let gone = viewer.frames.clone();
        tokio::select! {
            ended = viewer.run() => if let Err(Gone::Database(error)) = ended {
                tracing::warn!(build.id = %build, %error, "a log could not be read for a viewer, which has to come again");
            },
            () = gone.closed() => {}
            () = stop.cancelled() => {}
            () = sleep(LIFETIME) => {}
        }
        drop((seat, counted));
    });
    let kind = if asked.as_text { "text/plain; charset=utf-8" } else { "text/event-stream" };
    let frames = futures::stream::poll_fn(move |context| frames.poll_recv(context)).map(Ok::<_, Infallible>);
    let mut response = Body::from_stream(frames).into_response();
    response.extensions_mut().insert(Lasts(LIFETIME));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // So that a proxy passes on each line when it comes.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// Why a viewer is served no more.
#[derive(Debug)]
enum Gone {
    Database(crate::db::Error),
    Viewer,
}

impl From<crate::db::Error> for Gone {
    fn from(error: crate::db::Error) -> Self {
        Self::Database(error)
    }
}

/// One that reads along.
struct Viewer {
    pool: PgPool,
    tails: Arc<Tails>,
    build: Uuid,
    /// Number of the last line it has.
    after: i64,
    follow: bool,
    as_text: bool,
    frames: mpsc::Sender<Bytes>,
}

impl Viewer {
    async fn run(mut self) -> Result<(), Gone> {
        if !self.as_text {
            self.send(Bytes::from_static(RETRY.as_bytes())).await?;
        }
        let has_ended = self.catch_up(i64::MAX).await?;
        if has_ended || !self.follow {
            let build = archive::described(&self.pool, &[self.build]).await?.pop().unwrap_or_default();
            return self.end(&build).await;
        }
        loop {
            if let Some(build) = self.live().await? {
                return self.end(&build).await;
            }
        }
    }

    /// Sends what is stored, up to this line at least; gives whether that is all there will ever be.
    async fn catch_up(&mut self, to: i64) -> Result<bool, Gone> {
        let mut has_ended = false;
        while self.after < to {
            let page = logs::read(&self.pool, self.build, self.after, CHUNK).await?.ok_or(Gone::Viewer)?;
            if let Some(last) = page.lines.last() {
                self.send(self.rendered(&page.lines)).await?;
                self.after = last.number;
            }
            if page.is_last {
                has_ended = page.status.is_terminal();
                break;
            }
        }
        Ok(has_ended)
    }

    /// Sends what the tail tells, until the attempt has ended; nothing where the tail has.
    async fn live(&mut self) -> Result<Option<Arc<Value>>, Gone> {
        let (mut news, told) = self.tails.join(self.build, self.after);
        self.catch_up(told).await?;
        loop {
            match timeout(HEARTBEAT, news.recv()).await {
                Ok(Ok(News::Lines(chunk))) => self.take(&chunk).await?,
                Ok(Ok(News::Ended(last, build))) => {
                    self.catch_up(last).await?;
                    return Ok(Some(build));
                }
                // Too slow for the tail. What comes next shows what is missing.
                Ok(Err(RecvError::Lagged(_))) => {}
                Ok(Err(RecvError::Closed)) => return Ok(None),
                Err(_) if self.as_text => {}
                Err(_) => self.send(Bytes::from_static(b":\n\n")).await?,
            }
        }
    }

    async fn take(&mut self, chunk: &tails::Chunk) -> Result<(), Gone> {
        let (Some(first), Some(last)) = (chunk.lines.first(), chunk.lines.last()) else { return Ok(()) };
        self.catch_up(first.number - 1).await?;
        if last.number <= self.after {
            return Ok(());
        }
        if first.number == self.after + 1 && !self.as_text {
            self.send(chunk.events.clone()).await?;
        } else {
            let new: Vec<Stored> = chunk.lines.iter().filter(|line| line.number > self.after).cloned().collect();
            self.send(self.rendered(&new)).await?;
        }
        self.after = last.number;
        Ok(())
    }

    fn rendered(&self, lines: &[Stored]) -> Bytes {
        if self.as_text {
            lines.iter().flat_map(|line| [line.content.as_str(), "\n"]).collect::<String>().into()
        } else {
            tails::events(lines)
        }
    }

    async fn end(&mut self, build: &Value) -> Result<(), Gone> {
        if self.as_text {
            return Ok(());
        }
        let data = json!({"last_line": self.after, "build": build});
        self.send(format!("event: end\ndata: {data}\n\n").into()).await
    }

    async fn send(&self, frame: Bytes) -> Result<(), Gone> {
        match timeout(PATIENCE, self.frames.send(frame)).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Gone::Viewer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_many_places_a_tenant_takes_there_is_one_for_another() {
        let seats = Seats::default();
        let taken = |tenant: &str| -> Vec<Seat> { std::iter::from_fn(|| seats.take(tenant).ok()).collect() };
        let green = taken("green");
        assert_eq!(green.len(), VIEWERS / 2);
        let red = taken("red");
        assert_eq!(red.len(), VIEWERS / 4);
        assert!(seats.take("blue").is_ok());
        drop((green, red));
        assert!(seats.0.lock().unwrap().is_empty(), "what was left is free again");
    }

    #[test]
    fn since_is_a_time_or_how_long_ago() {
        let now: Timestamp = "2026-11-24T10:00:00Z".parse().unwrap();
        for (text, at) in [
            ("10m", "2026-11-24T09:50:00Z"),
            ("1h30m", "2026-11-24T08:30:00Z"),
            ("-5s", "2026-11-24T09:59:55Z"),
            ("2026-11-24T09:00:00+01:00", "2026-11-24T08:00:00Z"),
        ] {
            assert_eq!(text.parse::<Since>().unwrap().at(now).to_string(), at, "{text}");
        }
        for text in ["", "10", "yesterday", "2026-11-24", "10m; drop", "2026-11-24T10:00:00"] {
            assert!(text.parse::<Since>().is_err(), "{text:?}");
        }
        assert_eq!("9999999999h".parse::<Since>().unwrap().at(now), Timestamp::MIN, "as long ago as can be");
    }
}
