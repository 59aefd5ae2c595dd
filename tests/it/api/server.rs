//! A server of the API in the test's own process, and who reads from it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{Request, Response, StatusCode, header},
};
use http_body_util::BodyExt;
use image_factory::{
    http::router,
    jobs,
    runtime::{Context, health::Health, metrics::Metrics},
};
use image_factory_core::patience::Patience;
use kube::{
    Client,
    runtime::events::{Recorder, Reporter},
};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::{sync::broadcast, time::timeout};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

pub const PATIENCE: Duration = Duration::from_secs(20);

/// An API server where everybody may read what is in the namespaces that there are, by UID.
#[derive(Clone, Default)]
pub struct Namespaces(Arc<Mutex<BTreeMap<String, String>>>);

impl Namespaces {
    pub fn has(&self, name: &str, uid: &str) {
        self.0.lock().expect("no panic").insert(name.to_owned(), uid.to_owned());
    }

    fn client(&self) -> Client {
        let namespaces = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let namespaces = namespaces.clone();
            async move {
                let path = request.uri().path().to_owned();
                let body = request.into_body().collect().await.expect("a body").to_bytes();
                let mut answer: Value = serde_json::from_slice(&body).unwrap_or_default();
                let mut code = 200;
                if let Some(name) = path.strip_prefix("/api/v1/namespaces/") {
                    let uid = namespaces.0.lock().expect("no panic").get(name).cloned();
                    code = if uid.is_some() { 200 } else { 404 };
                    answer = match uid {
                        Some(uid) => json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
                            "metadata": {"name": name, "uid": uid}}),
                        None => json!({"apiVersion": "v1", "kind": "Status", "code": 404, "reason": "NotFound"}),
                    };
                } else {
                    answer["status"] = json!({"authenticated": true, "allowed": true, "user": {"username": "orchard"}});
                }
                let response = Response::builder().status(code).header(header::CONTENT_TYPE, "application/json");
                Ok::<_, kube::Error>(response.body(Body::from(answer.to_string())).expect("a response"))
            }
        });
        Client::new(service, "default")
    }
}

/// A server whose pool is the test's.
pub struct Api {
    pub router: Router,
    pub context: Context,
    pub namespaces: Namespaces,
}

impl Api {
    pub fn new(pool: &PgPool) -> Self {
        let namespaces = Namespaces::default();
        let client = namespaces.client();
        let context = Context {
            client: client.clone(),
            streams: client.clone(),
            pool: pool.clone(),
            recorder: Recorder::new(client, Reporter { controller: "test".to_owned(), instance: None }),
            jobs: Arc::new(jobs::Settings::default()),
            metrics: Metrics::default(),
            health: Health::default(),
            patience: Patience::default(),
            stored: broadcast::channel(16).0,
            followed: std::sync::Arc::default(),
            log_bytes: 0,
            records_users: false,
        };
        Self { router: router(context.clone(), CancellationToken::new()), context, namespaces }
    }

    /// One that knows the tenant of `attempts::attempt`.
    pub fn of(pool: &PgPool, tenant: &str) -> Self {
        let api = Self::new(pool);
        api.namespaces.has(tenant, &format!("uid-{tenant}"));
        api
    }

    pub async fn send(&self, path: &str, headers: &[(&str, &str)]) -> Response<Body> {
        let mut request = Request::get(format!("/api/v1{path}")).header("authorization", "Bearer any");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).expect("a request");
        self.router.clone().oneshot(request).await.expect("an answer")
    }

    pub async fn get(&self, path: &str) -> (StatusCode, Value) {
        let response = self.send(path, &[]).await;
        let status = response.status();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        (status, serde_json::from_slice(&body).expect("JSON"))
    }

    pub async fn ok(&self, path: &str) -> Value {
        let (status, body) = self.get(path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }

    /// A stream, from its first frame on.
    pub async fn stream(&self, path: &str, headers: &[(&str, &str)]) -> Stream {
        let response = self.send(path, headers).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        Stream { body: response.into_body(), text: String::new() }
    }
}

pub struct Stream {
    body: Body,
    text: String,
}

impl Stream {
    /// The next event: its name, its id, its data; none at the end of the stream.
    pub async fn event(&mut self) -> Option<(String, String, Value)> {
        loop {
            while let Some((frame, rest)) = self.text.split_once("\n\n") {
                let (frame, rest) = (frame.to_owned(), rest.to_owned());
                self.text = rest;
                let field = |name: &str| frame.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
                if !field("data: ").is_empty() {
                    let data = serde_json::from_str(field("data: ")).expect("JSON");
                    return Some((field("event: ").to_owned(), field("id: ").to_owned(), data));
                }
            }
            let frame = timeout(PATIENCE, self.body.frame()).await.expect("in time")?.expect("no error");
            self.text += std::str::from_utf8(frame.data_ref().expect("data")).expect("UTF-8");
        }
    }

    /// The texts of the next lines, whose numbers follow one another from `first` on.
    pub async fn lines(&mut self, first: i64, count: usize) -> Vec<String> {
        let mut texts = Vec::new();
        for number in (first..).take(count) {
            let (name, id, data) = self.event().await.expect("the stream goes on");
            assert_eq!((name.as_str(), id), ("", number.to_string()), "{data}");
            assert_eq!(data["line"], number);
            texts.push(data["text"].as_str().expect("a text").to_owned());
        }
        texts
    }

    /// The end, which must come next; the data of its event.
    pub async fn end(mut self) -> Value {
        let (name, _, data) = self.event().await.expect("the stream says how it ends");
        assert_eq!(name, "end", "{data}");
        assert!(self.event().await.is_none(), "nothing follows the end");
        data
    }
}
