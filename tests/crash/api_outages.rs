//! The API server away in the middle of builds: none fails because of it.

use std::{fs, path::Path, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt, api::ListParams};
use serde_yaml::Value;

use super::{
    cluster,
    history::{self, Jobs},
    operator::{Operator, Settings},
    proxy::{Line, Proxy},
    rows,
    stage::stage,
    tenant::tenant,
    watching,
};

/// Longer than the lease (15 s), so that the leader can't renew it in time.
const LONG: Duration = Duration::from_secs(20);

/// Lines of a build that prints before the outage, through the whole of it, and after.
const THROUGHOUT: usize = 900;
/// So many are printed in an outage at least, even where the machine is slow.
const MEANWHILE: usize = 100;

/// The API server behind a line, and how to reach it.
async fn behind(line: Line) -> (Proxy, Settings) {
    let file = cluster::variable("KUBECONFIG");
    let text = fs::read_to_string(&file).expect("KUBECONFIG can be read");
    let mut config: Value = serde_yaml::from_str(&text).expect("KUBECONFIG is YAML");
    let url = cluster::config().await.cluster_url;
    let host = url.host().expect("it has a host").to_owned();
    let proxy = Proxy::to(host.clone(), url.port_u16().unwrap_or(443), line).await;
    for cluster in config["clusters"].as_sequence_mut().expect("it has clusters") {
        cluster["cluster"]["server"] = format!("https://{}", proxy.address).into();
        cluster["cluster"]["tls-server-name"] = host.clone().into();
    }
    let kubeconfig = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("kubeconfig-{}", proxy.address.port()));
    fs::write(&kubeconfig, serde_yaml::to_string(&config).expect("it is YAML")).expect("it can be written");
    (proxy, Settings { kubeconfig: kubeconfig.to_string_lossy().into_owned(), ..Settings::default() })
}

/// The number of the last line `tick <number>`.
fn last(log: &[String]) -> usize {
    history::ticks(log).last().copied().unwrap_or_default()
}

#[tokio::test]
async fn no_build_fails_because_the_api_server_was_away_for_longer_than_the_lease() {
    let stage = stage().await;
    tenant("crash-api-down", "baseline", async |tenant| {
        let jobs = Jobs::watch(tenant);
        let (proxy, settings) = behind(Line::Up).await;
        let mut operator = Operator::start(&stage, &settings);
        let prints = tenant.apply(&history::printing(tenant, "prints", THROUGHOUT)).await;
        let printing = tenant.prints(&prints, "tick 2").await;
        let runs = tenant.apply(&history::ticking(tenant, "runs")).await;
        tenant.prints(&runs, "tick 2").await;
        let down = tokio::time::Instant::now();
        proxy.set(Line::Down);
        // One that comes meanwhile, and waits.
        tenant.apply(&history::ticking(tenant, "waits")).await;
        watching::eventually("the end of the Pod", async || {
            let pods = tenant.pods().list(&ListParams::default()).await.expect("Pods can be listed").items;
            let ended =
                |pod: &Pod| pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Succeeded"));
            pods.iter().any(ended).then_some(())
        })
        .await;
        tokio::time::sleep_until(down + LONG).await;
        assert!(operator.is_running(), "it waits");
        assert_eq!(operator.health("/livez").await, Some(200));

        // It has gone on meanwhile, and goes on still; nobody could read it.
        let stored = last(&rows::log(&tenant.pool, printing).await);
        let pod = tenant.pods_of(printing).await[0].name_any();
        let printed = last(&tenant.container_log(&pod, "build").await);
        assert!(stored + MEANWHILE < printed, "{stored} of {printed} lines are stored");
        assert!(printed < THROUGHOUT, "the build outlives the outage");

        proxy.set(Line::Up);
        history::succeeded(tenant, &jobs, &["runs", "waits"]).await;
        history::printed(tenant, &jobs, "prints", THROUGHOUT).await;
        history::holds().await;
        operator.stop().await;
    })
    .await;
}

#[tokio::test]
async fn an_operator_that_starts_before_the_api_server_waits_for_it() {
    let stage = stage().await;
    tenant("crash-late-api", "baseline", async |tenant| {
        let jobs = Jobs::watch(tenant);
        let (proxy, settings) = behind(Line::Down).await;
        let mut operator = Operator::start(&stage, &settings);
        tenant.apply(&history::ticking(tenant, "early")).await;
        operator.says("the lease could not be had").await;
        assert!(operator.is_running(), "it waits");
        proxy.set(Line::Up);
        history::succeeded(tenant, &jobs, &["early"]).await;
        history::holds().await;
        operator.stop().await;
    })
    .await;
}
