//! A webhook's way from the router to the rows and the cluster, with what a test needs to go it.

use std::{num::NonZeroU32, path::Path, sync::Arc};

use axum::{
    Router,
    body::Body,
    http::{Request, Response, StatusCode},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::BodyExt;
use image_factory::{
    crd::WebhookConfigSpec,
    db::{
        builds::NewAttempt,
        webhooks::{Declared, declare},
        workers::TenantName,
    },
    http::{Hooks, hooks},
    jobs,
    runtime::{Context, health::Health, metrics::Metrics},
    tasks::deliverer,
};
use image_factory_core::patience::Patience;
use kube::runtime::events::{Recorder, Reporter};
use serde_json::{Value, json};
use sha2::Sha256;
use sqlx::PgPool;
use tokio::sync::broadcast;
use tower::ServiceExt;

use super::cluster::Cluster;
use crate::attempts::{attempt, queued};

pub const SECRET: &str = "It's a Secret to Everybody";
pub const WHSEC: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
pub const COMMIT: &str = "6113728f27ae82c7b1a177c8d03f9e96e0adf246";

pub fn fixture(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/webhooks");
    std::fs::read_to_string(folder.join(format!("{name}.json"))).expect("there is one")
}

pub fn hex_hmac(secret: &str, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length");
    mac.update(body.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

/// A WebhookConfig's spec, with changes.
pub fn spec(provider: &str, more: &Value) -> WebhookConfigSpec {
    let mut spec = json!({
        "provider": provider, "repository": "shop/web", "secretRef": {"name": "hook", "key": "now"},
        "template": {
            "metadata": {"labels": {"colour": "red"}},
            "spec": {
                "project": "orchard", "method": "container",
                "source": {"git": {"url": "https://git.example.com/shop/web.git", "revision": "main"}},
                "output": {"image": "registry.test/shop/web:1"},
            },
        },
    });
    for (field, value) in more.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    serde_json::from_value(spec).expect("a spec")
}

pub struct Host {
    pub pool: PgPool,
    router: Router,
    pub cluster: Cluster,
    pub context: Context,
}

impl Host {
    pub fn new(pool: &PgPool) -> Self {
        Self::limited(pool, 1_000)
    }

    pub fn limited(pool: &PgPool, rate: u32) -> Self {
        let cluster = Cluster::default();
        let entries = json!({"now": STANDARD.encode(SECRET), "before": STANDARD.encode("of old"),
            "standard": STANDARD.encode(WHSEC), "none": ""});
        cluster.has_secret("orchard", "hook", &entries);
        cluster.has_secret("orchard", "other", &entries);
        let client = cluster.client();
        let context = Context {
            client: client.clone(),
            streams: client.clone(),
            pool: pool.clone(),
            recorder: Recorder::new(client.clone(), Reporter { controller: "test".to_owned(), instance: None }),
            jobs: Arc::new(jobs::Settings::default()),
            metrics: Metrics::default(),
            health: Health::default(),
            patience: Patience::default(),
            stored: broadcast::channel(1).0,
            followed: Arc::default(),
            log_bytes: 0,
            records_users: false,
        };
        let rate = NonZeroU32::new(rate).expect("some");
        let router = hooks(Hooks::new(client, pool.clone(), context.metrics.clone(), rate));
        Self { pool: pool.clone(), router, cluster, context }
    }

    /// Declares these webhooks and no others.
    pub async fn has(&self, version: i64, webhooks: &[(&str, WebhookConfigSpec)]) {
        let declared: Vec<Declared> = webhooks
            .iter()
            .map(|(name, spec)| Declared {
                tenant: TenantName { name: "orchard".to_owned(), uid: "uid-orchard".to_owned() },
                name: (*name).to_owned(),
                uid: format!("uid-{name}"),
                url: Some(format!("https://builds.example.com/hooks/orchard/{name}")),
                spec: spec.clone(),
            })
            .collect();
        assert!(declare(&self.pool, &declared, version).await.expect("it can be declared"));
    }

    pub async fn send(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Response<Body> {
        let mut request = Request::post(path);
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).expect("a request");
        self.router.clone().oneshot(request).await.expect("an answer")
    }

    /// A push as GitHub sends it, under this id.
    pub async fn push(&self, hook: &str, id: &str, body: &str) -> StatusCode {
        let signature = format!("sha256={}", hex_hmac(SECRET, body));
        let headers = [("x-hub-signature-256", &*signature), ("x-github-event", "push"), ("x-github-delivery", id)];
        self.send(&format!("/hooks/orchard/{hook}"), &headers, body).await.status()
    }

    /// When the Builds made before have ended, as far as they were not queued.
    pub async fn deliver(&self) {
        let past = "update webhook_deliveries set made_at = made_at - interval '1 hour'";
        sqlx::query(past).execute(&self.pool).await.expect("time passes");
        self.deliver_on().await;
    }

    /// With what was made just before.
    pub async fn deliver_on(&self) {
        deliverer::deliver(&self.context).await.expect("it works");
    }

    /// The rows of deliveries, oldest first.
    pub async fn rows(&self) -> Vec<Value> {
        let rows = sqlx::query_scalar("select to_jsonb(d) from webhook_deliveries d order by id");
        rows.fetch_all(&self.pool).await.expect("rows")
    }

    pub async fn due_now(&self) {
        let due = "update webhook_deliveries set next_retry_at = now() where next_retry_at is not null";
        sqlx::query(due).execute(&self.pool).await.expect("it is due");
    }

    /// Makes the first attempt of a Build that was made, as its controller would.
    pub async fn queue(&self, build: &Value) -> uuid::Uuid {
        let metadata = &build["metadata"];
        let name = metadata["name"].as_str().expect("a name");
        let origin = metadata["annotations"]["imagefactory.dev/origin"].as_str().and_then(|origin| origin.parse().ok());
        queued(&self.pool, &NewAttempt { origin, ..attempt("orchard", name) }).await
    }

    pub fn counted(&self, answer: &str) -> bool {
        let text = self.context.metrics.text().expect("text");
        text.contains(&format!("image_factory_webhook_deliveries_total{{answer=\"{answer}\"}}"))
    }
}

pub async fn body(response: Response<Body>) -> String {
    String::from_utf8(response.into_body().collect().await.expect("a body").to_bytes().to_vec()).expect("text")
}

pub fn causes(rows: &[Value]) -> Vec<Option<&str>> {
    rows.iter().map(|row| row["error_message"].as_str()).collect()
}
