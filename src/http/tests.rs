//! The server without its database, before an API server that says what a test tells it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{Method, Request, Response, StatusCode, header},
};
use http_body_util::BodyExt;
use image_factory_core::patience::Patience;
use kube::{
    Client,
    runtime::events::{Recorder, Reporter},
};
use serde_json::{Value, json};
use sqlx::postgres::PgPoolOptions;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Mutex, broadcast},
    time::sleep,
};
use tower::ServiceExt;

use super::{connections::Lasts, *};
use crate::jobs;

/// Questions that were put to the API server.
type Questions = Arc<Mutex<Vec<Value>>>;

/// `good` is orchard's token, `ours` the same for our audience alone; orchard may all but list in `mine`.
async fn answer(request: Request<kube::client::Body>, questions: Questions) -> Result<Response<Body>, kube::Error> {
    let path = request.uri().path().to_owned();
    let is_question = request.method() == Method::POST;
    let body = request.into_body().collect().await.expect("a body").to_bytes();
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    if is_question {
        questions.lock().await.push(asked.clone());
    }
    let kind = asked["kind"].as_str().unwrap_or("PartialObjectMetadata").to_owned();
    let api_version = asked["apiVersion"].as_str().unwrap_or("meta.k8s.io/v1").to_owned();
    let spec = &asked["spec"];
    let (code, answer) = match path.as_str() {
        "/apis/authentication.k8s.io/v1/tokenreviews" => {
            let good = match spec["token"].as_str() {
                Some("good") => spec["audiences"].is_null(),
                Some("ours") => spec["audiences"] == json!(["image-factory"]),
                Some("unaware") => true,
                Some("down") => return Err(kube::Error::Service("connection refused".into())),
                _ => false,
            };
            let audiences = if spec["token"] == "ours" { spec["audiences"].clone() } else { Value::Null };
            let user = json!({"username": "orchard", "groups": ["growers"], "uid": "7", "extra": {"scope": ["all"]}});
            let unaware = spec["token"] == "unaware" && spec["audiences"].is_null();
            (
                200,
                json!({"spec": spec, "status": {"authenticated": good && !unaware, "audiences": audiences, "user": user}}),
            )
        }
        "/apis/authorization.k8s.io/v1/subjectaccessreviews" => {
            let asked = &spec["resourceAttributes"];
            let allowed = spec["user"] == "orchard"
                && spec["groups"] == json!(["growers"])
                && spec["extra"]["scope"] == json!(["all"])
                && asked["group"] == "imagefactory.dev"
                && asked["resource"] == "builds"
                && asked["namespace"] != "theirs"
                && (asked["verb"] == "get" || asked["namespace"] != "mine");
            (201, json!({"spec": spec, "status": {"allowed": allowed}}))
        }
        "/api/v1/namespaces/gone" => (404, json!({"status": "Failure", "code": 404, "reason": "NotFound"})),
        _ => (200, json!({"metadata": {"name": "mine", "uid": "1"}})),
    };
    let mut answer = answer;
    answer["kind"] = json!(if code == 404 { "Status" } else { &kind });
    answer["apiVersion"] = json!(if code == 404 { "v1" } else { &api_version });
    let response = Response::builder().status(code).header(header::CONTENT_TYPE, "application/json");
    Ok(response.body(Body::from(answer.to_string())).expect("a response"))
}

fn context() -> (Context, Questions) {
    let questions = Questions::default();
    let asked = questions.clone();
    let service = tower::service_fn(move |request| answer(request, asked.clone()));
    let client = Client::new(service, "default");
    let pool = PgPoolOptions::new()
        .acquire_timeout(Duration::from_millis(50))
        .connect_lazy("postgres://nobody@127.0.0.1:1/none")
        .expect("an address");
    let context = Context {
        client: client.clone(),
        streams: client.clone(),
        pool,
        recorder: Recorder::new(client, Reporter { controller: "test".to_owned(), instance: None }),
        jobs: Arc::new(jobs::Settings::default()),
        metrics: Metrics::default(),
        health: Health::default(),
        patience: Patience::default(),
        stored: broadcast::channel(1).0,
        followed: std::sync::Arc::default(),
        log_bytes: 0,
        records_users: false,
    };
    (context, questions)
}

fn server() -> (Router, Questions, Health) {
    let (context, questions) = context();
    let answers = router(context.clone(), CancellationToken::new()).merge(probes(&context));
    (answers, questions, context.health)
}

/// Status and body, as JSON where it is.
async fn get(router: &Router, path: &str, headers: &[(&str, &str)]) -> (StatusCode, Value) {
    let mut request = Request::get(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8_lossy(&body).into_owned();
    (status, serde_json::from_slice(&body).unwrap_or(Value::String(text)))
}

const GOOD: (&str, &str) = ("authorization", "Bearer good");
const LOGS: &str = "/api/v1/namespaces/mine/builds/web/logs";

#[tokio::test]
async fn who_reaches_the_api_alone_is_told_neither_health_nor_metrics() {
    let strangers = router(context().0, CancellationToken::new());
    for path in ["/metrics", "/readyz", "/livez"] {
        assert_eq!(get(&strangers, path, &[]).await.0, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(get(&strangers, LOGS, &[]).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_process_without_its_database_is_live_but_not_ready() {
    let (router, _, health) = server();
    assert_eq!(get(&router, "/livez", &[]).await.0, StatusCode::OK);
    assert_eq!(get(&router, "/readyz", &[]).await.0, StatusCode::SERVICE_UNAVAILABLE);
    health.set_database(true);
    assert_eq!(get(&router, "/readyz", &[]).await.0, StatusCode::OK);
    assert_eq!(get(&router, "/metrics", &[]).await.0, StatusCode::OK);
    assert_eq!(get(&router, "/nothing", &[]).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn whoever_brings_no_good_token_is_not_let_in() {
    let (router, ..) = server();
    for path in [
        "/api/v1/namespaces/mine/builds",
        "/api/v1/namespaces/mine/builds/web",
        LOGS,
        "/api/v1/builds/0190a5b2-7c3d-7e4f-8a1b-00001f3a9c2e/logs",
        "/api/v1/namespaces/-/builds?what=ever",
    ] {
        for headers in [
            &[][..],
            &[("authorization", "")],
            &[("authorization", "Bearer")],
            &[("authorization", "Bearer ")],
            &[("authorization", "Basic Z29vZA==")],
            &[("authorization", "good")],
            &[("authorization", "Bearer bad")],
            &[("authorization", "Bearer unaware")],
            &[GOOD, GOOD],
        ] {
            let (status, body) = get(&router, path, headers).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{path} with {headers:?}: {body}");
            assert!(body["error"].as_str().is_some_and(|sentence| sentence.contains("token")), "{body}");
            assert!(!body.to_string().contains("bad"), "a token is never told: {body}");
        }
    }
}

#[tokio::test]
async fn rights_are_those_of_the_cluster_and_each_is_asked_for_once() {
    let (router, questions, _) = server();
    let cases = [
        (
            "/api/v1/namespaces/theirs/builds/web",
            StatusCode::FORBIDDEN,
            "orchard may not get builds in namespace theirs",
        ),
        ("/api/v1/namespaces/mine/builds", StatusCode::FORBIDDEN, "orchard may not list builds in namespace mine"),
        ("/api/v1/namespaces/gone/builds/web", StatusCode::NOT_FOUND, "there is no namespace gone"),
        // Let in, and then there is no database.
        (
            "/api/v1/namespaces/mine/builds/web",
            StatusCode::SERVICE_UNAVAILABLE,
            "the database does not answer; try again",
        ),
        (LOGS, StatusCode::SERVICE_UNAVAILABLE, "the database does not answer; try again"),
        ("/api/v1/namespaces/yours/builds", StatusCode::SERVICE_UNAVAILABLE, "the database does not answer; try again"),
    ];
    for _ in 0..3 {
        for (path, status, sentence) in cases {
            let answer = get(&router, path, &[GOOD]).await;
            assert_eq!(answer, (status, json!({"error": sentence})), "{path}");
        }
    }
    let questions = questions.lock().await;
    let of = |kind: &str| questions.iter().filter(|question| question["kind"] == kind).count();
    // One a right: get in theirs, list in mine, get in gone, get in mine, list in yours.
    assert_eq!((of("TokenReview"), of("SubjectAccessReview")), (1, 5), "{questions:#?}");
    let names: Vec<&Value> = questions.iter().map(|question| &question["spec"]["resourceAttributes"]["name"]).collect();
    assert!(names.contains(&&json!("web")), "the name counts, for rights on single Builds");
}

#[tokio::test]
async fn a_token_made_for_us_alone_counts() {
    let (router, ..) = server();
    let (status, body) = get(&router, LOGS, &[("authorization", "bearer ours")]).await;
    assert_eq!(
        (status, &body["error"]),
        (StatusCode::SERVICE_UNAVAILABLE, &json!("the database does not answer; try again"))
    );
}

#[tokio::test]
async fn an_api_server_that_is_away_is_no_refusal() {
    let (router, ..) = server();
    let (status, body) = get(&router, LOGS, &[("authorization", "Bearer down")]).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body["error"].as_str().unwrap().contains("the API server does not answer"), "{body}");
}

#[tokio::test]
async fn what_is_wrong_in_a_request_is_named() {
    let (router, questions, _) = server();
    let cases: BTreeMap<&str, &str> = [
        ("/api/v1/namespaces/Mine/builds", "parameter namespace"),
        ("/api/v1/namespaces/a%00b/builds", "parameter namespace"),
        ("/api/v1/namespaces/..%2F..%2Fapi/builds", "parameter namespace"),
        ("/api/v1/namespaces/%FF/builds", "the path"),
        ("/api/v1/namespaces/yours/builds?status=Failed", "parameter status"),
        ("/api/v1/namespaces/yours/builds?limit=0", "parameter limit"),
        ("/api/v1/namespaces/yours/builds?limit=501", "parameter limit"),
        ("/api/v1/namespaces/yours/builds?limit=1&limit=2", "parameter \"limit\""),
        ("/api/v1/namespaces/yours/builds?cursor=1", "parameter cursor"),
        ("/api/v1/namespaces/yours/builds?project=%00", "parameter project"),
        ("/api/v1/namespaces/yours/builds?project=a'%20or%20true", "parameter project"),
        ("/api/v1/namespaces/yours/builds?%FF=1", "parameter"),
        ("/api/v1/namespaces/yours/builds?run=1", "parameter \"run\""),
        ("/api/v1/namespaces/mine/builds/WEB", "parameter name"),
        ("/api/v1/namespaces/mine/builds/web?run=2147483648", "parameter run"),
        ("/api/v1/namespaces/mine/builds/web/steps?attempt=x", "parameter attempt"),
        ("/api/v1/namespaces/mine/builds/web/steps?after=-1", "parameter after"),
        ("/api/v1/namespaces/mine/builds/web/steps?limit=1001", "parameter limit"),
        ("/api/v1/builds/0190a5b2-7c3d-7e4f-8a1b-00001f3a9c2e/steps?after=2147483648", "parameter after"),
        ("/api/v1/namespaces/mine/builds/web/logs?from=0", "parameter from"),
        ("/api/v1/namespaces/mine/builds/web/logs?since=yesterday", "parameter since"),
        ("/api/v1/namespaces/mine/builds/web/logs?follow=maybe", "parameter follow"),
        ("/api/v1/namespaces/mine/builds/web/logs?tail=5", "parameter \"tail\""),
        ("/api/v1/builds/1", "parameter id"),
        ("/api/v1/builds/0190a5b2-7c3d-7e4f-8a1b-00001f3a9c2e/logs?run=1", "parameter \"run\""),
    ]
    .into();
    for (path, named) in cases {
        let (status, body) = get(&router, path, &[GOOD]).await;
        let sentence = body["error"].as_str().unwrap_or_default();
        assert!(status == StatusCode::BAD_REQUEST && sentence.starts_with(named), "{path}: {status} {body}");
    }
    for id in ["x", "-1", "1.5", "99999999999999999999", ""] {
        let (status, body) = get(&router, LOGS, &[GOOD, ("last-event-id", id)]).await;
        assert_eq!(
            (status, &body["error"]),
            (StatusCode::BAD_REQUEST, &json!("header Last-Event-ID must be the number of a line"))
        );
    }
    assert_eq!(questions.lock().await.len(), 1, "only the token was asked about");
    let (status, body) = get(&router, "/api/v1/nothing", &[GOOD]).await;
    assert!(status == StatusCode::NOT_FOUND && body["error"].is_string(), "{body}");
}

#[tokio::test]
async fn answers_are_counted_by_their_route() {
    let (router, ..) = server();
    for path in [LOGS, "/api/v1/namespaces/a/builds/b/logs", "/x", "/y"] {
        get(&router, path, &[]).await;
    }
    let (_, text) = get(&router, "/metrics", &[]).await;
    let text = text.as_str().unwrap();
    for line in [
        "image_factory_http_answers_total{route=\"/api/v1/namespaces/{namespace}/builds/{name}/logs\",code=\"401\"} 2",
        "image_factory_http_answers_total{route=\"none\",code=\"404\"} 2",
        "image_factory_http_log_viewers 0",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

#[tokio::test]
async fn a_caller_that_never_says_what_it_wants_is_hung_up_on() {
    let (router, ..) = server();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let serving = tokio::spawn(serve(listener, router, 1, stop.clone()));
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\nX-Slow: ").await.unwrap();
    let mut answer = Vec::new();
    slow.read_to_end(&mut answer).await.unwrap();
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    let mut whole = TcpStream::connect(address).await.unwrap();
    whole.write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    answer.clear();
    whole.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    stop.cancel();
    serving.await.unwrap();
}

/// A server with a single place, whose `/endless` never ends.
async fn with_one_place() -> std::net::SocketAddr {
    let (router, ..) = server();
    let endless = || {
        let bytes = axum::body::Bytes::from(vec![b'x'; 64 * 1024]);
        std::future::ready(Body::from_stream(futures::stream::repeat(Ok::<_, std::convert::Infallible>(bytes))))
    };
    let router = router.route("/endless", axum::routing::get(endless));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, router, 1, CancellationToken::new()));
    address
}

/// A server whose `/long` says that it may take long, and gives its last word after five seconds.
async fn with_a_long_answer() -> std::net::SocketAddr {
    let (router, ..) = server();
    let long = || {
        let words = futures::stream::unfold(0, |said| async move {
            sleep(Duration::from_millis(500)).await;
            (said < 10).then(|| (Ok::<_, std::convert::Infallible>(format!("word {said}\n")), said + 1))
        });
        let mut response = Body::from_stream(words).into_response();
        response.extensions_mut().insert(Lasts(Duration::from_mins(1)));
        std::future::ready(response)
    };
    let router = router.route("/long", axum::routing::get(long));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, router, 1, CancellationToken::new()));
    address
}

/// Whether a caller of its own has an answer soon.
async fn is_served(address: std::net::SocketAddr) -> bool {
    let asked = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        answer.starts_with(b"HTTP/1.1 200")
    };
    timeout(Duration::from_secs(10), asked).await.unwrap_or_default()
}

#[tokio::test]
async fn a_caller_that_takes_nothing_of_its_answer_is_hung_up_on() {
    let address = with_one_place().await;
    let mut greedy = TcpStream::connect(address).await.unwrap();
    greedy.write_all(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert!(is_served(address).await);
    drop(greedy);
}

#[tokio::test]
async fn a_caller_that_takes_its_answer_drop_by_drop_gives_up_its_place() {
    let address = with_one_place().await;
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let taking = tokio::spawn(async move {
        let mut drop = vec![0; 256 * 1024];
        while slow.read(&mut drop).await.is_ok_and(|read| read > 0) {
            sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(is_served(address).await);
    timeout(Duration::from_secs(10), taking).await.expect("its connection has ended").unwrap();
}

#[tokio::test]
async fn an_answer_that_may_last_outlives_its_connections_turn() {
    let address = with_a_long_answer().await;
    let mut patient = TcpStream::connect(address).await.unwrap();
    patient.write_all(b"GET /long HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    timeout(Duration::from_secs(20), patient.read_to_string(&mut answer)).await.expect("it ends").unwrap();
    assert!(answer.contains("word 9"), "{answer}");
}

#[tokio::test]
async fn a_caller_that_always_has_another_question_gives_up_its_place() {
    let address = with_one_place().await;
    let mut busy = TcpStream::connect(address).await.unwrap();
    busy.write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let asking = tokio::spawn(async move {
        let mut answer = [0; 4096];
        while busy.read(&mut answer).await.is_ok_and(|read| read > 0) {
            sleep(Duration::from_millis(100)).await;
            if busy.write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").await.is_err() {
                break;
            }
        }
    });
    assert!(is_served(address).await);
    timeout(Duration::from_secs(10), asking).await.expect("its connection has ended").unwrap();
}

/// Where a certificate is kept, and put in place of the one before.
struct Certificates(std::path::PathBuf);

impl Certificates {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("image-factory-tls-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn put(&self, from: &str, file: &str) {
        let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls");
        std::fs::copy(fixtures.join(from).join(file), self.0.join(file)).unwrap();
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Asks by https, trusting this certificate alone.
async fn asked(address: std::net::SocketAddr, certificate: &'static [u8]) -> reqwest::Result<StatusCode> {
    let trusted = reqwest::Certificate::from_pem(certificate).unwrap();
    let client = reqwest::Client::builder().tls_certs_only([trusted]).no_proxy().build().unwrap();
    Ok(client.get(format!("https://{address}/livez")).send().await?.status())
}

#[tokio::test]
async fn by_https_it_answers_with_the_certificate_of_its_files_also_when_that_was_renewed() {
    const ONE: &[u8] = include_bytes!("../../tests/fixtures/tls/one/tls.crt");
    const TWO: &[u8] = include_bytes!("../../tests/fixtures/tls/two/tls.crt");
    let _ = rustls::crypto::ring::default_provider().install_default();
    let files = Certificates::new("renewed");
    assert!(acceptor(&files.0).is_err_and(|error| error.to_string().starts_with("failed to read")));
    files.put("one", "tls.crt");
    files.put("two", "tls.key");
    assert!(acceptor(&files.0).is_err(), "another certificate's key");
    files.put("one", "tls.key");
    let tls = acceptor(&files.0).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (router, ..) = server();
    tokio::spawn(serve_encrypted(tls, listener, router, 8, CancellationToken::new()));
    assert_eq!(asked(address, ONE).await.unwrap(), StatusCode::OK);
    assert!(asked(address, TWO).await.is_err());
    // Who says nothing, or nothing of TLS, keeps no place.
    let mut silent = TcpStream::connect(address).await.unwrap();
    silent.read_to_end(&mut Vec::new()).await.unwrap();
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let _ = plain.read_to_end(&mut Vec::new()).await;

    // Half of a renewal changes nothing.
    files.put("two", "tls.crt");
    sleep(Duration::from_millis(1_500)).await;
    assert_eq!(asked(address, ONE).await.unwrap(), StatusCode::OK);
    files.put("two", "tls.key");
    for turn in 0.. {
        if asked(address, TWO).await.is_ok() {
            break;
        }
        assert!(turn < 50, "it was renewed");
        sleep(Duration::from_millis(200)).await;
    }
    assert!(asked(address, ONE).await.is_err());
}
