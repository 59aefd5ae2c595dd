//! Deliveries are stored together: while statements are under way those that come wait for the next, and share its
//! commit. Each is answered only when its own row is there.

use std::sync::Arc;

use sqlx::PgPool;
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::db::{
    self,
    deliveries::{self, Received},
};

/// Deliveries of one statement.
const BATCH: usize = 100;
/// Statements at once: a server with more than one processor parses, compresses and commits on each.
const AT_ONCE: usize = 3;

pub struct Store(mpsc::Sender<Waiting>);

struct Waiting {
    received: Received,
    stored: oneshot::Sender<Result<(), Failure>>,
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    #[error("{0}")]
    Db(Arc<db::Error>),
    #[error("failed to store a delivery: the server ends")]
    Ends,
}

impl From<db::Error> for Failure {
    fn from(error: db::Error) -> Self {
        Self::Db(Arc::new(error))
    }
}

impl Store {
    /// Stores until it is dropped, with all its deliveries answered.
    pub fn new(pool: PgPool) -> Self {
        let (sender, waiting) = mpsc::channel(BATCH);
        let waiting = Arc::new(Mutex::new(waiting));
        for pool in std::iter::repeat_n(pool, AT_ONCE) {
            tokio::spawn(store(pool, waiting.clone()));
        }
        Self(sender)
    }

    /// Returns when the delivery is a row.
    pub async fn put(&self, received: Received) -> Result<(), Failure> {
        let (stored, answer) = oneshot::channel();
        self.0.send(Waiting { received, stored }).await.map_err(|_| Failure::Ends)?;
        answer.await.map_err(|_| Failure::Ends)?
    }
}

async fn store(pool: PgPool, waiting: Arc<Mutex<mpsc::Receiver<Waiting>>>) {
    loop {
        let mut batch = Vec::with_capacity(BATCH);
        if waiting.lock().await.recv_many(&mut batch, BATCH).await == 0 {
            return;
        }
        let (received, answers): (Vec<Received>, Vec<_>) =
            batch.into_iter().map(|Waiting { received, stored }| (received, stored)).unzip();
        let together = deliveries::receive(&pool, &received).await.map(drop);
        // What one delivery holds must not keep the others from being stored.
        let is_data = matches!(&together, Err(db::Error::Sql(sqlx::Error::Database(_)))) && received.len() > 1;
        let together = together.map_err(Failure::from);
        for (one, answer) in received.into_iter().zip(answers) {
            let result = if is_data {
                deliveries::receive(&pool, &[one]).await.map(drop).map_err(Failure::from)
            } else {
                together.clone()
            };
            // A sender that has gone will deliver it again, and it is there.
            let _ = answer.send(result);
        }
    }
}
