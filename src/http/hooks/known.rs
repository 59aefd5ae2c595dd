//! What deliveries are compared with, remembered for a moment: which webhook has a name, for two seconds, and what the
//! Secrets are that it names, for half a minute. So a change takes effect that much later, and a burst of deliveries asks
//! neither database nor API server for each. No other Secret is read.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use kube::Client;
use sqlx::PgPool;
use tokio::time::timeout;
use uuid::Uuid;

use super::Answer;
use crate::{
    db::webhooks::{self, Active},
    kube_ext,
};

const WEBHOOKS: Duration = Duration::from_secs(2);
const SECRETS: Duration = Duration::from_secs(30);
/// A wrong signature has the Secrets read again, but not sooner than this after the last time.
const AGAIN: Duration = Duration::from_secs(5);
/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Names are anybody's to make up; so many are remembered.
const MOST: usize = 4_096;

pub struct Known {
    client: Client,
    pool: PgPool,
    webhooks: Memory<(String, String), Option<Arc<Active>>>,
    secrets: Memory<Uuid, Remembered>,
}

/// The entries a webhook names, by its references to them: another reference is another secret.
#[derive(Clone)]
struct Remembered {
    references: Vec<(String, String)>,
    values: Option<Arc<Vec<Vec<u8>>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    Remembered,
    Again,
}

impl Known {
    pub fn new(client: Client, pool: PgPool) -> Self {
        Self { client, pool, webhooks: Memory::default(), secrets: Memory::default() }
    }

    /// The webhook of this name, if it takes deliveries.
    pub async fn webhook(&self, namespace: &str, name: &str) -> Result<Option<Arc<Active>>, Answer> {
        // What no object can be named is in no row; and Postgres takes no NUL.
        if !is_name(namespace) || !is_name(name) {
            return Ok(None);
        }
        let key = (namespace.to_owned(), name.to_owned());
        if let Some(known) = self.webhooks.get(&key, WEBHOOKS) {
            return Ok(known);
        }
        let found = webhooks::active(&self.pool, namespace, name).await?.map(Arc::new);
        self.webhooks.put(key, found.clone());
        Ok(found)
    }

    /// The secrets of a webhook, the current one first; `None` where one is not there, or where looking again would be
    /// too soon.
    pub async fn secrets(
        &self,
        namespace: &str,
        webhook: &Active,
        look: Look,
    ) -> Result<Option<Arc<Vec<Vec<u8>>>>, Answer> {
        let references: Vec<(String, String)> =
            webhook.spec.signing_secrets().map(|secret| (secret.name.clone(), secret.key.clone())).collect();
        let youngest = if look == Look::Again { AGAIN } else { SECRETS };
        if let Some(known) = self.secrets.get(&webhook.id, youngest).filter(|known| known.references == references) {
            return Ok(known.values.filter(|_| look == Look::Remembered));
        }
        let mut values = Some(Vec::new());
        for reference in webhook.spec.signing_secrets() {
            let read = timeout(PATIENCE, kube_ext::secret_entry(&self.client, namespace, reference)).await;
            let value = match read {
                Ok(Ok(value)) => value,
                Ok(Err(error)) => {
                    tracing::warn!(webhook.namespace = namespace, %error, "the Secret of a webhook could not be read");
                    return Err(Answer::Unavailable);
                }
                Err(_) => return Err(Answer::Unavailable),
            };
            // One that was used before need not be there any more.
            let is_current = Some(reference) == webhook.spec.secret_ref.as_ref();
            match (value, &mut values) {
                (Some(value), Some(values)) => values.push(value),
                (None, _) if is_current => values = None,
                _ => {}
            }
        }
        let values = values.map(Arc::new);
        self.secrets.put(webhook.id, Remembered { references, values: values.clone() });
        Ok(values)
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.'))
}

struct Memory<K, V>(Mutex<HashMap<K, (Instant, V)>>);

impl<K, V> Default for Memory<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, V: Clone> Memory<K, V> {
    fn get(&self, key: &K, age: Duration) -> Option<V> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(key).filter(|(at, _)| at.elapsed() < age).map(|(_, value)| value.clone())
    }

    fn put(&self, key: K, value: V) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.retain(|_, (at, _)| at.elapsed() < WEBHOOKS);
        }
        if known.len() < MOST {
            known.insert(key, (Instant::now(), value));
        }
    }
}
