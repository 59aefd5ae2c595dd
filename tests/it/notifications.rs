//! Notifications, from the transition that makes them to a receiver on this machine: each is a row as soon as the
//! transition is one, and is sent under one id until it is received or given up.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, header::RETRY_AFTER},
    response::IntoResponse,
};
use image_factory::{
    clock,
    crd::WebhookConfigSpec,
    db::{
        builds::request_cancel,
        notifications::{self, Busy},
        queue::claim,
        webhooks::statuses,
    },
    tasks::notifier::{self, Sender, Settings},
};
use image_factory_core::{
    destination::Ranges,
    reason::Reason,
    signature::{self, Headers, Scheme},
};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::net::TcpListener;

use crate::{
    attempts::{attempt, failure, finish, limits, queued, success},
    webhooks::{
        cluster::Cluster,
        host::{Host, WHSEC, fixture},
    },
};

/// What was received, and what is answered next.
#[derive(Clone, Default)]
struct Receiver(Arc<Mutex<Received>>);

#[derive(Default)]
struct Received {
    requests: Vec<(HeaderMap, Bytes)>,
    answers: VecDeque<u16>,
}

impl Receiver {
    /// Gives its address.
    async fn listen(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let router = Router::new().fallback(receive).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}/hook")
    }

    fn answers(&self, statuses: &[u16]) {
        self.0.lock().expect("whole").answers.extend(statuses);
    }

    fn received(&self) -> Vec<(HeaderMap, Bytes)> {
        self.0.lock().expect("whole").requests.clone()
    }

    fn bodies(&self) -> Vec<Value> {
        self.received().iter().map(|(_, body)| serde_json::from_slice(body).expect("JSON")).collect()
    }

    fn events(&self) -> Vec<String> {
        self.bodies().iter().map(|body| body["type"].as_str().expect("a type").to_owned()).collect()
    }
}

async fn receive(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> impl IntoResponse {
    let mut state = receiver.0.lock().expect("whole");
    state.requests.push((headers, body));
    let status = StatusCode::from_u16(state.answers.pop_front().unwrap_or(200)).expect("a status");
    let mut answer = status.into_response();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        answer.headers_mut().insert(RETRY_AFTER, "7200".parse().expect("a number"));
    }
    if status.is_redirection() {
        answer.headers_mut().insert("location", "/elsewhere".parse().expect("a path"));
    }
    answer
}

struct Sent<'a>(&'a HeaderMap);

impl Headers for Sent<'_> {
    fn values(&self, name: &str) -> Vec<&[u8]> {
        self.0.get_all(name).iter().map(axum::http::HeaderValue::as_bytes).collect()
    }
}

fn spec(url: &str, events: &[&str]) -> WebhookConfigSpec {
    let notify = json!({"url": url, "events": events, "secretRef": {"name": "hook", "key": "standard"}});
    serde_json::from_value(json!({"notify": notify})).expect("a spec")
}

fn sender(settings: Settings) -> Sender {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Sender::new(settings).expect("a client")
}

/// One that may send to this machine.
fn local() -> Sender {
    let allowed = vec!["127.0.0.0/8".parse().expect("a range"), "::1/128".parse().expect("a range")];
    sender(Settings {
        unencrypted: true,
        ranges: Ranges { allowed, forbidden: Vec::new() },
        external_url: Some("https://builds.example.com".to_owned()),
    })
}

async fn send(host: &Host, sender: &Sender) {
    notifier::notify(&host.context, sender).await.expect("it works");
}

/// The rows of what was sent or is to be, oldest first.
async fn outbound(host: &Host) -> Vec<Value> {
    host.rows().await.into_iter().filter(|row| row["direction"] == "outbound").collect()
}

/// Seconds until the next try.
async fn wait(pool: &PgPool) -> Option<i64> {
    let wait = "select round(extract(epoch from max(next_retry_at) - now()))::bigint from webhook_deliveries";
    sqlx::query_scalar(wait).fetch_one(pool).await.expect("one row")
}

fn events_of(cluster: &Cluster) -> Vec<Value> {
    cluster.events().iter().map(|event| event["reason"].clone()).collect()
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn each_transition_of_a_build_is_received_once_signed_and_in_its_own_words(pool: PgPool) {
    let host = Host::new(&pool);
    let receiver = Receiver::default();
    let url = receiver.listen().await;
    let only_ends = Receiver::default();
    let ends_url = only_ends.listen().await;
    host.has(1, &[("all", spec(&url, &[])), ("ends", spec(&ends_url, &["build.succeeded", "build.failed"]))]).await;
    limits(&pool, 10, 10).await;
    let ripe = queued(&pool, &attempt("orchard", "ripe")).await;
    queued(&pool, &attempt("meadow", "strange")).await;
    assert_eq!(
        outbound(&host).await.len(),
        1,
        "it is there with the transition, and another tenant's is none of theirs"
    );
    claim(&pool).await.expect("it works");
    finish(&pool, ripe, &success("registry.test/orchard/ripe:1")).await;
    let rotten = queued(&pool, &attempt("orchard", "rotten")).await;
    claim(&pool).await.expect("it works");
    finish(&pool, rotten, &failure(Reason::BuildFailed)).await;
    queued(&pool, &attempt("orchard", "late")).await;
    request_cancel(&pool, "uid-orchard-late", Reason::Cancelled, "frost").await.expect("it works");

    let sender = local();
    send(&host, &sender).await;
    send(&host, &sender).await;
    let mut events = receiver.events();
    events.sort_unstable();
    let queued = "build.queued";
    let started = "build.started";
    assert_eq!(
        events,
        ["build.cancelled", "build.failed", queued, queued, queued, started, started, "build.succeeded"]
    );
    let mut ends = only_ends.events();
    ends.sort_unstable();
    assert_eq!(ends, ["build.failed", "build.succeeded"]);

    let now = clock::now().as_second();
    let mut ids = Vec::new();
    for (headers, body) in receiver.received() {
        let verified = signature::verify(Scheme::Standard, &Sent(&headers), &body, &[WHSEC.as_bytes()], now);
        assert_eq!(verified, Ok(true));
        assert_eq!(headers["content-type"], "application/json");
        ids.push(headers["webhook-id"].clone());
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), events.len(), "each has an id of its own");
    let of = |event: &str| receiver.bodies().into_iter().find(|body| body["type"] == event).expect("it came");
    let succeeded = of("build.succeeded");
    let digest = format!("sha256:{}", "c".repeat(64));
    for (field, expected) in [
        ("buildId", json!(ripe)),
        ("namespace", json!("orchard")),
        ("name", json!("ripe")),
        ("project", json!("paint")),
        ("run", json!(1)),
        ("attempt", json!(1)),
        ("image", json!("registry.test/orchard/ripe:1")),
        ("status", json!("success")),
        ("digest", json!(digest)),
    ] {
        assert_eq!(succeeded["data"][field], expected, "{field}");
    }
    assert!(succeeded["timestamp"].as_str().expect("a time").ends_with('Z'));
    assert_eq!(of("build.failed")["data"]["reason"], "BuildFailed");
    let rows = outbound(&host).await;
    assert!(rows.iter().all(|row| row["response_status"] == 200 && row["next_retry_at"].is_null()), "{rows:#?}");
    assert!(rows.iter().any(|row| row["payload"] == succeeded), "the row is what was sent");
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn what_is_not_received_is_sent_again_by_the_schedule_under_one_id_and_given_up_in_the_end(pool: PgPool) {
    let host = Host::new(&pool);
    let receiver = Receiver::default();
    host.has(1, &[("hook", spec(&receiver.listen().await, &[]))]).await;
    queued(&pool, &attempt("orchard", "ripe")).await;
    let sender = local();
    // A redirect is not followed, and an answer that asks for more time gets it.
    receiver.answers(&[500, 302, 503, 404, 500, 500, 500, 500, 500, 500]);
    for expected in [5, 300, 7_200, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400] {
        send(&host, &sender).await;
        let wait = wait(&pool).await.expect("another try");
        assert!((expected - 20..=expected).contains(&wait), "{wait} instead of {expected}");
        send(&host, &sender).await;
        host.due_now().await;
    }
    send(&host, &sender).await;
    let rows = outbound(&host).await;
    assert_eq!(rows.len(), 10, "a row a try");
    assert!(rows.iter().all(|row| row["next_retry_at"].is_null() && row["error_message"].is_string()));
    let statuses: Vec<u64> = rows.iter().filter_map(|row| row["response_status"].as_u64()).collect();
    assert_eq!(statuses, [500, 302, 503, 404, 500, 500, 500, 500, 500, 500]);
    assert_eq!(events_of(&host.cluster), ["NotificationGivenUp"]);
    let received = receiver.received();
    assert_eq!(received.len(), 10);
    for (headers, body) in &received {
        assert_eq!(headers["webhook-id"], received[0].0["webhook-id"]);
        assert_eq!(body, &received[0].1);
    }
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn a_receiver_that_is_gone_is_sent_nothing_until_another_is_named(pool: PgPool) {
    let host = Host::new(&pool);
    let receiver = Receiver::default();
    let url = receiver.listen().await;
    host.has(1, &[("hook", spec(&url, &[]))]).await;
    let sender = local();
    receiver.answers(&[410]);
    queued(&pool, &attempt("orchard", "one")).await;
    send(&host, &sender).await;
    queued(&pool, &attempt("orchard", "two")).await;
    send(&host, &sender).await;
    assert_eq!(receiver.received().len(), 1);
    let told = statuses(&pool, &["uid-hook".to_owned()]).await.expect("a row");
    assert!(told["uid-hook"].is_disabled);

    host.has(2, &[("hook", spec(&format!("{url}/new"), &[]))]).await;
    queued(&pool, &attempt("orchard", "three")).await;
    send(&host, &sender).await;
    assert_eq!(receiver.bodies().pop().expect("it came")["data"]["name"], "three");
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn an_operator_that_was_killed_while_it_sent_leaves_it_to_the_next(pool: PgPool) {
    let host = Host::new(&pool);
    let receiver = Receiver::default();
    host.has(1, &[("hook", spec(&receiver.listen().await, &[]))]).await;
    queued(&pool, &attempt("orchard", "ripe")).await;
    let sender = local();
    assert_eq!(notifications::take(&pool, 10, 10, &Busy::default()).await.expect("it works").len(), 1);
    send(&host, &sender).await;
    assert!(receiver.received().is_empty(), "whoever has taken it has a minute");
    host.due_now().await;
    send(&host, &sender).await;
    assert_eq!(receiver.events(), ["build.queued"]);
    assert_eq!(outbound(&host).await.len(), 1);
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn nothing_is_sent_inside_or_in_the_clear_unless_that_is_allowed(pool: PgPool) {
    let host = Host::new(&pool);
    let receiver = Receiver::default();
    let url = receiver.listen().await;
    let port = url.trim_start_matches("http://127.0.0.1:").trim_end_matches("/hook").to_owned();
    let inside = || sender(Settings { unencrypted: true, ..Settings::default() });
    for (version, (target, sender, words)) in (1..).zip([
        (url.clone(), inside(), "127.0.0.1 is no public address"),
        (format!("http://localhost:{port}/"), inside(), "is no public address"),
        (format!("http://[::ffff:127.0.0.1]:{port}/"), inside(), "is no public address"),
        (format!("http://2130706433:{port}/"), inside(), "127.0.0.1 is no public address"),
        ("http://169.254.169.254/latest/meta-data".to_owned(), inside(), "169.254.169.254 is no public address"),
        (url.clone(), sender(Settings::default()), "http is not encrypted, and this installation does not allow it"),
    ]) {
        host.has(version, &[("hook", spec(&target, &["build.queued"]))]).await;
        queued(&pool, &attempt("orchard", &format!("build-{version}"))).await;
        send(&host, &sender).await;
        let rows = outbound(&host).await;
        let tried = rows.iter().rev().find(|row| row["error_message"].is_string()).expect("a try");
        let error = tried["error_message"].as_str().unwrap_or_default();
        assert!(error.contains(words), "{target}: {error}");
        sqlx::query("update webhook_deliveries set next_retry_at = null").execute(&pool).await.expect("no more of it");
    }
    assert!(receiver.received().is_empty());
}

/// A webhook that builds this repository, and tells the Git host there of its commits.
fn telling(repository: &str) -> WebhookConfigSpec {
    let status = json!({"tokenSecretRef": {"name": "hook", "key": "now"}});
    let mut spec = crate::webhooks::host::spec("github", &json!({"commitStatus": status}));
    let template = spec.template.as_mut().expect("a template");
    template.spec.source.git.as_mut().expect("a source").url = repository.into();
    spec
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn the_git_host_is_told_of_the_commits_that_it_delivered(pool: PgPool) {
    let host = Host::new(&pool);
    let receiver = Receiver::default();
    let source = receiver.listen().await.replace("/hook", "/shop/web.git");
    // It is delivered by GitHub's way of signing, which the test's host has, and told by Gitea's API.
    let delivered = telling(&source);
    let mut told = delivered.clone();
    told.provider = serde_json::from_value(json!("gitea")).expect("a provider");
    host.has(1, &[("hook", delivered)]).await;
    limits(&pool, 10, 10).await;
    host.push("hook", "1", &fixture("github-push")).await;
    host.deliver().await;
    host.has(2, &[("hook", told)]).await;
    let build = host.queue(&host.cluster.builds()[0]).await;
    queued(&pool, &attempt("orchard", "by-hand")).await;
    let sender = local();
    send(&host, &sender).await;
    // Two states before the next look: only the newer is told.
    claim(&pool).await.expect("it works");
    finish(&pool, build, &failure(Reason::BuildFailed)).await;
    send(&host, &sender).await;
    let states: Vec<Value> = receiver.bodies().iter().map(|body| body["state"].clone()).collect();
    assert_eq!(states, ["pending", "failure"]);
    for (headers, body) in receiver.received() {
        assert_eq!(headers["authorization"], "token It's a Secret to Everybody");
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(body["context"], "image-factory/hook");
        assert_eq!(body["target_url"], format!("https://builds.example.com/api/v1/builds/{build}"));
    }
    let rows = outbound(&host).await;
    assert_eq!(rows.len(), 3, "and nothing of the Build that nobody delivered");
    let kept: Vec<&str> = rows.iter().filter_map(|row| row["error_message"].as_str()).collect();
    assert_eq!(kept, ["the commit has a newer state"]);
}

/// A receiver of notifications that answers so is disabled; a Git host says it of one commit.
#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn a_git_host_that_answers_that_a_commit_is_gone_is_told_what_comes_next(pool: PgPool) {
    let host = Host::new(&pool);
    let receiver = Receiver::default();
    let source = receiver.listen().await.replace("/hook", "/shop/web.git");
    host.has(1, &[("hook", telling(&source))]).await;
    limits(&pool, 10, 10).await;
    host.push("hook", "1", &fixture("github-push")).await;
    host.deliver().await;
    let build = host.queue(&host.cluster.builds()[0]).await;
    let sender = local();
    receiver.answers(&[410]);
    send(&host, &sender).await;
    let rows = outbound(&host).await;
    assert_eq!((rows.len(), &rows[0]["response_status"]), (1, &json!(410)));
    assert!(rows[0]["next_retry_at"].is_null(), "it is given up");
    assert!(!statuses(&pool, &["uid-hook".to_owned()]).await.expect("a row")["uid-hook"].is_disabled);

    claim(&pool).await.expect("it works");
    finish(&pool, build, &failure(Reason::BuildFailed)).await;
    send(&host, &sender).await;
    let states: Vec<Value> = receiver.bodies().iter().map(|body| body["state"].clone()).collect();
    assert_eq!(states, ["pending", "failure"]);
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn a_slow_receiver_keeps_no_other_waiting(pool: PgPool) {
    let host = Host::new(&pool);
    let receiver = Receiver::default();
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let silent_url = format!("http://{}/", silent.local_addr().expect("an address"));
    host.has(1, &[("quick", spec(&receiver.listen().await, &[])), ("slow", spec(&silent_url, &[]))]).await;
    for name in ["one", "two", "three", "four", "five", "six"] {
        queued(&pool, &attempt("orchard", name)).await;
    }
    let sender = local();
    let sending = send(&host, &sender);
    // Each of the slow ones takes 15 s.
    let _ = tokio::time::timeout(Duration::from_secs(5), sending).await;
    assert_eq!(receiver.received().len(), 6);
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn what_is_new_does_not_wait_for_a_receiver_that_is_slow(pool: PgPool) {
    let host = Host::new(&pool);
    let receiver = Receiver::default();
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let silent_url = format!("http://{}/", silent.local_addr().expect("an address"));
    host.has(1, &[("slow", spec(&silent_url, &["build.queued"]))]).await;
    queued(&pool, &attempt("orchard", "one")).await;
    let sender = local();
    let sending = send(&host, &sender);
    let later = async {
        // It is being sent.
        let _connection = silent.accept().await.expect("a connection");
        host.has(2, &[("slow", spec(&silent_url, &[])), ("quick", spec(&receiver.listen().await, &[]))]).await;
        queued(&pool, &attempt("orchard", "two")).await;
        while receiver.received().is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    // The slow one takes 15 s.
    let told = async {
        tokio::select! {
            () = later => {}
            () = sending => unreachable!("the slow one was given up before the quick one was told"),
        }
    };
    tokio::time::timeout(Duration::from_secs(10), told).await.expect("it is told meanwhile");
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn a_git_host_hears_the_newest_state_of_a_commit_last_however_slow_it_is(pool: PgPool) {
    let host = Host::new(&pool);
    let receiver = Receiver::default();
    // The first state is answered when a test says so.
    let (answer, answered) = tokio::sync::oneshot::channel::<()>();
    let held = Arc::new(tokio::sync::Mutex::new(Some(answered)));
    let states = receiver.clone();
    let router = Router::new().fallback(move |headers: HeaderMap, body: Bytes| {
        let (held, states) = (held.clone(), states.clone());
        async move {
            let waits = held.lock().await.take();
            if let Some(waits) = waits {
                let _ = waits.await;
            }
            receive(State(states), headers, body).await
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let source = format!("http://{}/shop/web.git", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, router).await });

    let other = Receiver::default();
    host.has(1, &[("hook", telling(&source)), ("told", spec(&other.listen().await, &[]))]).await;
    limits(&pool, 10, 10).await;
    host.push("hook", "1", &fixture("github-push")).await;
    host.deliver().await;
    let build = host.queue(&host.cluster.builds()[0]).await;
    let sender = local();
    let ends = async {
        claim(&pool).await.expect("it works");
        finish(&pool, build, &failure(Reason::BuildFailed)).await;
        // Whoever else hears of it has heard all by now.
        while other.received().len() < 3 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        answer.send(()).expect("it is waited for");
    };
    tokio::join!(send(&host, &sender), ends);
    send(&host, &sender).await;
    let states: Vec<Value> = receiver.bodies().iter().map(|body| body["state"].clone()).collect();
    assert_eq!(states, ["pending", "failure"]);
}
