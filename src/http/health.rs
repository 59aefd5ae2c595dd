//! `/livez`, `/readyz` and `/metrics`: what Kubernetes and Prometheus ask.

use axum::{
    Router,
    extract::{FromRef, State},
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};

use crate::runtime::{health::Health, metrics::Metrics};

/// <https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md>
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S>
where
    Health: FromRef<S>,
    Metrics: FromRef<S>,
{
    Router::new().route("/livez", get(live)).route("/readyz", get(ready)).route("/metrics", get(metrics))
}

async fn live(State(health): State<Health>) -> (StatusCode, String) {
    answer("silent", &health.silent())
}

async fn ready(State(health): State<Health>) -> (StatusCode, String) {
    answer("not ready", &health.missing())
}

fn answer(what: &str, wrong: &[&str]) -> (StatusCode, String) {
    if wrong.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("{what}: {}\n", wrong.join(", ")))
    }
}

async fn metrics(State(metrics): State<Metrics>) -> impl IntoResponse {
    match metrics.text() {
        Ok(text) => (StatusCode::OK, [(header::CONTENT_TYPE, OPEN_METRICS)], text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_TYPE, "text/plain")], error.to_string()),
    }
}
