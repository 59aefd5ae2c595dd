//! Every hop from a delivery to its Build, and of what is sent of it, twice: an error, then a crash. The Git host delivers
//! again what was not taken, as Git hosts do; each delivery makes one Build, and each of its steps is told.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use axum::{Router, body::Bytes, http::HeaderMap};
use image_factory::crd::{Build, BuildConcurrencyPolicy, WebhookConfig};
use image_factory_core::signature;
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;
use tokio::net::TcpListener;

use super::{
    cluster, history,
    operator::{Operator, Settings},
    stage::stage,
    tenant::{APPLIER, Tenant, phase, status, tenant},
    watching,
};

const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

type Ids = Arc<Mutex<BTreeSet<String>>>;

/// A receiver that remembers the ids it was sent.
async fn receiver() -> (Ids, String) {
    let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let ids = Ids::default();
    let kept = ids.clone();
    let router = Router::new().fallback(move |headers: HeaderMap, _: Bytes| {
        let id = headers["webhook-id"].to_str().expect("text").to_owned();
        kept.lock().expect("whole").insert(id);
        std::future::ready(())
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    (ids, url)
}

async fn apply(tenant: &Tenant, notify: &str) {
    // Both Builds push one tag, and must not do so at once.
    let policies: Api<BuildConcurrencyPolicy> = Api::namespaced(tenant.client.clone(), &tenant.namespace);
    let policy = json!({
        "apiVersion": "imagefactory.dev/v1alpha1", "kind": "BuildConcurrencyPolicy",
        "metadata": {"name": "default", "namespace": tenant.namespace}, "spec": {"maxConcurrentBuilds": 1},
    });
    let params = PatchParams::apply(APPLIER).force();
    policies.patch("default", &params, &Patch::Apply(&policy)).await.expect("the API server accepts it");
    tenant.secret("hook", "Opaque", json!({"secret": SECRET})).await;
    let secret = json!({"name": "hook", "key": "secret"});
    let template = tenant.manifest("web", "container", "FROM BASE\nRUN echo ripe\n")["spec"].clone();
    let manifest = json!({
        "apiVersion": "imagefactory.dev/v1alpha1", "kind": "WebhookConfig",
        "metadata": {"name": "web", "namespace": tenant.namespace},
        "spec": {"provider": "generic", "repository": "orchard/web", "secretRef": secret, "template": {"spec": template},
            "notify": {"url": notify, "secretRef": secret}},
    });
    let api: Api<WebhookConfig> = Api::namespaced(tenant.client.clone(), &tenant.namespace);
    api.patch("web", &params, &Patch::Apply(&manifest)).await.expect("the API server accepts it");
}

/// Whether a delivery was taken.
async fn deliver(operator: &Operator, tenant: &Tenant, id: &str, commit: &str) -> bool {
    // A branch each: an older commit of a branch is not built after a newer one.
    let body = json!({"repository": "orchard/web", "ref": format!("refs/heads/{id}"), "commit": commit}).to_string();
    let now = image_factory::clock::now().as_second();
    let signature = signature::sign(SECRET.as_bytes(), id, now, body.as_bytes()).expect("a secret");
    let request = reqwest::Client::new()
        .post(format!("{}/hooks/{}/web", operator.url(), tenant.namespace))
        .header("content-type", "application/json")
        .header(signature::STANDARD_ID, id)
        .header(signature::STANDARD_TIMESTAMP, now)
        .header(signature::STANDARD_SIGNATURE, signature);
    request.body(body).send().await.is_ok_and(|answer| answer.status() == 202)
}

async fn until_taken(operator: &Operator, tenant: &Tenant, id: &str, commit: &str) {
    watching::eventually(&format!("delivery {id}"), async || deliver(operator, tenant, id, commit).await.then_some(()))
        .await;
}

async fn error_then_crash(place: &str) {
    let stage = stage().await;
    tenant(&format!("crash-{}", place.replace('.', "-")), "baseline", async |tenant| {
        let (told, url) = receiver().await;
        let mut stage = stage;
        stage.environment.retain(|(name, _)| !name.starts_with("IMAGE_FACTORY_NOTIFY"));
        for (name, value) in [("IMAGE_FACTORY_NOTIFY_UNENCRYPTED", "true"), ("IMAGE_FACTORY_NOTIFY_RANGES", "127.0.0.0/8")] {
            stage.environment.push((name.to_owned(), value.to_owned()));
        }
        let operator = Operator::start(&stage, &Settings::failing(&format!("{place}=1*return(error)->1*return(crash)")));
        apply(tenant, &url).await;
        let commits = ["1".repeat(40), "2".repeat(40)];
        // It may crash over the first already, when it looks again.
        watching::eventually("an error", async || {
            deliver(&operator, tenant, "first", &commits[0]).await;
            operator.said(&format!("failing at {place}")).then_some(())
        })
        .await;
        watching::eventually("a crash", async || {
            deliver(&operator, tenant, "second", &commits[1]).await;
            operator.said(&format!("crashing at {place}")).then_some(())
        })
        .await;
        operator.crashed(place).await;

        let operator = Operator::start(&stage, &Settings::default());
        until_taken(&operator, tenant, "first", &commits[0]).await;
        until_taken(&operator, tenant, "second", &commits[1]).await;
        let of = ListParams::default().labels("imagefactory.dev/webhook=web");
        let builds: Vec<Build> = watching::eventually("two Builds", async || {
            let builds = tenant.builds().list(&of).await.expect("Builds can be listed").items;
            (builds.len() >= 2).then_some(builds)
        })
        .await;
        for build in &builds {
            let build = tenant.finished(&build.name_any(), 1).await;
            assert_eq!(phase(&build), "Success", "{:#}", status(&build));
        }
        assert_eq!(tenant.builds().list(&of).await.expect("Builds can be listed").items.len(), 2, "one a delivery");
        let made: Vec<(String, i64)> = sqlx::query_as(
            "select d.delivery_id, count(distinct d.build_id) from webhook_deliveries d join tenants t on t.id = d.tenant_id
             where t.name = $1 and d.direction = 'inbound' group by 1 order by 1",
        )
        .bind(&tenant.namespace)
        .fetch_all(&tenant.pool)
        .await
        .expect("rows");
        assert_eq!(made, [("first".to_owned(), 1), ("second".to_owned(), 1)]);
        // Two Builds, each queued, started and succeeded.
        watching::eventually("six notifications", async || {
            (told.lock().expect("whole").len() == 6).then_some(())
        })
        .await;
        history::holds().await;
        operator.stop().await;
    })
    .await;
}

failpoints! {
    before_a_delivery_is_stored: "webhook.before-store";
    after_a_delivery_is_stored: "webhook.after-store";
    before_it_is_decided: "webhook.before-decided";
    after_it_is_decided: "webhook.after-decided";
    before_its_build_is_created: "webhook.before-create";
    after_its_build_is_created: "webhook.after-create";
    before_its_build_is_noted: "webhook.before-made";
    before_a_notification_is_noted: "notify.before-noted";
}
