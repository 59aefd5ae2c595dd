//! As much of an API server as a reconcile needs: objects by path, that a test puts there; statuses by patch; and
//! what is created, under its own path, once, and the last of it under the path of its collection. It remembers what
//! it was asked.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use http_body_util::BodyExt;
use image_factory::{
    jobs::Settings,
    runtime::{Context, health::Health, metrics::Metrics},
};
use image_factory_core::patience::Patience;
use kube::{
    Client,
    client::Body,
    runtime::events::{Recorder, Reporter},
};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::sync::oneshot;

#[derive(Clone, Default)]
pub struct ApiServer(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    refused: BTreeSet<String>,
    requests: Vec<String>,
    gates: BTreeMap<String, oneshot::Receiver<()>>,
}

/// A client whose requests this answers, with a code and an object: by method, path and body.
pub fn answered_by(answer: impl Fn(&str, &str, Value) -> (u16, Value) + Clone + Send + 'static) -> Client {
    answered_later_by(move |method, path, body| std::future::ready(answer(&method, &path, body)))
}

fn answered_later_by<F>(answer: impl Fn(String, String, Value) -> F + Clone + Send + 'static) -> Client
where
    F: Future<Output = (u16, Value)> + Send,
{
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let answer = answer.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body)? };
            let (code, answer) = answer(head.method.to_string(), head.uri.path().to_owned(), body).await;
            let response = http::Response::builder().status(code);
            Ok::<_, tower::BoxError>(response.body(Body::from(serde_json::to_vec(&answer)?))?)
        }
    });
    Client::new(service, "default")
}

impl ApiServer {
    pub fn client(&self) -> Client {
        let state = self.0.clone();
        answered_later_by(move |method, path, body| {
            let state = state.clone();
            async move {
                let gate = state.lock().expect("whole").gates.remove(&path);
                if let Some(gate) = gate {
                    // A gate that is dropped is open.
                    let _ = gate.await;
                }
                state.lock().expect("whole").answer(&method, &path, body)
            }
        })
    }

    /// A context whose API server this is.
    pub fn context(&self, pool: &PgPool) -> Context {
        let client = self.client();
        Context {
            client: client.clone(),
            streams: client.clone(),
            pool: pool.clone(),
            recorder: Recorder::new(client, Reporter { controller: "image-factory".to_owned(), instance: None }),
            jobs: Arc::new(Settings::default()),
            metrics: Metrics::default(),
            health: Health::default(),
            stored: tokio::sync::broadcast::channel(1).0,
            patience: Patience::default(),
            followed: Arc::default(),
            log_bytes: 0,
            records_users: false,
        }
    }

    /// Puts an object there, or takes it away. The status it had stays.
    pub fn holds(&self, path: &str, object: Option<Value>) {
        let objects = &mut self.0.lock().expect("whole").objects;
        let before = objects.remove(path);
        if let Some(mut object) = object {
            if let Some(status) = before.and_then(|before| before.get("status").cloned()) {
                object["status"] = status;
            }
            objects.insert(path.to_owned(), object);
        }
    }

    pub fn refuses(&self, path: &str) {
        self.0.lock().expect("whole").refused.insert(path.to_owned());
    }

    /// The next request for this path is answered once what this gives is used or dropped; those after it are not
    /// held up.
    pub fn holds_up(&self, path: &str) -> oneshot::Sender<()> {
        let (open, gate) = oneshot::channel();
        self.0.lock().expect("whole").gates.insert(path.to_owned(), gate);
        open
    }

    /// Whether a request is held up there.
    pub fn has_held_up(&self, path: &str) -> bool {
        !self.0.lock().expect("whole").gates.contains_key(path)
    }

    pub fn accepts(&self, path: &str) {
        self.0.lock().expect("whole").refused.remove(path);
    }

    /// The paths of the objects below this one.
    pub fn below(&self, path: &str) -> Vec<String> {
        let path = format!("{path}/");
        self.0.lock().expect("whole").objects.keys().filter(|key| key.starts_with(&path)).cloned().collect()
    }

    pub fn object(&self, path: &str) -> Value {
        self.0.lock().expect("whole").objects.get(path).cloned().unwrap_or_default()
    }

    pub fn status(&self, path: &str) -> Value {
        self.object(path)["status"].clone()
    }

    /// What it was asked so far, as `METHOD path`.
    pub fn requests(&self) -> Vec<String> {
        self.0.lock().expect("whole").requests.clone()
    }
}

impl State {
    fn answer(&mut self, method: &str, path: &str, body: Value) -> (u16, Value) {
        self.requests.push(format!("{method} {path}"));
        if self.refused.contains(path) {
            return failure(422, "Invalid");
        }
        match method {
            "GET" => self.objects.get(path).map_or_else(|| failure(404, "NotFound"), |object| (200, object.clone())),
            "POST" => {
                let own = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap_or_default());
                if self.objects.contains_key(&own) {
                    return failure(409, "AlreadyExists");
                }
                let mut body = body;
                if body["metadata"]["uid"].is_null() {
                    body["metadata"]["uid"] = json!(format!("uid-of-{own}"));
                }
                self.objects.insert(path.to_owned(), body.clone());
                self.objects.insert(own, body.clone());
                (201, body)
            }
            "DELETE" => match self.objects.get(path) {
                Some(object) if !is_of(&body["preconditions"]["uid"], object) => failure(409, "Conflict"),
                Some(_) => (200, self.objects.remove(path).unwrap_or_default()),
                None => failure(404, "NotFound"),
            },
            "PATCH" => match path.strip_suffix("/status").and_then(|path| self.objects.get_mut(path)) {
                // Whoever names a version means the object as it was then.
                Some(object)
                    if body["metadata"]["resourceVersion"]
                        .as_str()
                        .is_some_and(|version| object["metadata"]["resourceVersion"] != version) =>
                {
                    failure(409, "Conflict")
                }
                Some(object) => {
                    object["status"] = body["status"].clone();
                    (200, object.clone())
                }
                None => failure(404, "NotFound"),
            },
            _ => failure(405, "MethodNotAllowed"),
        }
    }
}

/// Whether this object is the one with the UID.
fn is_of(uid: &Value, object: &Value) -> bool {
    uid.is_null() || *uid == object["metadata"]["uid"]
}

fn failure(code: u16, reason: &str) -> (u16, Value) {
    (code, json!({"kind": "Status", "status": "Failure", "message": reason, "reason": reason, "code": code}))
}
