//! How bodies are read before anybody knows whether they were signed: no more of them at once than there is room for, of
//! all webhooks and of one, and only for as long as they keep coming. Room is taken for what has come, not for what was
//! announced; so a sender that is slow, or silent, keeps it from nobody.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::body::{Body, Bytes};
use futures::StreamExt;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::Answer;

/// Git hosts send less; what is beyond is not read.
pub const MAX_BODY: usize = 5 * 1024 * 1024;
/// Room is taken in pieces of this size.
const PIECE: usize = 16 * 1024;
/// Pieces of all bodies at once, and of those of one webhook.
const ALL: usize = 64 * 1024 * 1024 / PIECE;
const OF_ONE: usize = 16 * 1024 * 1024 / PIECE;
/// How long nothing of a body may come.
const SILENCE: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 3 });
/// How long a body that is begun may wait for others to be done with.
const WAIT: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 2 });

/// Namespace and name, whether or not there is such a webhook.
type Name = (String, String);

/// The room that there is.
#[derive(Clone)]
pub struct Bodies {
    all: Arc<Semaphore>,
    of: Arc<Mutex<HashMap<Name, usize>>>,
}

impl Default for Bodies {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(ALL)), of: Arc::default() }
    }
}

/// A whole body, and the room it takes until it is dropped.
pub struct Held {
    pub bytes: Bytes,
    _room: Room,
}

impl Bodies {
    /// Reads a body that was sent to the webhook of this name.
    pub async fn read(&self, name: Name, body: Body) -> Result<Held, Answer> {
        let mut room = Room { bodies: self.clone(), name, pieces: 0, permits: Vec::new() };
        let (mut bytes, mut body) = (Vec::new(), body.into_data_stream());
        loop {
            let frame = match timeout(SILENCE, body.next()).await {
                Ok(Some(frame)) => frame.map_err(|_| Answer::Unreadable)?,
                Ok(None) => return Ok(Held { bytes: bytes.into(), _room: room }),
                Err(_) => return Err(Answer::Slow),
            };
            let length = bytes.len() + frame.len();
            if length > MAX_BODY {
                return Err(Answer::TooLarge);
            }
            room.grow(length.div_ceil(PIECE)).await?;
            bytes.extend_from_slice(&frame);
        }
    }
}

/// Pieces that one body has.
struct Room {
    bodies: Bodies,
    name: Name,
    pieces: usize,
    permits: Vec<OwnedSemaphorePermit>,
}

impl Room {
    async fn grow(&mut self, pieces: usize) -> Result<(), Answer> {
        let more = pieces.saturating_sub(self.pieces);
        if more == 0 {
            return Ok(());
        }
        {
            let mut of = self.bodies.of.lock().unwrap_or_else(PoisonError::into_inner);
            let taken = of.entry(self.name.clone()).or_default();
            if *taken + more > OF_ONE {
                return Err(Answer::TooMany);
            }
            *taken += more;
            self.pieces = pieces;
        }
        let permits = self.bodies.all.clone().acquire_many_owned(u32::try_from(more).unwrap_or(u32::MAX));
        let Ok(Ok(permit)) = timeout(WAIT, permits).await else { return Err(Answer::Unavailable) };
        self.permits.push(permit);
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut of = self.bodies.of.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = of.get_mut(&self.name) {
            *taken = taken.saturating_sub(self.pieces);
            if *taken == 0 {
                of.remove(&self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, time::Instant};

    use futures::stream;

    use super::*;

    const MEBIBYTE: usize = 1024 * 1024;

    fn name(name: &str) -> Name {
        ("orchard".to_owned(), name.to_owned())
    }

    fn of(length: usize) -> Body {
        Body::from(vec![b' '; length])
    }

    /// A body of which this much comes, and then nothing.
    fn stuck(length: usize) -> Body {
        let begin = stream::once(async move { Ok::<_, Infallible>(Bytes::from(vec![b' '; length])) });
        Body::from_stream(begin.chain(stream::pending()))
    }

    fn refused(read: Result<Held, Answer>) -> Option<Answer> {
        read.err()
    }

    impl Bodies {
        fn is_empty(&self) -> bool {
            self.all.available_permits() == ALL && self.of.lock().unwrap().is_empty()
        }
    }

    #[tokio::test]
    async fn a_body_is_read_whole_up_to_its_limit_and_gives_its_room_back() {
        let bodies = Bodies::default();
        let held = bodies.read(name("a"), of(MAX_BODY)).await.ok().unwrap();
        assert_eq!(held.bytes.len(), MAX_BODY);
        assert!(!bodies.is_empty());
        assert_eq!(refused(bodies.read(name("a"), of(MAX_BODY + 1)).await), Some(Answer::TooLarge));
        drop(held);
        assert!(bodies.is_empty());
        let none = bodies.read(name("a"), Body::empty()).await.ok().unwrap();
        assert!(none.bytes.is_empty() && bodies.is_empty());
    }

    #[tokio::test]
    async fn a_sender_that_falls_silent_is_sent_away_and_keeps_nobody_out_meanwhile() {
        let bodies = Bodies::default();
        let began = Instant::now();
        // More than there would be room for, had room been taken for what they could send.
        let silent: Vec<_> = (0..2_000)
            .map(|number| {
                let bodies = bodies.clone();
                tokio::spawn(async move { refused(bodies.read(name(&format!("a{number}")), stuck(1)).await) })
            })
            .collect();
        tokio::task::yield_now().await;
        let held = bodies.read(name("b"), of(MAX_BODY)).await;
        assert!(held.is_ok() && began.elapsed() < SILENCE);
        for silent in silent {
            assert_eq!(silent.await.unwrap(), Some(Answer::Slow));
        }
        drop(held);
        assert!(bodies.is_empty());
    }

    #[tokio::test]
    async fn one_webhook_has_only_its_part_and_all_together_no_more_than_there_is() {
        let bodies = Bodies::default();
        let mut held = Vec::new();
        for webhook in ["a", "b", "c", "d"] {
            for _ in 0..4 {
                held.push(bodies.read(name(webhook), of(4 * MEBIBYTE)).await.ok().unwrap());
            }
            assert_eq!(refused(bodies.read(name(webhook), of(1)).await), Some(Answer::TooMany), "{webhook}");
        }
        assert_eq!(refused(bodies.read(name("e"), of(1)).await), Some(Answer::Unavailable));
        held.pop();
        assert!(bodies.read(name("e"), of(1)).await.is_ok());
        drop(held);
        assert!(bodies.is_empty());
    }

    #[tokio::test]
    async fn whoever_waits_goes_on_when_others_are_done() {
        let bodies = Bodies::default();
        let mut held = Vec::new();
        for webhook in ["a", "b", "c", "d"] {
            for _ in 0..4 {
                held.push(bodies.read(name(webhook), of(4 * MEBIBYTE)).await.ok().unwrap());
            }
        }
        let waiting = tokio::spawn({
            let bodies = bodies.clone();
            async move { bodies.read(name("e"), of(MEBIBYTE)).await.is_ok() }
        });
        tokio::task::yield_now().await;
        drop(held);
        assert!(waiting.await.unwrap());
    }
}
