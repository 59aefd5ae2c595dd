//! Builds and their logs over HTTP and by `image-factory logs`: as they grow, through the end of the
//! operator, after their end and after their deletion; and for nobody who may not read them.

use std::{
    process::{Output, Stdio},
    time::Duration,
};

use image_factory::clock;
use jiff::Timestamp;
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::{Pod, ServiceAccount},
    rbac::v1::RoleBinding,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::timeout,
};

use super::{
    chart, cluster, rows,
    tenant::{Tenant, phase, tenant},
    watching,
};

const TICKS: usize = 250;

/// The command, as a person would type it.
fn image_factory(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_image-factory"));
    command.args(arguments).env_remove("IMAGE_FACTORY_SERVER").kill_on_drop(true);
    command
}

async fn logs(tenant: &Tenant, arguments: &[&str]) -> Output {
    let mut command = image_factory(&["logs", "-n", &tenant.namespace]);
    let output = timeout(watching::PATIENCE, command.args(arguments).output()).await;
    output.expect("it ends").expect("it can be run")
}

fn printed(output: &Output) -> Vec<String> {
    let text = String::from_utf8(output.stdout.clone()).expect("UTF-8");
    text.lines().map(str::to_owned).collect()
}

fn code(output: &Output) -> Option<i32> {
    eprintln!("{}", String::from_utf8_lossy(&output.stderr));
    output.status.code()
}

#[tokio::test]
async fn a_line_is_there_within_a_second_and_none_is_lost_or_doubled_by_a_killed_operator() {
    tenant("live-logs", "baseline", async |tenant| {
        let dockerfile = format!("FROM BASE\nRUN for i in $(seq 1 {TICKS}); do echo \"tick $i\"; sleep 0.1; done\n");
        let build = tenant.apply(&tenant.manifest("web", "container", &dockerfile)).await;
        let mut command = image_factory(&["logs", "-f", "--timestamps", "-n", &tenant.namespace, "web"]);
        let mut following = command.stdout(Stdio::piped()).spawn().expect("it can be run");
        let mut lines = BufReader::new(following.stdout.take().expect("it prints")).lines();
        let mut ticks: Vec<usize> = Vec::new();
        let mut log = Vec::new();
        let mut slowest = 0.0_f64;
        let mut killed = Vec::new();
        let operators: Api<Pod> = Api::namespaced(tenant.client.clone(), chart::NAMESPACE);
        let selector = ListParams::default().labels("app.kubernetes.io/name=image-factory");
        while let Some(line) = timeout(watching::PATIENCE, lines.next_line()).await.expect("in time").expect("UTF-8") {
            let now = clock::now();
            let (at, text) = line.split_once(' ').expect("a time and a line");
            log.push(text.to_owned());
            let Some(tick) = text.strip_prefix("tick ").and_then(|tick| tick.parse().ok()) else { continue };
            ticks.push(tick);
            // Those before the kill: afterwards nobody was there to read them.
            if tick <= 50 && tick > 1 {
                let at: Timestamp = at.parse().expect("a time");
                slowest = slowest.max(now.duration_since(at).as_secs_f64());
            }
            if tick == 50 {
                killed = operators.list(&selector).await.expect("Pods can be listed").items;
                for pod in &killed {
                    let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
                    operators.delete(&pod.name_any(), &now).await.expect("it can be killed");
                }
            }
        }
        assert!(!killed.is_empty(), "the operator was killed in the midst");
        assert!(slowest < 1.0, "a line came {slowest} s after it was printed");
        assert_eq!(ticks, (1..=TICKS).collect::<Vec<_>>(), "every line once, in order");
        let status = timeout(watching::PATIENCE, following.wait()).await.expect("it ends").expect("it ran");
        assert_eq!(status.code(), Some(0), "the build succeeded");
        let build = tenant.finished(&build.name_any(), 1).await;
        assert_eq!(phase(&build), "Success");
        let attempt = tenant.attempts(&build).await.pop().expect("an attempt");
        assert_eq!(log, rows::log(&tenant.pool, rows::id(&attempt)).await, "what was printed is what is stored");
    })
    .await;
}

#[tokio::test]
async fn logs_of_builds_that_ended_or_are_gone_are_printed_whole_from_a_time_and_of_a_run() {
    tenant("old-logs", "baseline", async |tenant| {
        let failing =
            tenant.manifest("web", "container", "FROM BASE\nRUN echo before && sleep 2 && echo broken && exit 7\n");
        tenant.apply(&failing).await;
        let followed = logs(tenant, &["web", "--follow"]).await;
        let first = tenant.finished("web", 1).await;
        let first = rows::id(&tenant.attempts(&first).await[0]);
        let stored = rows::log(&tenant.pool, first).await;
        assert_eq!(
            (code(&followed), printed(&followed)),
            (Some(3), stored.clone()),
            "a failure can be told by its code"
        );
        assert!(String::from_utf8_lossy(&followed.stderr).contains("BuildFailed"));
        let whole = logs(tenant, &["web"]).await;
        assert_eq!(
            (code(&whole), printed(&whole)),
            (Some(0), stored.clone()),
            "the log was printed, which is all that was asked"
        );

        let mended = tenant.manifest("web", "container", "FROM BASE\nRUN echo mended\n");
        tenant.apply(&mended).await;
        tenant.finished("web", 2).await;
        let second = rows::log(
            &tenant.pool,
            rows::id(&tenant.attempts(&tenant.builds().get("web").await.expect("there")).await[1]),
        )
        .await;
        assert_eq!(printed(&logs(tenant, &["web"]).await), second);
        assert_eq!(printed(&logs(tenant, &["web", "--run", "1", "--attempt", "1"]).await), stored);
        assert_eq!(printed(&logs(tenant, &["--id", &first.to_string()]).await), stored);
        let stamped = printed(&logs(tenant, &["--id", &first.to_string(), "--timestamps"]).await);
        let broken = stamped.iter().find(|line| line.ends_with(" broken")).expect("the line");
        let at = broken.split(' ').next().expect("a time");
        let since = printed(&logs(tenant, &["--id", &first.to_string(), "--since", at]).await);
        let from = stored.iter().position(|line| line == "broken").expect("the line");
        assert!(since.len() < stored.len() && since.ends_with(&stored[from..]), "{since:?} of {stored:?}");
        assert_eq!(printed(&logs(tenant, &["web", "--since", "1h"]).await), second);

        tenant.builds().delete("web", &DeleteParams::default()).await.expect("it can be deleted");
        watching::until(&tenant.builds(), "web", "the Build to go", |build| build.is_none()).await;
        for arguments in [&["web"][..], &["web", "-f"]] {
            let gone = logs(tenant, arguments).await;
            assert_eq!((code(&gone), printed(&gone)), (Some(0), second.clone()), "rows outlive their Build");
        }
        let unknown = logs(tenant, &["nothing"]).await;
        assert_eq!(code(&unknown), Some(1));
        let sentence = String::from_utf8_lossy(&unknown.stderr).into_owned();
        assert!(sentence.contains("there is no build nothing in namespace"), "{sentence}");
    })
    .await;
}

/// A token of a service account of the tenant's, for this audience.
async fn token(tenant: &Tenant, account: &str, audience: Option<&str>) -> String {
    let accounts: Api<ServiceAccount> = Api::namespaced(tenant.client.clone(), &tenant.namespace);
    let object = serde_json::from_value(json!({"metadata": {"name": account}})).expect("an account");
    // Another test of the same namespace may have made it.
    let _ = accounts.create(&PostParams::default(), &object).await;
    let audiences = audience.map(|audience| vec![audience.to_owned()]).unwrap_or_default();
    let spec = TokenRequestSpec { audiences, expiration_seconds: Some(600), ..TokenRequestSpec::default() };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let made = accounts.create_token_request(account, &PostParams::default(), &request).await;
    made.expect("a token can be made").status.expect("it was made").token
}

/// Asks again where the operator goes away in between: other tests kill it.
async fn get(path: &str, token: Option<&str>) -> (StatusCode, Value) {
    for _ in 0..60 {
        match try_get(path, token).await {
            Ok((status, _)) if status == StatusCode::SERVICE_UNAVAILABLE => {}
            // Other tests end the operator, and a network may answer in its place. What it says itself has a body.
            Ok((status, body)) if status == StatusCode::NOT_FOUND && body == "" => {}
            Ok(answer) => return answer,
            Err(error) if error.is_timeout() => unreachable!("{error}"),
            Err(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    unreachable!("the operator does not answer {path}");
}

async fn try_get(path: &str, token: Option<&str>) -> reqwest::Result<(StatusCode, Value)> {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(30)).build().expect("a client");
    let mut request = client.get(format!("{}/api/v1{path}", cluster::variable("OPERATOR_URL")));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let response = request.send().await?;
    let status = response.status();
    let text = response.text().await?;
    Ok((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
}

#[tokio::test]
async fn builds_are_read_by_whoever_may_read_them_in_the_cluster_and_by_nobody_else() {
    tenant("readers", "baseline", async |tenant| {
        let namespace = &tenant.namespace;
        let bindings: Api<RoleBinding> = Api::namespaced(tenant.client.clone(), namespace);
        let binding = json!({
            "metadata": {"name": "readers"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
            "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": namespace}],
        });
        let binding = serde_json::from_value(binding).expect("a binding");
        bindings.create(&PostParams::default(), &binding).await.expect("it can be made");
        tenant.apply(&tenant.manifest("web", "container", "FROM BASE\nRUN echo hello\n")).await;
        let build = tenant.finished("web", 1).await;
        let id = rows::id(&tenant.attempts(&build).await[0]);

        let reader = token(tenant, "reader", None).await;
        let ours = token(tenant, "reader", Some("image-factory")).await;
        let others = token(tenant, "reader", Some("someone-else")).await;
        let stranger = token(tenant, "stranger", None).await;
        let paths = [
            format!("/namespaces/{namespace}/builds"),
            format!("/namespaces/{namespace}/builds/web"),
            format!("/namespaces/{namespace}/builds/web/results"),
            format!("/namespaces/{namespace}/builds/web/logs"),
        ];
        // A right that was just given takes a moment in the API server.
        watching::eventually("the reader's right", async || {
            (get(&paths[0], Some(&reader)).await.0 == StatusCode::OK).then_some(())
        })
        .await;
        for path in &paths {
            for (token, status) in [
                (Some(reader.as_str()), StatusCode::OK),
                (Some(ours.as_str()), StatusCode::OK),
                (Some(stranger.as_str()), StatusCode::FORBIDDEN),
                (Some(others.as_str()), StatusCode::UNAUTHORIZED),
                (Some("nonsense"), StatusCode::UNAUTHORIZED),
                (None, StatusCode::UNAUTHORIZED),
            ] {
                let (found, body) = get(path, token).await;
                assert_eq!(found, status, "{path}: {body}");
            }
        }
        let by_id = format!("/builds/{id}");
        assert_eq!(get(&by_id, Some(&reader)).await.1["name"], "web");
        assert_eq!(get(&by_id, Some(&stranger)).await.0, StatusCode::NOT_FOUND);
        for elsewhere in ["default", chart::NAMESPACE] {
            let (status, body) = get(&format!("/namespaces/{elsewhere}/builds"), Some(&reader)).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{elsewhere}: {body}");
        }
        let (_, list) = get(&paths[0], Some(&reader)).await;
        assert_eq!((&list["builds"][0]["id"], &list["builds"][0]["status"]), (&json!(id), &json!("success")));
        let (_, log) = get(&paths[3], Some(&reader)).await;
        let log = log.as_str().expect("events");
        assert!(log.contains("\"text\":\"hello\"") && log.contains("event: end\n"), "{log}");
    })
    .await;
}
