//! Postgres away: nothing new starts, running builds go on, the operator lives and is not ready, and
//! every end is written when it is back.

use image_factory_core::pod::BUILD_CONTAINER;
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt, api::ListParams};
use sqlx::postgres::PgConnectOptions;

use super::{
    cluster,
    history::{self, Jobs},
    operator::{Operator, Settings},
    proxy::{Line, Proxy},
    rows,
    stage::stage,
    tenant::{Tenant, tenant},
    watching,
};

/// Postgres behind a line, and how to reach it.
async fn behind(line: Line) -> (Proxy, Settings) {
    let url = cluster::variable("DATABASE_URL");
    let options: PgConnectOptions = url.parse().expect("DATABASE_URL can be read");
    let proxy = Proxy::to(options.get_host().to_owned(), options.get_port(), line).await;
    let (before, after) = url.split_once('@').expect("it has a user and a host");
    let path = after.split_once('/').expect("it names a database").1;
    let database_url = format!("{before}@{}/{path}", proxy.address);
    (proxy, Settings { database_url, ..Settings::default() })
}

/// Waits for the end of the one Pod of the namespace.
async fn pod_ended(tenant: &Tenant) -> Pod {
    watching::eventually("the end of the Pod", async || {
        let pods = tenant.pods().list(&ListParams::default()).await.expect("Pods can be listed").items;
        let ended = |pod: &Pod| pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Succeeded"));
        assert!(pods.len() <= 1, "one build runs");
        pods.into_iter().find(ended)
    })
    .await
}

#[tokio::test]
async fn an_operator_that_starts_before_postgres_lives_and_waits_for_it() {
    let stage = stage().await;
    tenant("crash-late-postgres", "baseline", async |tenant| {
        let jobs = Jobs::watch(tenant);
        let (proxy, settings) = behind(Line::Down).await;
        let operator = Operator::start(&stage, &settings);
        operator.says("the database could not be brought up to date").await;
        operator.is_ready(false).await;
        tenant.apply(&history::ticking(tenant, "early")).await;
        proxy.set(Line::Up);
        operator.is_ready(true).await;
        history::succeeded(tenant, &jobs, &["early"]).await;
        history::holds().await;
        operator.stop().await;
    })
    .await;
}

#[tokio::test]
async fn while_postgres_is_down_builds_run_on_and_none_starts() {
    let stage = stage().await;
    tenant("crash-postgres-down", "baseline", async |tenant| {
        let jobs = Jobs::watch(tenant);
        let (proxy, settings) = behind(Line::Up).await;
        let operator = Operator::start(&stage, &settings);
        let runs = tenant.apply(&history::ticking(tenant, "runs")).await;
        let id = tenant.prints(&runs, "tick 2").await;
        proxy.set(Line::Down);
        let waits = tenant.apply(&history::ticking(tenant, "waits")).await;
        operator.is_ready(false).await;

        let pod = pod_ended(tenant).await;
        assert_eq!(pod.labels()["imagefactory.dev/build"], "runs");
        assert!(
            tenant.container_log(&pod.name_any(), BUILD_CONTAINER).await.len()
                > rows::log(&tenant.pool, id).await.len()
        );
        assert_eq!(rows::history(&tenant.pool, id).await, "queued → in_progress", "its end can't be written yet");
        assert!(tenant.attempts(&waits).await.is_empty(), "the other has not even a row");
        assert_eq!(operator.health("/livez").await, Some(200));

        proxy.set(Line::Up);
        operator.is_ready(true).await;
        history::succeeded(tenant, &jobs, &["runs", "waits"]).await;
        history::holds().await;
        operator.stop().await;
    })
    .await;
}

#[tokio::test]
async fn commits_that_are_cut_before_or_after_postgres_has_them_leave_nothing_half_done() {
    let stage = stage().await;
    tenant("crash-commits", "baseline", async |tenant| {
        let jobs = Jobs::watch(tenant);
        let (proxy, settings) = behind(Line::Up).await;
        let operator = Operator::start(&stage, &settings);
        operator.leads().await;
        proxy.cut_commits(3);
        let names = ["one", "two", "three", "four"];
        for name in names {
            tenant.apply(&history::ticking(tenant, name)).await;
        }
        history::succeeded(tenant, &jobs, &names).await;
        assert!(proxy.commits_cut() >= 10, "{} commits were cut", proxy.commits_cut());
        proxy.cut_commits(0);
        history::holds().await;
        operator.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_postgres_that_stops_answering_is_noticed_and_what_it_held_up_goes_on() {
    let stage = stage().await;
    tenant("crash-silent-postgres", "baseline", async |tenant| {
        let jobs = Jobs::watch(tenant);
        let (proxy, settings) = behind(Line::Up).await;
        let operator = Operator::start(&stage, &settings);
        let runs = tenant.apply(&history::ticking(tenant, "runs")).await;
        tenant.prints(&runs, "tick 2").await;
        proxy.set(Line::Silent);
        operator.is_ready(false).await;
        pod_ended(tenant).await;
        proxy.set(Line::Up);
        operator.is_ready(true).await;
        history::succeeded(tenant, &jobs, &["runs"]).await;
        history::holds().await;
        operator.stop().await;
    })
    .await;
}
