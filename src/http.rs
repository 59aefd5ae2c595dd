//! The operator's HTTP server: health and metrics for whoever asks, `/api/v1` for whoever may read builds in a
//! namespace, and `/hooks` for whoever signs what they deliver. Every replica serves all of it: what is told comes from
//! rows, and what is delivered becomes one.

mod access;
mod builds;
mod connections;
mod health;
mod hooks;
mod logs;
mod parameters;
mod refusal;
mod tails;
mod tls;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{FromRef, MatchedPath, Request, State},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub use self::{
    access::AUDIENCE,
    connections::{serve, serve_encrypted},
    hooks::{Hooks, routes as hooks},
    tls::acceptor,
};
use self::{access::Access, logs::Seats, refusal::Refusal, tails::Tails};
use crate::runtime::{Context, health::Health, metrics::Metrics};

/// How long an answer may take; that of a log, until it begins.
const PATIENCE: Duration = Duration::from_secs(20);

/// Connections at once: the viewers, and as many for all else.
pub const CONNECTIONS: usize = 2 * logs::VIEWERS;
/// Connections at once of the port for health and metrics.
pub const PROBES: usize = 64;

/// What the handlers share.
#[derive(Clone)]
pub struct Served {
    context: Context,
    access: Arc<Access>,
    tails: Arc<Tails>,
    seats: Seats,
    /// Ends the streams.
    stop: CancellationToken,
}

impl FromRef<Served> for Health {
    fn from_ref(served: &Served) -> Self {
        served.context.health.clone()
    }
}

impl FromRef<Context> for Health {
    fn from_ref(context: &Context) -> Self {
        context.health.clone()
    }
}

impl FromRef<Context> for Metrics {
    fn from_ref(context: &Context) -> Self {
        context.metrics.clone()
    }
}

impl FromRef<Served> for Metrics {
    fn from_ref(served: &Served) -> Self {
        served.context.metrics.clone()
    }
}

/// The API, and that there is nothing elsewhere. Its streams end at `stop`.
pub fn router(context: Context, stop: CancellationToken) -> Router {
    let served = Served {
        access: Arc::new(Access::new(context.client.clone())),
        tails: Arc::new(Tails::new(&context)),
        seats: Seats::default(),
        context,
        stop,
    };
    let answers = Router::new()
        .route("/namespaces/{namespace}/builds", get(builds::list))
        .route("/namespaces/{namespace}/builds/{name}", get(builds::by_name))
        .route("/namespaces/{namespace}/builds/{name}/steps", get(builds::steps_by_name))
        .route("/namespaces/{namespace}/builds/{name}/history", get(builds::history_by_name))
        .route("/namespaces/{namespace}/builds/{name}/results", get(builds::results_by_name))
        .route("/namespaces/{namespace}/builds/{name}/logs", get(logs::by_name))
        .route("/builds/{id}", get(builds::by_id))
        .route("/builds/{id}/steps", get(builds::steps_by_id))
        .route("/builds/{id}/history", get(builds::history_by_id))
        .route("/builds/{id}/results", get(builds::results_by_id))
        .route("/builds/{id}/logs", get(logs::by_id))
        .fallback(async || Refusal::NotFound("there is nothing here; docs/api.md says what there is".to_owned()))
        .layer(middleware::from_fn(in_time));
    Router::new()
        .nest("/api/v1", answers)
        .fallback(async || StatusCode::NOT_FOUND)
        .layer(middleware::from_fn_with_state(served.context.metrics.clone(), counted))
        .with_state(served)
}

/// Health and metrics alone, for a port of their own: however many read builds, Kubernetes has its answer.
pub fn probes(context: &Context) -> Router {
    health::routes().with_state(context.clone())
}

async fn in_time(request: Request, next: Next) -> Response {
    let answer = timeout(PATIENCE, next.run(request)).await;
    answer.unwrap_or_else(|_| Refusal::Unavailable("the answer took too long; try again").into_response())
}

/// Counts answers by the route, of which there are few, and not by the path, of which there are many.
async fn counted(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let response = next.run(request).await;
    metrics.answered(route, response.status().as_u16());
    response
}

#[cfg(test)]
mod tests;
