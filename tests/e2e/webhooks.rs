//! From a push to a Build: a commit is pushed to the Git server that `make up` starts, which delivers it as Gitea does,
//! signed, to the address that the WebhookConfig tells; or a test does, where it looks at each answer. And from a Build
//! to whoever wants to hear of it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::{Router, body::Bytes, http::HeaderMap};
use hmac::{Hmac, KeyInit, Mac};
use image_factory::{
    clock,
    crd::{Build, WebhookConfig},
};
use image_factory_core::signature::{self, Headers, Scheme};
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use reqwest::StatusCode;
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::net::TcpListener;

use super::{
    cluster,
    git::repository::Repository,
    rows,
    tenant::{APPLIER, Tenant, phase, status, tenant},
    watching,
};

const SECRET: &str = "a secret of the orchard";

fn webhooks(tenant: &Tenant) -> Api<WebhookConfig> {
    Api::namespaced(tenant.client.clone(), &tenant.namespace)
}

async fn webhook(tenant: &Tenant, name: &str, spec: &Value) {
    let manifest = json!({
        "apiVersion": "imagefactory.dev/v1alpha1", "kind": "WebhookConfig",
        "metadata": {"name": name, "namespace": tenant.namespace}, "spec": spec,
    });
    let params = PatchParams::apply(APPLIER).force();
    webhooks(tenant).patch(name, &params, &Patch::Apply(&manifest)).await.expect("the API server accepts it");
}

/// Waits until its status is so.
async fn told(tenant: &Tenant, name: &str, what: &str, is_told: impl Fn(&Value) -> bool) -> Value {
    let shown = |webhook: &WebhookConfig| serde_json::to_value(&webhook.status).expect("JSON");
    let reached = |webhook: Option<&WebhookConfig>| webhook.is_some_and(|webhook| is_told(&shown(webhook)));
    let webhook = watching::until(&webhooks(tenant), name, what, reached).await;
    shown(&webhook.expect("it is there"))
}

fn ready(status: &Value) -> (&str, &str) {
    let condition = &status["conditions"][0];
    (condition["status"].as_str().unwrap_or_default(), condition["reason"].as_str().unwrap_or_default())
}

/// A push as Gitea tells of it.
fn push(repository: &str, before: &str, commit: &str, message: &str) -> String {
    let one = json!({"id": commit, "message": message, "author": {"name": "Pomona Orchard", "email": "pomona@example.com"},
        "added": [], "removed": [], "modified": ["year"]});
    json!({"ref": "refs/heads/main", "before": before, "after": commit, "commits": [one], "total_commits": 1,
        "head_commit": one, "repository": {"full_name": repository, "clone_url": "https://elsewhere.example.com/a.git"}})
    .to_string()
}

/// Again and again while no operator answers: other tests end it, and then a network may answer in its place. The
/// operator itself never says here that there is nothing.
async fn deliver(url: &str, id: &str, secret: &str, body: &str) -> StatusCode {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length");
    mac.update(body.as_bytes());
    let signature = hex::encode(mac.finalize().into_bytes());
    watching::eventually("an answer", async || {
        let request = reqwest::Client::new()
            .post(url)
            .header("Content-Type", "application/json")
            .header("X-Gitea-Event", "push")
            .header("X-Gitea-Delivery", id)
            .header("X-Gitea-Signature", &signature);
        let answer = request.body(body.to_owned()).send().await.ok()?.status();
        (answer != StatusCode::SERVICE_UNAVAILABLE && answer != StatusCode::NOT_FOUND).then_some(answer)
    })
    .await
}

/// The only Build that a webhook has made beside these.
async fn made(tenant: &Tenant, webhook: &str, beside: &[&str]) -> Build {
    let of = ListParams::default().labels(&format!("imagefactory.dev/webhook={webhook}"));
    watching::eventually("a Build", async || {
        let builds = tenant.builds().list(&of).await.expect("Builds can be listed").items;
        let mut new = builds.into_iter().filter(|build| !beside.contains(&build.name_any().as_str()));
        let first = new.next()?;
        assert!(new.next().is_none(), "one delivery, one Build");
        Some(first)
    })
    .await
}

async fn deliveries(tenant: &Tenant) -> BTreeMap<String, Value> {
    let rows: Vec<(String, Value)> = sqlx::query_as(
        "select d.delivery_id, to_jsonb(d) from webhook_deliveries d join tenants t on t.id = d.tenant_id where t.name = $1",
    )
    .bind(&tenant.namespace)
    .fetch_all(&tenant.pool)
    .await
    .expect("rows");
    rows.into_iter().collect()
}

#[tokio::test]
async fn a_push_is_built_with_its_commit_pinned_and_the_rows_say_so() {
    tenant("webhook-push", "baseline", async |tenant| {
        let repository = Repository::new("git", &tenant.namespace);
        let dockerfile = format!("FROM {}/busybox:1\nCOPY . /source\nRUN cat /source/year\n", cluster::registry());
        let first = repository.commit("Plant", &[("Dockerfile", &dockerfile), ("year", "one\n")]);
        let second = repository.commit("Ripen", &[("year", "two\n")]);
        repository.push(&["main"]);
        let mut template = tenant.manifest("web", "container", "")["spec"].clone();
        template["source"] = json!({"git": {"url": repository.url, "revision": "main"}});
        let spec = json!({
            "provider": "gitea", "secretRef": {"name": "hook", "key": "secret"}, "repository": "orchard/web",
            "template": {"spec": template},
        });

        webhook(tenant, "web", &spec).await;
        let status_told =
            told(tenant, "web", "a Secret that is missed", |status| ready(status).1 == "SecretNotFound").await;
        let url = status_told["url"].as_str().expect("the installation has an address").to_owned();
        tenant.secret("hook", "Opaque", json!({"secret": SECRET})).await;
        told(tenant, "web", "a Secret that is found", |status| ready(status) == ("True", "Receiving")).await;

        let body = push("orchard/web", &"0".repeat(40), &first, "Plant");
        assert_eq!(deliver(&url, "wrong", "guessed", &body).await, StatusCode::UNAUTHORIZED);
        assert_eq!(deliver(&url.replace("/web", "/none"), "none", SECRET, &body).await, StatusCode::UNAUTHORIZED);
        assert!(deliveries(tenant).await.is_empty(), "nothing of it is kept");

        // The older commit, though the branch has gone on.
        assert_eq!(deliver(&url, "planted", SECRET, &body).await, StatusCode::ACCEPTED);
        assert_eq!(deliver(&url, "planted", SECRET, &body).await, StatusCode::ACCEPTED);
        let build = made(tenant, "web", &[]).await;
        let build = tenant.finished(&build.name_any(), 1).await;
        assert_eq!(phase(&build), "Success", "{:#}", status(&build));
        let attempt = tenant.attempts(&build).await.pop().expect("a row");
        assert_eq!(attempt["git_commit"], first);
        assert_eq!(attempt["git_branch"], "main");
        assert_eq!(attempt["git_author"], "Pomona Orchard <pomona@example.com>");
        assert_eq!(attempt["triggered_by_git_event"], "push");
        let trigger = rows::build_triggers(&tenant.pool, rows::id(&attempt)).await;
        assert_eq!((&trigger["trigger_type"], &trigger["trigger_source"]), (&json!("webhook"), &json!("web planted")));
        let row = &deliveries(tenant).await["planted"];
        assert_eq!((&row["build_id"], &row["build_name"]), (&attempt["id"], &json!(build.name_any())));
        let log = rows::log(&tenant.pool, rows::id(&attempt)).await;
        assert!(log.iter().any(|line| line.ends_with("one")), "{log:#?}");

        // The next commit asks for no Build, and another repository's is none of ours.
        let skipped = push("orchard/web", &first, &second, "Ripen [skip ci]");
        assert_eq!(deliver(&url, "skipped", SECRET, &skipped).await, StatusCode::ACCEPTED);
        let strange = push("meadow/web", &first, &second, "Ripen");
        assert_eq!(deliver(&url, "strange", SECRET, &strange).await, StatusCode::ACCEPTED);
        let last = told(tenant, "web", "the last delivery", |status| status["lastDelivery"]["id"] == "strange").await;
        let outcome = last["lastDelivery"]["outcome"].as_str().unwrap_or_default();
        assert!(outcome.starts_with("push: no Build, since it is about repository \"meadow/web\""), "{outcome}");
        assert_eq!(last["verified"], true);
        assert_eq!(deliveries(tenant).await["skipped"]["error_message"], "the commit's message asks for no Build");

        assert_eq!(
            deliver(&url, "ripe", SECRET, &push("orchard/web", &first, &second, "Ripen")).await,
            StatusCode::ACCEPTED
        );
        let next = made(tenant, "web", &[&build.name_any()]).await;
        let next = tenant.finished(&next.name_any(), 1).await;
        assert_eq!(phase(&next), "Success", "{:#}", status(&next));
        assert_eq!(tenant.attempts(&next).await[0]["git_commit"], second);

        // Its Builds go with it; no delivery is taken any more.
        webhooks(tenant).delete("web", &kube::api::DeleteParams::default()).await.expect("it can be deleted");
        watching::eventually("a webhook that is gone", async || {
            let answer = deliver(&url, "late", SECRET, &body).await;
            (answer == StatusCode::UNAUTHORIZED).then_some(())
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_push_is_built_and_nobody_does_anything_else() {
    tenant("webhook-unaided", "baseline", async |tenant| {
        let repository = Repository::new("git", &tenant.namespace);
        let dockerfile = format!("FROM {}/busybox:1\nCOPY . /source\nRUN cat /source/year\n", cluster::registry());
        repository.commit("Plant", &[("Dockerfile", &dockerfile), ("year", "one\n")]);
        repository.push(&["main"]);
        let mut template = tenant.manifest("web", "container", "")["spec"].clone();
        template["source"] = json!({"git": {"url": repository.url}});
        tenant.secret("hook", "Opaque", json!({"secret": SECRET})).await;
        let spec = json!({
            "provider": "gitea", "secretRef": {"name": "hook", "key": "secret"}, "branches": ["main"],
            "repository": format!("git/{}", tenant.namespace), "template": {"spec": template},
        });
        webhook(tenant, "web", &spec).await;
        let shown =
            told(tenant, "web", "a webhook that receives", |status| ready(status) == ("True", "Receiving")).await;
        repository.deliver_to(shown["url"].as_str().expect("the installation has an address"), SECRET);

        let ripened = repository.commit("Ripen the \"apples\"", &[("year", "two\n")]);
        repository.git(&["checkout", "-q", "-b", "side"]);
        repository.commit("Graft", &[("year", "three\n")]);
        repository.push(&["main", "side"]);
        let build = made(tenant, "web", &[]).await;
        let build = tenant.finished(&build.name_any(), 1).await;
        assert_eq!(phase(&build), "Success", "{:#}", status(&build));
        let attempt = tenant.attempts(&build).await.pop().expect("a row");
        for (column, expected) in [
            ("git_commit", &*ripened),
            ("git_branch", "main"),
            ("git_author", "Pomona Orchard <pomona@example.com>"),
            ("git_message", "Ripen the \"apples\""),
            ("triggered_by_git_event", "push"),
        ] {
            assert_eq!(attempt[column], expected, "{column}");
        }
        let log = rows::log(&tenant.pool, rows::id(&attempt)).await;
        assert!(log.iter().any(|line| line.ends_with("two")), "{log:#?}");
        let mut causes: Vec<Value> =
            deliveries(tenant).await.into_values().map(|row| row["error_message"].clone()).collect();
        causes.sort_by_key(Value::is_string);
        assert_eq!(causes, [Value::Null, json!("branch \"side\" fits none of spec.branches")]);
    })
    .await;
}

struct Sent<'a>(&'a HeaderMap);

impl Headers for Sent<'_> {
    fn values(&self, name: &str) -> Vec<&[u8]> {
        self.0.get_all(name).iter().map(axum::http::HeaderValue::as_bytes).collect()
    }
}

type Received = Arc<Mutex<Vec<(HeaderMap, Bytes)>>>;

/// A receiver on the node, which Pods reach; with its address.
async fn receiver() -> (Received, String) {
    let git = cluster::variable("GIT_URL");
    let host = git.trim_start_matches("http://").split(':').next().expect("a host").to_owned();
    let listener = TcpListener::bind((host, 0)).await.expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let received = Received::default();
    let kept = received.clone();
    let router = Router::new().fallback(move |headers: HeaderMap, body: Bytes| {
        kept.lock().expect("whole").push((headers, body));
        std::future::ready(())
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    (received, url)
}

#[tokio::test]
async fn whoever_wants_to_hear_of_builds_is_told_of_each_step_signed() {
    const OUTGOING: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    tenant("webhook-notify", "baseline", async |tenant| {
        let (received, url) = receiver().await;
        tenant.secret("hook", "Opaque", json!({"out": OUTGOING})).await;
        webhook(tenant, "told", &json!({"notify": {"url": url, "secretRef": {"name": "hook", "key": "out"}}})).await;
        told(tenant, "told", "a webhook that sends", |status| ready(status) == ("True", "Sending")).await;
        tenant.apply(&tenant.manifest("apple", "container", "FROM BASE\nRUN echo ripe\n")).await;
        let build = tenant.finished("apple", 1).await;
        assert_eq!(phase(&build), "Success", "{:#}", status(&build));
        watching::eventually("three notifications", async || {
            (received.lock().expect("whole").len() >= 3).then_some(())
        })
        .await;
        let received = received.lock().expect("whole").clone();
        let now = clock::now().as_second();
        let mut bodies: Vec<Value> = Vec::new();
        for (headers, body) in &received {
            let verified = signature::verify(Scheme::Standard, &Sent(headers), body, &[OUTGOING.as_bytes()], now);
            assert_eq!(verified, Ok(true));
            bodies.push(serde_json::from_slice(body).expect("JSON"));
        }
        bodies.sort_by_key(|body| body["timestamp"].as_str().map(str::to_owned));
        let types: Vec<&Value> = bodies.iter().map(|body| &body["type"]).collect();
        assert_eq!(types, ["build.queued", "build.started", "build.succeeded"]);
        assert_eq!(bodies[2]["data"]["digest"], status(&build)["image"]["digest"]);
        assert_eq!(bodies[2]["data"]["name"], "apple");
    })
    .await;
}
