//! One test at a time, and no operator but its own: the deployed one is scaled to nothing, and back
//! when the last test has ended, however it ended.

use std::{
    fs::File,
    sync::{Arc, Weak},
};

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;
use tokio::sync::Mutex;

use super::{chart::NAMESPACE, cluster, watching};

const NAME: &str = "image-factory";

/// The right to run operators, kept while the test runs.
pub struct Stage {
    /// Environment of the deployed operator, as far as it stands in its Deployment.
    pub environment: Vec<(String, String)>,
    // Dropped in this order: the turn is given on before the operator comes back.
    _turn: File,
    _away: Arc<Away>,
}

/// The deployed operator is away while this lives.
struct Away {
    replicas: i32,
    environment: Vec<(String, String)>,
}

static AWAY: Mutex<Weak<Away>> = Mutex::const_new(Weak::new());

/// Waits for its turn.
pub async fn stage() -> Stage {
    // First this: who waits for its turn keeps the operator away.
    let away = away().await;
    let turn = tokio::task::spawn_blocking(|| {
        let file = File::create(std::env::temp_dir().join("image-factory-crash-tests.lock"))?;
        file.lock().map(|()| file)
    });
    let turn = turn.await.expect("the thread ends").expect("the lock can be had");
    Stage { environment: away.environment.clone(), _turn: turn, _away: away }
}

async fn away() -> Arc<Away> {
    let mut known = AWAY.lock().await;
    if let Some(away) = known.upgrade() {
        return away;
    }
    let client = cluster::client().await;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
    let spec = deployments.get(NAME).await.expect("the operator is deployed: make up").spec.expect("it has a spec");
    let containers = spec.template.spec.expect("it has Pods").containers;
    let variables = containers.into_iter().flat_map(|container| container.env.unwrap_or_default());
    let environment = variables.filter_map(|variable| Some((variable.name, variable.value?))).collect();
    let away = Arc::new(Away { replicas: spec.replicas.unwrap_or(1).max(1), environment });
    *known = Arc::downgrade(&away);
    scale(&client, 0).await;
    let pods: Api<Pod> = Api::namespaced(client, NAMESPACE);
    watching::eventually("the end of the deployed operator", async || {
        let label = ListParams::default().labels("app.kubernetes.io/name=image-factory");
        pods.list(&label).await.expect("Pods can be listed").items.is_empty().then_some(())
    })
    .await;
    away
}

async fn scale(client: &Client, replicas: i32) {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    deployments.patch_scale(NAME, &PatchParams::default(), &patch).await.expect("the operator can be scaled");
}

impl Drop for Away {
    fn drop(&mut self) {
        let replicas = self.replicas;
        // The test's own runtime may be on its way out.
        let back = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async { scale(&cluster::client().await, replicas).await });
        });
        if back.join().is_err() {
            eprintln!(
                "the deployed operator is still scaled to 0: kubectl -n {NAMESPACE} scale deployment/{NAME} --replicas {replicas}"
            );
        }
    }
}
