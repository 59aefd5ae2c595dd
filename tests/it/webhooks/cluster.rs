//! As much of an API server as webhooks need: Secrets, and Builds that can be made once. It remembers which Secrets were
//! asked for, and fails where a test says so.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use kube::Client;
use serde_json::{Value, json};

use crate::reconcile::api_server::answered_by;

#[derive(Clone, Default)]
pub struct Cluster(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    secrets: BTreeMap<String, Value>,
    builds: BTreeMap<String, Value>,
    events: Vec<Value>,
    requests: Vec<String>,
    failure: Option<Failure>,
}

/// What happens to the Builds that are to be made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It is made, and nobody hears of it.
    AnswerLost,
    Refused,
    Down,
}

impl Cluster {
    pub fn client(&self) -> Client {
        let state = self.0.clone();
        answered_by(move |method, path, body| state.lock().expect("whole").answer(method, path, body))
    }

    /// `entries` in base64, as the API server has them.
    pub fn has_secret(&self, namespace: &str, name: &str, entries: &Value) {
        let path = format!("/api/v1/namespaces/{namespace}/secrets/{name}");
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": entries});
        self.0.lock().expect("whole").secrets.insert(path, secret);
    }

    pub fn has_build(&self, build: Value) {
        let path = path_of(&build);
        self.0.lock().expect("whole").builds.insert(path, build);
    }

    pub fn fails(&self, failure: Option<Failure>) {
        self.0.lock().expect("whole").failure = failure;
    }

    pub fn builds(&self) -> Vec<Value> {
        self.0.lock().expect("whole").builds.values().cloned().collect()
    }

    pub fn events(&self) -> Vec<Value> {
        self.0.lock().expect("whole").events.clone()
    }

    pub fn requests(&self) -> Vec<String> {
        self.0.lock().expect("whole").requests.clone()
    }
}

fn path_of(build: &Value) -> String {
    let text = |field: &str| build["metadata"][field].as_str().expect("it has one").to_owned();
    format!("/apis/imagefactory.dev/v1alpha1/namespaces/{}/builds/{}", text("namespace"), text("name"))
}

impl State {
    fn answer(&mut self, method: &str, path: &str, body: Value) -> (u16, Value) {
        self.requests.push(format!("{method} {path}"));
        if path.contains("/events") {
            self.events.push(body.clone());
            return (201, body);
        }
        match method {
            "GET" => {
                let found = self.secrets.get(path).or_else(|| self.builds.get(path));
                found.map_or_else(|| failure(404, "NotFound"), |object| (200, object.clone()))
            }
            "POST" => {
                let path = path_of(&body);
                match self.failure {
                    Some(Failure::Down) => return failure(500, "InternalError"),
                    Some(Failure::Refused) => return failure(422, "Invalid"),
                    _ if self.builds.contains_key(&path) => return failure(409, "AlreadyExists"),
                    _ => {}
                }
                self.builds.insert(path, body.clone());
                if self.failure == Some(Failure::AnswerLost) { failure(500, "InternalError") } else { (201, body) }
            }
            _ => failure(405, "MethodNotAllowed"),
        }
    }
}

fn failure(code: u16, reason: &str) -> (u16, Value) {
    (code, json!({"kind": "Status", "status": "Failure", "message": reason, "reason": reason, "code": code}))
}
