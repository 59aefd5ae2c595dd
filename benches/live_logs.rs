//! How long a line takes from being printed to a viewer, measured on the cluster of `make up`: by the
//! API server's own stream of the container, and by the operator's with many viewers of the same
//! build at the same time. Only the ratio is worth quoting, the machine's speed is not.

mod shared;

use std::time::Duration;

use anyhow::{Context, ensure};
use futures::{AsyncBufReadExt, TryStreamExt, future::try_join_all};
use image_factory::{clock, crd::Build, http::AUDIENCE};
use jiff::Timestamp;
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::{Namespace, Pod, ServiceAccount},
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, LogParams, PostParams},
};
use serde_json::{Value, json};
use shared::variable;
use tokio::time::{sleep, timeout};

const NAMESPACE: &str = "image-factory-bench-logs";
const VIEWERS: usize = 500;
/// Lines, one each 50 ms: the first are printed while viewers still come.
const LINES: usize = 600;
const COUNTED: usize = 300;
const PATIENCE: Duration = Duration::from_mins(5);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::try_default().await.context("run make up, then: . .local/env")?;
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": NAMESPACE}}))?;
    Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await?;
    let measured = timeout(PATIENCE, measure(&client)).await;
    Api::<Namespace>::all(client.clone()).delete(NAMESPACE, &DeleteParams::default()).await?;
    let (direct, viewers) = measured.context("the build did not end in time")??;
    println!("{:<58} {:>10} {:>10} {:>8}", "", "API server", "viewers", "ratio");
    for (what, share) in [("median", 0.5), ("p99", 0.99)] {
        let (direct, viewers) = (quantile(&direct, share)?, quantile(&viewers, share)?);
        println!(
            "{:<58} {direct:>10.1?} {viewers:>10.1?} {:>8.2}",
            format!("a line printed → with one | {VIEWERS} viewers, {what}"),
            viewers.as_secs_f64() / direct.as_secs_f64()
        );
    }
    Ok(())
}

/// How long each line took, to the one stream and to all viewers.
async fn measure(client: &Client) -> anyhow::Result<(Vec<Duration>, Vec<Duration>)> {
    let registry = variable("REGISTRY")?;
    let dockerfile =
        format!("FROM {registry}/busybox:1\nRUN for i in $(seq 1 {LINES}); do echo \"tick $i\"; sleep 0.05; done\n");
    let build: Build = serde_json::from_value(json!({
        "apiVersion": "imagefactory.dev/v1alpha1", "kind": "Build",
        "metadata": {"name": "viewed", "namespace": NAMESPACE},
        "spec": {
            "method": "container",
            "source": {"inline": {"files": {"Dockerfile": dockerfile}}},
            "output": {"image": format!("{registry}/bench/viewed:1"), "insecure": true},
        },
    }))?;
    Api::<Build>::namespaced(client.clone(), NAMESPACE).create(&PostParams::default(), &build).await?;
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "image-factory");
    let spec = TokenRequestSpec { audiences: vec![AUDIENCE.to_owned()], ..TokenRequestSpec::default() };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let made = accounts.create_token_request("image-factory-reader", &PostParams::default(), &request).await?;
    let token = made.status.context("no token was made")?.token;
    let viewers = (0..VIEWERS).map(|_| view(&token));
    let (direct, viewers) = tokio::try_join!(direct(client), try_join_all(viewers))?;
    Ok((direct, viewers.concat()))
}

/// The container's log, as the API server streams it.
async fn direct(client: &Client) -> anyhow::Result<Vec<Duration>> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let params =
        LogParams { container: Some("build".to_owned()), follow: true, timestamps: true, ..LogParams::default() };
    // Until the container has begun there is no stream.
    let stream = loop {
        let found = pods.list(&ListParams::default()).await?.items.pop();
        if let Some(pod) = found
            && let Ok(stream) = pods.log_stream(&pod.name_any(), &params).await
        {
            break stream;
        }
        sleep(Duration::from_millis(100)).await;
    };
    let mut lines = stream.lines();
    let mut took = Vec::new();
    while let Some(line) = lines.try_next().await? {
        let (at, text) = line.split_once(' ').context("a line has a time")?;
        took.extend(late(at, text)?);
    }
    ensure!(took.len() == COUNTED, "{} lines came by the API server", took.len());
    Ok(took)
}

/// The same by the operator.
async fn view(token: &str) -> anyhow::Result<Vec<Duration>> {
    let url = format!("{}/api/v1/namespaces/{NAMESPACE}/builds/viewed/logs", variable("OPERATOR_URL")?);
    let client = reqwest::Client::new();
    let mut response = loop {
        let response = client.get(&url).bearer_auth(token).send().await?;
        if response.status().is_success() {
            break response;
        }
        // Not queued yet.
        sleep(Duration::from_millis(500)).await;
    };
    let (mut took, mut rest) = (Vec::new(), Vec::new());
    while let Some(bytes) = response.chunk().await? {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            rest.extend_from_slice(piece);
            if rest.ends_with(b"\n") {
                if let Some(data) = rest.strip_prefix(b"data: ") {
                    let line: Value = serde_json::from_slice(data)?;
                    if let (Some(at), Some(text)) = (line["at"].as_str(), line["text"].as_str()) {
                        took.extend(late(at, text)?);
                    }
                }
                rest.clear();
            }
        }
    }
    ensure!(took.len() == COUNTED, "{} lines came to a viewer", took.len());
    Ok(took)
}

/// How long ago the line was printed, for those that count.
fn late(at: &str, text: &str) -> anyhow::Result<Option<Duration>> {
    let Some(tick) = text.strip_prefix("tick ").and_then(|tick| tick.parse::<usize>().ok()) else { return Ok(None) };
    let at: Timestamp = at.parse()?;
    let took = clock::now().duration_since(at);
    Ok((tick > LINES - COUNTED).then(|| took.unsigned_abs()))
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a place in a short list"
)]
fn quantile(times: &[Duration], share: f64) -> anyhow::Result<Duration> {
    let mut times = times.to_vec();
    times.sort();
    let place = ((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1));
    times.get(place).copied().context("no line was measured")
}
