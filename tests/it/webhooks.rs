//! Webhooks on the real router and a real Postgres: what Git hosts deliver becomes a row and then a Build, whatever
//! breaks in between; and what nobody has signed leaves no trace but a number.

pub mod cluster;

use std::{num::NonZeroU32, path::Path, sync::Arc};

use axum::{
    Router,
    body::Body,
    http::{Request, Response, StatusCode},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures::future::join_all;
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::BodyExt;
use image_factory::{
    clock,
    crd::WebhookConfigSpec,
    db::{
        self,
        builds::NewAttempt,
        webhooks::{Declared, declare, statuses},
        workers::TenantName,
    },
    http::{Hooks, hooks},
    jobs,
    runtime::{Context, health::Health, metrics::Metrics},
    tasks::deliverer,
};
use image_factory_core::{patience::Patience, signature};
use kube::runtime::events::{Recorder, Reporter};
use serde_json::{Value, json};
use sha2::Sha256;
use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio::sync::broadcast;
use tower::ServiceExt;

use self::cluster::{Cluster, Failure};
use crate::attempts::{attempt, queued};

const SECRET: &str = "It's a Secret to Everybody";
pub const WHSEC: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const COMMIT: &str = "6113728f27ae82c7b1a177c8d03f9e96e0adf246";

pub fn fixture(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/webhooks");
    std::fs::read_to_string(folder.join(format!("{name}.json"))).expect("there is one")
}

fn hex_hmac(secret: &str, body: &str) -> String {
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

    fn limited(pool: &PgPool, rate: u32) -> Self {
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

    async fn send(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Response<Body> {
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

    pub async fn deliver(&self) {
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

    fn counted(&self, answer: &str) -> bool {
        let text = self.context.metrics.text().expect("text");
        text.contains(&format!("image_factory_webhook_deliveries_total{{answer=\"{answer}\"}}"))
    }
}

async fn body(response: Response<Body>) -> String {
    String::from_utf8(response.into_body().collect().await.expect("a body").to_bytes().to_vec()).expect("text")
}

fn causes(rows: &[Value]) -> Vec<Option<&str>> {
    rows.iter().map(|row| row["error_message"].as_str()).collect()
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn a_push_of_every_provider_makes_one_build_with_its_commit_pinned(pool: PgPool) {
    let host = Host::new(&pool);
    let providers =
        ["github", "gitlab", "gitlab-standard", "gitea", "forgejo", "bitbucket", "generic", "generic-header"];
    let webhooks: Vec<(&str, WebhookConfigSpec)> = providers
        .into_iter()
        .map(|name| {
            let provider = name.split('-').next().expect("a name");
            let more = match name {
                "gitlab-standard" | "generic" => json!({"secretRef": {"name": "hook", "key": "standard"}}),
                "generic-header" => json!({"generic": {"header": "X-Sum", "prefix": "v0:", "encoding": "hex"}}),
                _ => json!({}),
            };
            (name, spec(provider, &more))
        })
        .collect();
    host.has(1, &webhooks).await;
    let now = clock::now().as_second();
    let standard = |body: &str| {
        let signature = signature::sign(WHSEC.as_bytes(), "msg_1", now, body.as_bytes()).expect("a secret");
        vec![
            ("webhook-id", "msg_1".to_owned()),
            ("webhook-timestamp", now.to_string()),
            ("webhook-signature", signature),
        ]
    };
    for (name, payload, headers) in [
        ("github", "github-push", vec![("x-github-event", "push"), ("x-github-delivery", "d-github")]),
        (
            "gitlab",
            "gitlab-push",
            vec![("x-gitlab-event", "Push Hook"), ("idempotency-key", "d-gitlab"), ("x-gitlab-token", SECRET)],
        ),
        ("gitlab-standard", "gitlab-push", vec![("x-gitlab-event", "Push Hook"), ("x-gitlab-event-uuid", "d-2")]),
        ("gitea", "gitea-push", vec![("x-gitea-event", "push"), ("x-gitea-delivery", "d-gitea")]),
        ("forgejo", "gitea-push", vec![("x-forgejo-event", "push"), ("x-forgejo-delivery", "d-forgejo")]),
        ("bitbucket", "bitbucket-push", vec![("x-event-key", "repo:push"), ("x-request-uuid", "d-bitbucket")]),
        ("generic", "generic-push", vec![]),
        ("generic-header", "generic-push", vec![]),
    ] {
        let body = fixture(payload);
        let hex = hex_hmac(SECRET, &body);
        let mut signed = match name {
            "github" => vec![("x-hub-signature-256", format!("sha256={hex}"))],
            "gitea" => vec![("x-gitea-signature", hex)],
            "forgejo" => vec![("x-forgejo-signature", hex)],
            "bitbucket" => vec![("x-hub-signature", format!("sha256={hex}"))],
            "gitlab-standard" | "generic" => standard(&body),
            "generic-header" => vec![("X-Sum", format!("v0:{hex}"))],
            _ => vec![],
        };
        signed.extend(headers.into_iter().map(|(header, value)| (header, value.to_owned())));
        let headers: Vec<(&str, &str)> = signed.iter().map(|(header, value)| (*header, value.as_str())).collect();
        let path = format!("/hooks/orchard/{name}");
        let answer = host.send(&path, &headers, &body).await;
        assert_eq!(answer.status(), StatusCode::ACCEPTED, "{name}");
        // Again, as hosts do that heard no answer.
        assert_eq!(host.send(&path, &headers, &body).await.status(), StatusCode::ACCEPTED, "{name}");
    }
    assert_eq!(host.rows().await.len(), providers.len(), "each delivery is there once");
    host.deliver().await;
    host.deliver().await;
    let builds = host.cluster.builds();
    assert_eq!(builds.len(), providers.len(), "{:?}", causes(&host.rows().await));
    for build in &builds {
        assert_eq!(build["spec"]["source"]["git"]["revision"], COMMIT);
        let labels = &build["metadata"]["labels"];
        assert_eq!(labels["colour"], "red");
        let name = labels["imagefactory.dev/webhook"].as_str().expect("a label");
        let owner = &build["metadata"]["ownerReferences"][0];
        assert_eq!((&owner["kind"], &owner["uid"]), (&json!("WebhookConfig"), &json!(format!("uid-{name}"))));
        assert!(build["metadata"]["name"].as_str().expect("a name").starts_with(&format!("{name}-")));
    }
    for row in host.rows().await {
        assert_eq!((&row["event_type"], &row["response_status"]), (&json!("push"), &json!(202)));
        assert_eq!((&row["next_retry_at"], &row["error_message"]), (&Value::Null, &Value::Null));
    }
    let asked: Vec<String> =
        host.cluster.requests().into_iter().filter(|request| request.contains("/secrets")).collect();
    assert!(asked.iter().all(|request| request == "GET /api/v1/namespaces/orchard/secrets/hook"), "{asked:?}");
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn what_nobody_has_signed_leaves_no_row_and_is_counted(pool: PgPool) {
    let host = Host::new(&pool);
    let secret = |key: &str| json!({"secretRef": {"name": "hook", "key": key}});
    let absent = json!({"secretRef": {"name": "absent", "key": "now"}});
    host.has(
        1,
        &[
            ("hook", spec("github", &json!({}))),
            ("other", spec("github", &secret("before"))),
            ("empty", spec("github", &secret("none"))),
            ("absent", spec("github", &absent)),
            ("suspended", spec("github", &json!({"suspend": true}))),
            ("standard", spec("gitlab", &secret("standard"))),
        ],
    )
    .await;
    let push = fixture("github-push");
    let right = format!("sha256={}", hex_hmac(SECRET, &push));
    let anew = serde_json::to_string(&serde_json::from_str::<Value>(&push).expect("JSON")).expect("JSON");
    let empty = format!("sha256={}", hex_hmac("", &push));
    let named = [("x-github-event", "push"), ("x-github-delivery", "1")];
    let mut first = None;
    for (what, hook, headers, body_sent) in [
        ("no header", "hook", vec![], &*push),
        ("an empty signature", "hook", vec![("x-hub-signature-256", "sha256=")], &push),
        ("63 digits", "hook", vec![("x-hub-signature-256", &right[..right.len() - 1])], &push),
        ("two headers", "hook", vec![("x-hub-signature-256", &*right), ("x-hub-signature-256", &right)], &push),
        ("one more line break", "hook", vec![("x-hub-signature-256", &right)], &format!("{push}\n")),
        ("JSON that was written anew", "hook", vec![("x-hub-signature-256", &right)], &anew),
        ("another hook's secret", "other", vec![("x-hub-signature-256", &right)], &push),
        ("an empty secret", "empty", vec![("x-hub-signature-256", &empty)], &push),
        ("a Secret that is not there", "absent", vec![("x-hub-signature-256", &empty)], &push),
        ("a webhook that is not there", "nowhere", vec![("x-hub-signature-256", &right)], &push),
        ("a webhook that is suspended", "suspended", vec![("x-hub-signature-256", &right)], &push),
        ("a name that none can have", "Hook%00", vec![("x-hub-signature-256", &right)], &push),
        ("a token in place of Standard Webhooks", "standard", vec![("x-gitlab-token", WHSEC)], &push),
    ] {
        let headers: Vec<_> = headers.into_iter().chain(named).collect();
        let response = host.send(&format!("/hooks/orchard/{hook}"), &headers, body_sent).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{what}");
        let answer = (format!("{:?}", response.headers()), body(response).await);
        assert_eq!(first.get_or_insert_with(|| answer.clone()), &answer, "{what}: all have one answer");
    }
    assert!(host.counted("unsigned"));

    let signed = |body: &str| format!("sha256={}", hex_hmac(SECRET, body));
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(5 * 1024 * 1024));
    let form = [("content-type", "application/x-www-form-urlencoded")];
    for (what, headers, sent, code, word) in [
        ("a form", vec![("x-hub-signature-256", signed(&push))], &*push, 415, "no_json"),
        ("too much", vec![("x-hub-signature-256", signed(&large))], &large, 413, "too_large"),
        ("no JSON", vec![("x-hub-signature-256", signed("{"))], "{", 400, "unreadable"),
        ("no id", vec![("x-hub-signature-256", signed(&push))], &push, 400, "unreadable"),
    ] {
        let mut headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        headers.push(named[0]);
        if what != "no id" {
            headers.push(named[1]);
        }
        if what == "a form" {
            headers.extend(form);
        }
        let response = host.send("/hooks/orchard/hook", &headers, sent).await;
        assert_eq!(response.status().as_u16(), code, "{what}");
        assert!(host.counted(word), "{what}");
    }
    assert_eq!(host.send("/hooks/orchard", &[], &push).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(host.send("/hooks/orchard/hook/more", &[], &push).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(host.rows().await, Vec::<Value>::new());
    // The same, signed.
    assert_eq!(host.push("hook", "1", &push).await, StatusCode::ACCEPTED);
    assert_eq!(host.rows().await.len(), 1);
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn a_secret_can_be_changed_without_losing_deliveries(pool: PgPool) {
    let host = Host::new(&pool);
    let rotating =
        json!({"secretRef": {"name": "hook", "key": "before"}, "previousSecretRef": {"name": "hook", "key": "now"}});
    let gone = json!({"previousSecretRef": {"name": "gone", "key": "now"}});
    host.has(1, &[("hook", spec("github", &rotating)), ("gone", spec("github", &gone))]).await;
    let push = fixture("github-push");
    assert_eq!(host.push("hook", "1", &push).await, StatusCode::ACCEPTED);
    assert_eq!(host.push("gone", "1", &push).await, StatusCode::ACCEPTED);
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn one_webhook_takes_only_so_much_and_the_next_still_does(pool: PgPool) {
    let host = Host::limited(&pool, 1);
    host.has(1, &[("hook", spec("github", &json!({}))), ("next", spec("github", &json!({})))]).await;
    let push = fixture("github-push");
    for (id, code) in [("1", 202), ("2", 202), ("3", 429)] {
        assert_eq!(host.push("hook", id, &push).await.as_u16(), code);
    }
    // What nobody has signed uses up nothing.
    for _ in 0..5 {
        assert_eq!(host.send("/hooks/orchard/next", &[], &push).await.status(), StatusCode::UNAUTHORIZED);
    }
    assert_eq!(host.push("next", "1", &push).await, StatusCode::ACCEPTED);
    assert!(host.counted("too_many"));
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn deliveries_that_come_together_are_each_a_row_when_they_are_answered(pool: PgPool) {
    let host = Host::new(&pool);
    host.has(1, &[("hook", spec("github", &json!({})))]).await;
    let push = fixture("github-push");
    let ids: Vec<String> = (0..150).map(|id| id.to_string()).collect();
    let answers = join_all(ids.iter().map(|id| host.push("hook", id, &push))).await;
    assert!(answers.iter().all(|answer| *answer == StatusCode::ACCEPTED));
    assert_eq!(host.rows().await.len(), ids.len());
    let transactions: i64 = sqlx::query_scalar("select count(distinct xmin::text) from webhook_deliveries")
        .fetch_one(&pool)
        .await
        .expect("a number");
    assert!(transactions < 50, "{transactions} transactions");
    host.deliver().await;
    assert_eq!(host.cluster.builds().len(), 1, "all tell of one push");
}

#[tokio::test]
async fn without_its_database_a_webhook_asks_to_be_told_again() {
    let pool = PgPoolOptions::new()
        .acquire_timeout(std::time::Duration::from_millis(50))
        .connect_lazy("postgres://nobody@127.0.0.1:1/none")
        .expect("an address");
    let host = Host::new(&pool);
    assert_eq!(host.push("hook", "1", "{}").await, StatusCode::SERVICE_UNAVAILABLE);
    assert!(host.counted("unavailable"));
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn the_same_event_makes_one_build_a_day_and_one_more_when_it_is_asked_for(pool: PgPool) {
    let host = Host::new(&pool);
    host.has(1, &[("hook", spec("github", &json!({})))]).await;
    let push = fixture("github-push");
    host.push("hook", "1", &push).await;
    host.deliver().await;
    host.push("hook", "2", &push).await;
    host.deliver().await;
    let rows = host.rows().await;
    assert_eq!(causes(&rows), [None, Some("the same was delivered before")]);
    assert_eq!(host.cluster.builds().len(), 1);

    assert!(!db::deliveries::redeliver(&pool, "orchard", "hook", "3").await.expect("it works"));
    assert!(!db::deliveries::redeliver(&pool, "meadow", "hook", "1").await.expect("it works"));
    assert!(db::deliveries::redeliver(&pool, "orchard", "hook", "1").await.expect("it works"));
    host.deliver().await;
    assert_eq!(host.cluster.builds().len(), 2);
    let row = host.rows().await.pop().expect("a row");
    assert_eq!((&row["delivery_id"], &row["attempt_number"]), (&json!("1"), &json!(2)));

    // After a day it is another event.
    sqlx::query("update webhook_deliveries set created_at = created_at - interval '25 hours'")
        .execute(&pool)
        .await
        .expect("time passes");
    host.push("hook", "4", &push).await;
    host.deliver().await;
    assert_eq!(host.cluster.builds().len(), 3);
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn a_build_that_was_made_unheard_is_not_made_twice(pool: PgPool) {
    let host = Host::new(&pool);
    host.has(1, &[("hook", spec("github", &json!({})))]).await;
    host.push("hook", "1", &fixture("github-push")).await;
    host.cluster.fails(Some(Failure::AnswerLost));
    host.deliver().await;
    let rows = host.rows().await;
    assert_eq!(causes(&rows), [Some("InternalError"), None], "a try that failed, and the next");
    assert_eq!(rows[1]["attempt_number"], 2);
    assert_eq!(rows[1]["build_name"], rows[0]["build_name"]);
    host.cluster.fails(None);
    host.deliver().await;
    assert_eq!(host.rows().await[1]["next_retry_at"], rows[1]["next_retry_at"], "not before its time");
    host.due_now().await;
    host.deliver().await;
    let rows = host.rows().await;
    assert_eq!((rows.len(), &rows[1]["next_retry_at"], &rows[1]["error_message"]), (2, &Value::Null, &Value::Null));
    let builds = host.cluster.builds();
    assert_eq!(builds.len(), 1);

    // Its first attempt belongs to the try that made it.
    let build = host.queue(&builds[0]).await;
    assert_eq!(host.rows().await[0]["build_id"], json!(build));
    // Killed after a Build was made and before that was noted: its row knows it by then.
    sqlx::query("update webhook_deliveries set next_retry_at = now() where attempt_number = 2")
        .execute(&pool)
        .await
        .expect("due");
    host.deliver().await;
    assert_eq!((host.cluster.builds().len(), host.rows().await.len()), (1, 2));
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn a_build_that_can_not_be_made_is_given_up_for_all_to_see(pool: PgPool) {
    let host = Host::new(&pool);
    host.has(1, &[("hook", spec("github", &json!({})))]).await;
    let push = fixture("github-push");
    host.push("hook", "refused", &push).await;
    host.cluster.fails(Some(Failure::Refused));
    host.deliver().await;
    assert_eq!(causes(&host.rows().await), [Some("Invalid")], "what is refused for what it is, is not tried again");
    let events = host.cluster.events();
    assert_eq!(events.len(), 1);
    assert_eq!((&events[0]["reason"], &events[0]["regarding"]["name"]), (&json!("BuildNotMade"), &json!("hook")));

    host.push("hook", "down", &fixture("github-new-branch")).await;
    host.cluster.fails(Some(Failure::Down));
    for _ in 0..10 {
        host.due_now().await;
        host.deliver().await;
    }
    let rows = host.rows().await;
    assert_eq!(rows.len(), 1 + 8, "a row a try");
    assert!(rows.iter().all(|row| row["next_retry_at"].is_null() && row["error_message"].is_string()));
    assert_eq!(host.cluster.events().len(), 2);
    let status: String =
        sqlx::query_scalar("select last_delivery_status from webhook_configs").fetch_one(&pool).await.expect("a row");
    assert_eq!(status, "failed");
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn a_build_of_its_name_that_was_made_for_nothing_of_ours_counts_as_none(pool: PgPool) {
    let host = Host::new(&pool);
    host.has(1, &[("hook", spec("github", &json!({})))]).await;
    host.push("hook", "1", &fixture("github-push")).await;
    host.cluster.fails(Some(Failure::Down));
    host.deliver().await;
    host.cluster.fails(None);
    let name = host.rows().await[0]["build_name"].clone();
    host.cluster.has_build(json!({
        "apiVersion": "imagefactory.dev/v1alpha1", "kind": "Build",
        "metadata": {"name": name, "namespace": "orchard", "uid": "1", "annotations": {"imagefactory.dev/origin": clock::new_id()}},
        "spec": {"method": "container", "source": {"inline": {"files": {"Dockerfile": "FROM scratch"}}}, "output": {"image": "a/b:1"}},
    }));
    host.due_now().await;
    host.deliver().await;
    let rows = host.rows().await;
    let cause = rows[1]["error_message"].as_str().expect("a sentence");
    assert!(cause.contains("was not made for this delivery") && rows[1]["next_retry_at"].is_null(), "{cause}");
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn the_rows_of_a_build_say_what_was_pushed(pool: PgPool) {
    let host = Host::new(&pool);
    host.has(1, &[("hook", spec("github", &json!({})))]).await;
    host.push("hook", "ripe", &fixture("github-push")).await;
    host.deliver().await;
    let build = host.queue(&host.cluster.builds()[0]).await;
    let row = crate::attempts::row(&pool, build).await;
    let said = ["triggered_by_git_event", "git_commit", "git_branch", "git_author", "git_message"]
        .map(|column| row[column].clone());
    assert_eq!(
        said,
        ["push", COMMIT, "main", "Pomona Orchard <pomona@example.com>", "Ripen the apples"].map(Value::from)
    );
    let trigger: (String, String) =
        sqlx::query_as("select trigger_type, trigger_source from build_triggers where build_id = $1")
            .bind(build)
            .fetch_one(&pool)
            .await
            .expect("a trigger");
    assert_eq!(trigger, ("webhook".to_owned(), "hook ripe".to_owned()));
    let told = statuses(&pool, &["uid-hook".to_owned()]).await.expect("a row");
    let told = &told["uid-hook"];
    assert!(told.is_verified);
    let newest = told.newest.as_ref().expect("a delivery");
    assert_eq!((&*newest.delivery_id, newest.build_name.is_some(), newest.next_retry_at), ("ripe", true, None));
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn a_newer_commit_takes_the_place_of_an_older_one_of_its_branch(pool: PgPool) {
    let host = Host::new(&pool);
    host.has(1, &[("hook", spec("github", &json!({"supersede": true}))), ("kept", spec("github", &json!({})))]).await;
    let push = fixture("github-push");
    let newer = push.replace(COMMIT, &"7".repeat(40));
    let other = newer.replace("refs/heads/main", "refs/heads/harvest");
    for (hook, id, body) in [("hook", "1", &push), ("hook", "2", &other), ("kept", "3", &push)] {
        host.push(hook, id, body).await;
    }
    host.deliver().await;
    for build in host.cluster.builds() {
        host.queue(&build).await;
    }
    host.push("hook", "4", &newer).await;
    host.push("kept", "5", &newer).await;
    host.deliver().await;
    let ended = "select d.delivery_id, b.status, coalesce(b.cancel_reason, '') from builds b
                 join webhook_deliveries d on d.build_id = b.id order by 1";
    let ended: Vec<(String, String, String)> = sqlx::query_as(ended).fetch_all(&pool).await.expect("rows");
    let line = |id: &str, status: &str, reason: &str| (id.to_owned(), status.to_owned(), reason.to_owned());
    assert_eq!(ended, [line("1", "cancelled", "Superseded"), line("2", "queued", ""), line("3", "queued", "")]);
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn the_table_holds_what_is_declared_and_a_deleted_webhook_stays_inactive(pool: PgPool) {
    let host = Host::new(&pool);
    let more = json!({"events": ["push", "tag"], "branches": ["main"]});
    host.has(
        5,
        &[("hook", spec("gitea", &more)), ("other", spec("github", &json!({"autoBuild": false, "template": null})))],
    )
    .await;
    let rows: Vec<Value> = sqlx::query_scalar("select to_jsonb(c) from webhook_configs c order by webhook_name")
        .fetch_all(&pool)
        .await
        .expect("rows");
    let hook = &rows[0];
    for (column, expected) in [
        ("webhook_name", json!("hook")),
        ("webhook_url", json!("https://builds.example.com/hooks/orchard/hook")),
        ("webhook_secret", json!("hook/now")),
        ("event_types", json!(["push", "tag"])),
        ("branch_patterns", json!(["main"])),
        ("auto_build_enabled", json!(true)),
        ("build_method", json!("container")),
        ("is_active", json!(true)),
        ("is_verified", json!(false)),
        ("provider", json!("gitea")),
        ("resource_uid", json!("uid-hook")),
    ] {
        assert_eq!(hook[column], expected, "{column}");
    }
    assert_eq!(hook["build_config_preset"]["spec"]["method"], "container");
    assert_eq!((&rows[1]["build_method"], &rows[1]["build_config_preset"]), (&Value::Null, &Value::Null));

    host.has(6, &[("other", spec("github", &json!({"autoBuild": false, "template": null})))]).await;
    let push = fixture("github-push");
    assert_eq!(host.push("hook", "1", &push).await, StatusCode::UNAUTHORIZED);
    let active: Vec<(String, bool)> = sqlx::query_as("select webhook_name, is_active from webhook_configs order by 1")
        .fetch_all(&pool)
        .await
        .expect("rows");
    assert_eq!(active, [("hook".to_owned(), false), ("other".to_owned(), true)]);
    // An operator that is behind changes nothing.
    assert!(!declare(&pool, &[], 5).await.expect("it works"));

    // It is recorded, and makes nothing.
    assert_eq!(host.push("other", "1", &push).await, StatusCode::ACCEPTED);
    host.deliver().await;
    assert_eq!(causes(&host.rows().await), [Some("spec.autoBuild is false")]);
}
