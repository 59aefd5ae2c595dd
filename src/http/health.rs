//! `/livez`, `/readyz` and `/metrics`: what Kubernetes and Prometheus ask.

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};

use crate::runtime::{health::Health, metrics::Metrics};

/// <https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md>
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub async fn live(State(health): State<Health>) -> (StatusCode, String) {
    answer("silent", &health.silent())
}

pub async fn ready(State(health): State<Health>) -> (StatusCode, String) {
    answer("not ready", &health.missing())
}

fn answer(what: &str, wrong: &[&str]) -> (StatusCode, String) {
    if wrong.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("{what}: {}\n", wrong.join(", ")))
    }
}

pub async fn metrics(State(metrics): State<Metrics>) -> impl IntoResponse {
    match metrics.text() {
        Ok(text) => (StatusCode::OK, [(header::CONTENT_TYPE, OPEN_METRICS)], text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_TYPE, "text/plain")], error.to_string()),
    }
}
