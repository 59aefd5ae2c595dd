//! The newest attempts that reconciles begin with, read together: whoever asks while one statement is
//! under way shares the next. A burst of changes, the timers of Builds that came together, and the
//! first list after a start are then a few statements, not one a Build.

use std::sync::{Mutex, PoisonError};

use sqlx::PgPool;
use tokio::sync::oneshot;

use crate::db::{
    self,
    builds::{self, Newest},
};

#[derive(Default)]
pub struct Newests {
    asked: Mutex<Vec<Question>>,
    /// Held by who reads.
    turn: tokio::sync::Mutex<()>,
}

struct Question {
    uid: String,
    answer: oneshot::Sender<Option<Newest>>,
}

impl Newests {
    /// The newest attempt of the Build with this UID, read after the call.
    ///
    /// # Errors
    /// When the query fails.
    pub async fn read(&self, pool: &PgPool, uid: &str) -> db::Result<Option<Newest>> {
        let (answer, mut answered) = oneshot::channel();
        self.questions().push(Question { uid: uid.to_owned(), answer });
        let _turn = self.turn.lock().await;
        if let Ok(newest) = answered.try_recv() {
            return Ok(newest);
        }
        // Nobody has read it yet, or who did could not and has told only itself.
        let questions = std::mem::take(&mut *self.questions());
        let mut uids: Vec<String> = questions.iter().map(|question| question.uid.clone()).collect();
        uids.push(uid.to_owned());
        uids.sort_unstable();
        uids.dedup();
        let found = builds::newest_of(pool, &uids).await?;
        for Question { uid, answer } in questions {
            // One that waits no longer needs none.
            let _ = answer.send(found.get(&uid).cloned());
        }
        Ok(found.get(uid).cloned())
    }

    fn questions(&self) -> std::sync::MutexGuard<'_, Vec<Question>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
