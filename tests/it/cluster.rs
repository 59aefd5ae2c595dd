//! An API server that knows what a test tells it, over HTTP like the real one: for what a real
//! cluster shows only by chance, such as a Pod that the watch has not shown yet.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    extract::State,
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use futures::StreamExt;
use image_factory::{
    config::Images,
    jobs,
    runtime::{Context, health::Health, metrics::Metrics},
};
use image_factory_core::patience::Patience;
use kube::runtime::events::{Recorder, Reporter};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::sync::mpsc;

/// How long the list of all Pods takes: whoever does not wait for it acts before it is there.
const LIST: Duration = Duration::from_millis(500);
/// How long a deletion takes: others can be asked for meanwhile.
const DELETION: Duration = Duration::from_millis(20);

/// Between the last byte of a log and the end of its connection.
const BREAK: Duration = Duration::from_millis(100);

/// Answers by path; anything else is not found. Lists come in pages as they are asked for.
#[derive(Clone, Default)]
pub struct Cluster(
    Arc<Mutex<BTreeMap<String, Answer>>>,
    Arc<Mutex<BTreeMap<String, usize>>>,
    Arc<Deletions>,
    // What its watch of Pods tells.
    Arc<Mutex<Option<mpsc::UnboundedReceiver<String>>>>,
);

/// Deletions under way, and the most of them that ever were at once.
#[derive(Default)]
struct Deletions {
    now: AtomicUsize,
    most: AtomicUsize,
}

#[derive(Clone)]
enum Answer {
    Object(Value),
    /// A text, after which the connection breaks so many times.
    Text(String, usize),
    /// A text that is refused so many times.
    Refused(String, usize),
    /// A stream that never says anything and never ends.
    Silence,
}

impl Cluster {
    pub fn has(&self, path: &str, object: &Value) {
        self.answers(path, Answer::Object(object.clone()));
    }

    pub fn forget(&self, path: &str) {
        self.0.lock().expect("no error").remove(path);
    }

    /// Whether there is an object at this path: one that was deleted is gone.
    pub fn still_has(&self, path: &str) -> bool {
        self.0.lock().expect("no error").contains_key(path)
    }

    /// The most objects that were ever asked for at once at this path.
    pub fn largest_page(&self, path: &str) -> usize {
        self.1.lock().expect("no error").get(path).copied().unwrap_or_default()
    }

    /// The most deletions that were ever under way at once.
    pub fn most_deletions(&self) -> usize {
        self.2.most.load(Ordering::Relaxed)
    }

    /// What the watch of Pods shows, and what a list of a namespace's shows. Their `prepare` has printed nothing.
    pub fn has_pods(&self, watched: &[Value], namespace: &str, there: &[Value]) {
        for name in there.iter().filter_map(|pod| pod["metadata"]["name"].as_str()) {
            self.has_log(namespace, name, "prepare", &[]);
        }
        self.has("/api/v1/pods", &list(watched));
        self.has(&format!("/api/v1/namespaces/{namespace}/pods"), &list(there));
    }

    /// The log of a container that printed these lines, one a second.
    pub fn has_log(&self, namespace: &str, pod: &str, container: &str, lines: &[&str]) {
        self.has_breaking_log(namespace, pod, container, lines, 0);
    }

    /// The same, whose first `breaks` readers lose the connection after all of it.
    pub fn has_breaking_log(&self, namespace: &str, pod: &str, container: &str, lines: &[&str], breaks: usize) {
        let lines: Vec<(u8, &str)> = (0..).zip(lines.iter().copied()).collect();
        self.has_breaking_log_at(namespace, pod, container, &lines, breaks);
    }

    /// The same, by a clock that stood at these seconds.
    pub fn has_breaking_log_at(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        lines: &[(u8, &str)],
        breaks: usize,
    ) {
        let lines: Vec<String> =
            lines.iter().map(|(second, line)| format!("2026-11-24T10:00:{second:02}Z {line}\n")).collect();
        let text = lines.concat();
        self.answers(
            &format!("/api/v1/namespaces/{namespace}/pods/{pod}/log?container={container}"),
            Answer::Text(text, breaks),
        );
    }

    /// The log of a container that the kubelet does not have for so many readers.
    pub fn has_late_log(&self, namespace: &str, pod: &str, container: &str, line: &str, refusals: usize) {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/log?container={container}");
        self.answers(&path, Answer::Refused(format!("2026-11-24T10:00:00Z {line}\n"), refusals));
    }

    /// How many readers will yet be refused.
    pub fn refusals(&self, namespace: &str, pod: &str, container: &str) -> usize {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/log?container={container}");
        match self.0.lock().expect("no error").get(&path) {
            Some(Answer::Refused(_, refusals)) => *refusals,
            _ => 0,
        }
    }

    /// Where the changes of Pods are told that its watch shows.
    pub fn watched(&self) -> mpsc::UnboundedSender<String> {
        let (sender, changes) = mpsc::unbounded_channel();
        *self.3.lock().expect("no error") = Some(changes);
        sender
    }

    /// The log of a container on a node that no longer says anything.
    pub fn has_endless_log(&self, namespace: &str, pod: &str, container: &str) {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/log?container={container}");
        self.answers(&path, Answer::Silence);
    }

    fn answers(&self, path: &str, answer: Answer) {
        self.0.lock().expect("no error").insert(path.to_owned(), answer);
    }

    /// A context whose API server this is.
    pub async fn context(&self, pool: &PgPool) -> Context {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("no error");
        let url = format!("http://{}", listener.local_addr().expect("no error")).parse().expect("no error");
        let router = Router::new().fallback(answer).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let client = kube::Client::try_from(kube::Config::new(url)).expect("no error");
        let image = "registry.test/image".to_owned();
        let images = Images {
            operator: image.clone(),
            kaniko: String::new(),
            buildx: image.clone(),
            buildkit: image.clone(),
            sbom_generator: String::new(),
            container: image,
            ..Images::default()
        };
        Context {
            client: client.clone(),
            streams: client.clone(),
            pool: pool.clone(),
            recorder: Recorder::new(client, Reporter { controller: "test".to_owned(), instance: None }),
            jobs: Arc::new(jobs::Settings { images, ..jobs::Settings::default() }),
            metrics: Metrics::default(),
            health: Health::default(),
            stored: tokio::sync::broadcast::channel(16).0,
            patience: Patience::default(),
            followed: std::sync::Arc::default(),
            log_bytes: 1_000,
            records_users: false,
        }
    }
}

pub fn list(items: &[Value]) -> Value {
    json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "1"}, "items": items})
}

async fn answer(State(cluster): State<Cluster>, method: Method, uri: Uri) -> Response {
    let query = uri.query().unwrap_or_default();
    if query.contains("watch=true") {
        let changes = cluster.3.lock().expect("no error").take().filter(|_| uri.path() == "/api/v1/pods");
        if let Some(mut changes) = changes {
            let changes = futures::stream::poll_fn(move |context| changes.poll_recv(context));
            return Body::from_stream(changes.map(Ok::<_, std::io::Error>)).into_response();
        }
        return Body::from_stream(futures::stream::pending::<std::io::Result<Vec<u8>>>()).into_response();
    }
    if uri.path() == "/api/v1/pods" {
        tokio::time::sleep(LIST).await;
    }
    if method == Method::DELETE {
        let now = cluster.2.now.fetch_add(1, Ordering::Relaxed) + 1;
        cluster.2.most.fetch_max(now, Ordering::Relaxed);
        tokio::time::sleep(DELETION).await;
        cluster.2.now.fetch_sub(1, Ordering::Relaxed);
    }
    let container = query.split('&').find(|pair| pair.starts_with("container="));
    let path = container.map_or_else(|| uri.path().to_owned(), |container| format!("{}?{container}", uri.path()));
    let mut answers = cluster.0.lock().expect("no error");
    let found = if method == Method::DELETE { answers.remove(&path) } else { answers.get(&path).cloned() };
    if let Some(Answer::Text(_, left) | Answer::Refused(_, left)) = answers.get_mut(&path) {
        *left = left.saturating_sub(1);
    }
    drop(answers);
    match found {
        Some(Answer::Object(object)) if object["items"].is_array() => {
            let page = page(object, query);
            let count = page["items"].as_array().map_or(0, Vec::len);
            let mut pages = cluster.1.lock().expect("no error");
            let largest = pages.entry(path).or_default();
            *largest = count.max(*largest);
            Json(page).into_response()
        }
        Some(Answer::Object(object)) => Json(object).into_response(),
        Some(Answer::Silence) => {
            Body::from_stream(futures::stream::pending::<std::io::Result<Vec<u8>>>()).into_response()
        }
        Some(Answer::Text(text, 0) | Answer::Refused(text, 0)) => text.into_response(),
        Some(Answer::Text(text, _)) => {
            let broken = async {
                // What was written goes out before.
                tokio::time::sleep(BREAK).await;
                Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset))
            };
            let text = futures::stream::once(async { Ok(text) });
            Body::from_stream(text.chain(futures::stream::once(broken))).into_response()
        }
        Some(Answer::Refused(..)) | None => {
            let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": format!("{path} not found"), "reason": "NotFound", "code": 404});
            (StatusCode::NOT_FOUND, Json(status)).into_response()
        }
    }
}

/// The part of a list that a query asks for. The token says how many came before.
fn page(mut list: Value, query: &str) -> Value {
    let asked = |name: &str| {
        let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        value.and_then(|value| value.parse::<usize>().ok())
    };
    let before = asked("continue").unwrap_or_default();
    let items = list["items"].as_array().cloned().unwrap_or_default();
    let until = asked("limit").map_or(items.len(), |limit| items.len().min(before + limit));
    if until < items.len() {
        list["metadata"]["continue"] = json!(until.to_string());
    }
    list["items"] = json!(items[before..until]);
    list
}
