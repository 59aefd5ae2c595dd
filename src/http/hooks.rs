//! `/hooks/<namespace>/<name>`: what Git hosts deliver. A delivery is looked at only far enough to know whether it was
//! signed, stored as a row, and answered; what comes of it is decided afterwards, by whoever leads. Every replica serves
//! this. A webhook that is not there, one that is suspended, and a signature that is wrong have one answer.

mod bodies;
mod known;
mod store;

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{MatchedPath, Path, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use image_factory_core::{
    signature::{self, Headers},
    storable,
};
use kube::Client;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::PgPool;
use tokio::{sync::Semaphore, time::timeout};
use uuid::Uuid;

use self::{
    bodies::{Bodies, MAX_BODY},
    known::Known,
    store::Store,
};
use crate::{
    clock, db,
    db::{deliveries::Received, webhooks::Active},
    runtime::metrics::Metrics,
};

/// How long a delivery may take, from its first byte to its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// KiB of bodies that are read as JSON at once, which takes many times as much memory.
const READ_AT_ONCE: usize = 8 * 1_024;
/// Of a delivery's id.
const MAX_ID: usize = 255;

/// What the handlers share.
#[derive(Clone)]
pub struct Hooks(Arc<Shared>);

struct Shared {
    known: Known,
    store: Store,
    limiter: DefaultKeyedRateLimiter<Uuid>,
    bodies: Bodies,
    turns: Semaphore,
    metrics: Metrics,
}

impl Hooks {
    /// `pool` is for nothing else; `rate` is the deliveries a second of one webhook.
    pub fn new(client: Client, pool: PgPool, metrics: Metrics, rate: NonZeroU32) -> Self {
        let quota = Quota::per_second(rate).allow_burst(rate.saturating_mul(NonZeroU32::MIN.saturating_add(1)));
        Self(Arc::new(Shared {
            known: Known::new(client, pool.clone()),
            store: Store::new(pool),
            limiter: RateLimiter::keyed(quota),
            bodies: Bodies::default(),
            turns: Semaphore::new(READ_AT_ONCE),
            metrics,
        }))
    }
}

/// The routes of deliveries.
pub fn routes(hooks: Hooks) -> Router {
    Router::new().route("/hooks/{namespace}/{name}", post(deliver)).with_state(hooks)
}

/// What a sender is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Accepted,
    /// No webhook, or no signature: which of both is not told.
    Unsigned,
    NoJson,
    Unreadable,
    TooLarge,
    /// The body does not go on coming.
    Slow,
    TooMany,
    Unavailable,
}

impl Answer {
    const fn is(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::Accepted => (StatusCode::ACCEPTED, "accepted", ""),
            Self::Unsigned => {
                (StatusCode::UNAUTHORIZED, "unsigned", "there is no such webhook, or its secret has not signed this")
            }
            Self::NoJson => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "no_json",
                "deliveries must be JSON: choose the content type application/json at the Git host",
            ),
            Self::Unreadable => {
                (StatusCode::BAD_REQUEST, "unreadable", "the body is not JSON, or the delivery has no id")
            }
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large", "a delivery may have at most 5 MiB"),
            Self::Slow => (StatusCode::REQUEST_TIMEOUT, "slow", "the body of the delivery did not come"),
            Self::TooMany => {
                (StatusCode::TOO_MANY_REQUESTS, "too_many", "this webhook has received too many deliveries at once")
            }
            Self::Unavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "the delivery can't be stored now; deliver it again")
            }
        }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let (status, _, sentence) = self.is();
        if self == Self::Accepted {
            return status.into_response();
        }
        let mut response = (status, Json(json!({"error": sentence}))).into_response();
        if matches!(self, Self::TooMany | Self::Unavailable) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
        }
        response
    }
}

async fn deliver(
    State(Hooks(shared)): State<Hooks>,
    Path((namespace, name)): Path<(String, String)>,
    route: MatchedPath,
    request: Request,
) -> Response {
    let answer = timeout(PATIENCE, shared.answer(&namespace, &name, request)).await.unwrap_or(Answer::Unavailable);
    let (status, word, _) = answer.is();
    shared.metrics.delivered(word);
    shared.metrics.answered(route.as_str().to_owned(), status.as_u16());
    answer.into_response()
}

impl Shared {
    async fn answer(&self, namespace: &str, name: &str, request: Request) -> Answer {
        match self.receive(namespace, name, request).await {
            Ok(()) => Answer::Accepted,
            Err(answer) => answer,
        }
    }

    async fn receive(&self, namespace: &str, name: &str, request: Request) -> Result<(), Answer> {
        if !is_json(request.headers()) {
            return Err(Answer::NoJson);
        }
        let headers = request.headers().clone();
        if announced(&headers).is_some_and(|length| length > MAX_BODY) {
            return Err(Answer::TooLarge);
        }
        let held = self.bodies.read((namespace.to_owned(), name.to_owned()), request.into_body()).await?;
        let body = &held.bytes;
        let webhook = self.known.webhook(namespace, name).await?.ok_or(Answer::Unsigned)?;
        self.verify(namespace, &webhook, &headers, body).await?;
        // Only after the signature: nobody else can use up what the Git host may send.
        self.limiter.check_key(&webhook.id).map_err(|_| Answer::TooMany)?;
        let share = u32::try_from(body.len() / 1_024 + 1).unwrap_or(u32::MAX);
        let _turn = self.turns.acquire_many(share).await.map_err(|_| Answer::Unavailable)?;
        let received = read(&webhook, &headers, body)?;
        self.store.put(received).await.map_err(|error| {
            tracing::warn!(webhook.namespace = namespace, webhook.name = name, %error, "a delivery could not be stored");
            Answer::Unavailable
        })
    }

    /// Where the signature is wrong, the secret may just have been changed: it is read once more, though not each time.
    async fn verify(&self, namespace: &str, webhook: &Active, headers: &HeaderMap, body: &[u8]) -> Result<(), Answer> {
        let now = clock::now().as_second();
        for look in [known::Look::Remembered, known::Look::Again] {
            let Some(secrets) = self.known.secrets(namespace, webhook, look).await? else { break };
            let secrets: Vec<&[u8]> = secrets.iter().map(Vec::as_slice).collect();
            let Some(scheme) = webhook.spec.scheme() else { break };
            // That a secret can't be used says the webhook's status; a stranger learns nothing.
            if signature::verify(scheme, &Sent(headers), body, &secrets, now).unwrap_or(false) {
                return Ok(());
            }
        }
        Err(Answer::Unsigned)
    }
}

/// How long a body is said to be.
fn announced(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The headers of a request.
struct Sent<'a>(&'a HeaderMap);

impl Headers for Sent<'_> {
    fn values(&self, name: &str) -> Vec<&[u8]> {
        self.0.get_all(name).iter().map(HeaderValue::as_bytes).collect()
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}

/// What is stored of a delivery.
fn read(webhook: &Active, headers: &HeaderMap, body: &[u8]) -> Result<Received, Answer> {
    let provider = webhook.spec.provider.ok_or(Answer::Unsigned)?;
    let row = provider.row();
    let payload: Value = serde_json::from_slice(body).map_err(|_| Answer::Unreadable)?;
    let payload = storable::json(payload);
    let sent = Sent(headers);
    let mut ids = row.delivery.iter().filter(|name| headers.contains_key(**name));
    let delivery_id = match ids.next() {
        Some(name) => signature::single(&sent, name).filter(|id| is_id(id)).ok_or(Answer::Unreadable)?.to_owned(),
        // Who signs with a header of its own may have no ids: the same body is the same delivery.
        None if webhook.spec.generic.is_some() => hex::encode(Sha256::digest(body)),
        None => return Err(Answer::Unreadable),
    };
    let event =
        if row.event.is_empty() { "" } else { signature::single(&sent, row.event).ok_or(Answer::Unreadable)? };
    let event = (row.read)(event, &payload, &webhook.spec.pointers()).bounded();
    Ok(Received { webhook: webhook.id, delivery_id, event, payload })
}

fn is_id(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_ID && text.bytes().all(|byte| byte.is_ascii_graphic())
}

impl From<db::Error> for Answer {
    fn from(error: db::Error) -> Self {
        tracing::warn!(%error, "a delivery could not be looked at");
        Self::Unavailable
    }
}
