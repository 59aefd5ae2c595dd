//! The operator's HTTP server: `/livez`, `/readyz` and `/metrics`.

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::runtime::{health::Health, metrics::Metrics};

/// <https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md>
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub fn router(health: Health, metrics: Metrics) -> Router {
    Router::new()
        .route("/livez", get(live).with_state(health.clone()))
        .route("/readyz", get(ready).with_state(health))
        .route("/metrics", get(serve_metrics).with_state(metrics))
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

async fn serve_metrics(State(metrics): State<Metrics>) -> impl IntoResponse {
    match metrics.text() {
        Ok(text) => (StatusCode::OK, [(header::CONTENT_TYPE, OPEN_METRICS)], text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_TYPE, "text/plain")], error.to_string()),
    }
}

/// Serves until `stop`.
///
/// # Errors
/// When the server fails.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) -> std::io::Result<()> {
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::Request};
    use tower::ServiceExt;

    use super::*;

    async fn status(health: &Health, path: &str) -> StatusCode {
        let request = Request::get(path).body(Body::empty()).unwrap();
        router(health.clone(), Metrics::default()).oneshot(request).await.unwrap().status()
    }

    #[tokio::test]
    async fn a_process_without_its_database_is_live_but_not_ready() {
        let health = Health::default();
        assert_eq!(status(&health, "/livez").await, StatusCode::OK);
        assert_eq!(status(&health, "/readyz").await, StatusCode::SERVICE_UNAVAILABLE);
        health.set_database(true);
        assert_eq!(status(&health, "/readyz").await, StatusCode::OK);
        assert_eq!(status(&health, "/metrics").await, StatusCode::OK);
        assert_eq!(status(&health, "/nothing").await, StatusCode::NOT_FOUND);
    }
}
