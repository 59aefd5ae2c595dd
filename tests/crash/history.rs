//! What a test wants to see of its builds in the end: one Job each, ever; every line once; every
//! invariant.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    marker::PhantomData,
    sync::{Arc, Mutex},
};

use futures::TryStreamExt;
use image_factory::crd::Build;
use image_factory_core::labels;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Api, Resource, ResourceExt,
    core::NamespaceResourceScope,
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::AbortHandle;
use uuid::Uuid;

use super::{
    operator, rows,
    tenant::{Tenant, phase, status},
};

/// Lines that each build prints, 50 ms apart.
const TICKS: usize = 30;

/// A build that takes a few seconds and prints all the time.
pub fn ticking(tenant: &Tenant, name: &str) -> Value {
    printing(tenant, name, TICKS)
}

/// The same, with so many lines: twenty take a second or more.
pub fn printing(tenant: &Tenant, name: &str, lines: usize) -> Value {
    let dockerfile = format!("FROM BASE\nRUN for i in $(seq 1 {lines}); do echo \"tick $i\"; sleep 0.05; done\n");
    tenant.manifest(name, "container", &dockerfile)
}

/// The same, but it prints for as long as it is let.
pub fn endless(tenant: &Tenant, name: &str) -> Value {
    tenant.manifest(name, "container", "FROM BASE\nRUN for i in $(seq 1 9999); do echo \"tick $i\"; sleep 0.1; done\n")
}

/// The numbers of the lines `tick <number>`.
pub fn ticks(log: &[String]) -> Vec<usize> {
    log.iter().filter_map(|line| line.rsplit_once("tick ")?.1.parse().ok()).collect()
}

pub fn phase_is(build: &Build, wanted: &str) -> bool {
    phase(build) == wanted
}

/// Every object of a kind that ever was in a namespace, by the attempt it was for.
pub struct Ever<K> {
    seen: Arc<Mutex<BTreeMap<Uuid, BTreeSet<String>>>>,
    task: AbortHandle,
    kind: PhantomData<K>,
}

pub type Jobs = Ever<Job>;
pub type Pods = Ever<Pod>;

impl<K> Ever<K>
where
    K: Clone + Debug + DeserializeOwned + Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Send + 'static,
{
    pub fn watch(tenant: &Tenant) -> Self {
        let seen = Arc::new(Mutex::new(BTreeMap::new()));
        let all: Api<K> = Api::namespaced(tenant.client.clone(), &tenant.namespace);
        let objects = watcher(all, watcher::Config::default()).default_backoff().touched_objects();
        let kept = seen.clone();
        let task = tokio::spawn(async move {
            let mut objects = std::pin::pin!(objects);
            while let Ok(Some(object)) = objects.try_next().await {
                let attempt = object.labels().get(labels::BUILD_ID).and_then(|id| id.parse::<Uuid>().ok());
                if let (Some(attempt), Some(uid)) = (attempt, object.uid()) {
                    let mut seen = kept.lock().expect("nothing panics with it");
                    seen.entry(attempt).or_insert_with(BTreeSet::new).insert(uid);
                }
            }
        });
        Self { seen, task: task.abort_handle(), kind: PhantomData }
    }
}

impl<K> Ever<K> {
    /// How many this attempt ever had.
    pub fn of(&self, attempt: Uuid) -> usize {
        self.seen.lock().expect("nothing panics with it").get(&attempt).map_or(0, BTreeSet::len)
    }
}

impl<K> Drop for Ever<K> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Waits for the end of these builds, and sees that each ran once, succeeded, and lost no line.
pub async fn succeeded(tenant: &Tenant, jobs: &Jobs, names: &[&str]) {
    for name in names {
        printed(tenant, jobs, name, TICKS).await;
    }
}

/// The same of one that prints so many lines.
pub async fn printed(tenant: &Tenant, jobs: &Jobs, name: &str, lines: usize) {
    let build = tenant.finished(name, 1).await;
    assert_eq!(phase(&build), "Success", "{:#}", status(&build));
    let id = only_attempt(tenant, &build).await;
    assert_eq!(rows::history(&tenant.pool, id).await, "queued → in_progress → success");
    let log = rows::log(&tenant.pool, id).await;
    assert_eq!(ticks(&log), (1..=lines).collect::<Vec<_>>(), "every line once, in order: {log:#?}");
    assert!(!log.iter().any(|line| line.contains("lost")), "{log:#?}");
    assert_eq!(jobs.of(id), 1, "one Job, ever");
}

/// Waits for the end of these builds, which were stopped.
pub async fn cancelled(tenant: &Tenant, jobs: &Jobs, names: &[&str]) {
    for name in names {
        let build = tenant.finished(name, 1).await;
        assert_eq!(phase(&build), "Cancelled", "{:#}", status(&build));
        let id = only_attempt(tenant, &build).await;
        assert_eq!(rows::build_results(&tenant.pool, id).await["failure_reason"], json!("Cancelled"));
        assert!(jobs.of(id) <= 1, "one Job at most, ever");
        assert!(
            tenant.jobs_of(id).await.iter().all(|job| job.metadata.deletion_timestamp.is_some()),
            "its Job is gone"
        );
    }
}

/// Waits for the end of these builds, which fail, and whose second attempt is the last.
pub async fn failed_twice(tenant: &Tenant, jobs: &Jobs, names: &[&str]) {
    for name in names {
        let build = tenant.finished(name, 1).await;
        assert_eq!(phase(&build), "Failed", "{:#}", status(&build));
        let attempts = tenant.attempts(&build).await;
        assert_eq!(attempts.len(), 2, "{attempts:#?}");
        for attempt in &attempts {
            let id = rows::id(attempt);
            assert_eq!(rows::history(&tenant.pool, id).await, "queued → in_progress → failed");
            assert_eq!(jobs.of(id), 1, "one Job, ever");
        }
        let result = rows::build_results(&tenant.pool, rows::id(&attempts[1])).await;
        assert_eq!(result["original_build_id"], attempts[0]["id"]);
    }
}

pub async fn only_attempt(tenant: &Tenant, build: &Build) -> Uuid {
    let attempts = tenant.attempts(build).await;
    assert_eq!(attempts.len(), 1, "one run, one attempt: {attempts:#?}");
    rows::id(&attempts[0])
}

/// Every invariant, of all builds of this cluster and database.
pub async fn holds() {
    operator::verify(None).await;
}
