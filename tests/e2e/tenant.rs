//! A namespace of its own for each test: to Image Factory, a tenant. It is deleted when the test ends,
//! however it ends; a test that fails first prints what its Builds said.

use std::panic::{AssertUnwindSafe, resume_unwind};

use base64::{Engine, engine::general_purpose::STANDARD};
use futures::FutureExt;
use image_factory::{
    clock,
    crd::{Build, BuildSchedule},
};
use image_factory_core::labels;
use image_factory_core::pod_security::ENFORCE_LABEL;
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{Namespace, Pod, Secret},
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use super::{cluster, rows, watching};

/// Who applies the manifests, to the API server.
pub const APPLIER: &str = "orchard";

pub struct Tenant {
    pub client: Client,
    pub pool: PgPool,
    pub namespace: String,
}

/// Runs a test in a new namespace that enforces this Pod Security level.
pub async fn tenant(name: &str, level: &str, test: impl AsyncFnOnce(&Tenant)) {
    let tenant = Tenant::create(name, level).await;
    let outcome = AssertUnwindSafe(test(&tenant)).catch_unwind().await;
    if outcome.is_err() {
        tenant.describe().await;
    }
    let namespaces: Api<Namespace> = Api::all(tenant.client.clone());
    // A test may have deleted it itself.
    let _ = namespaces.delete(&tenant.namespace, &DeleteParams::default()).await;
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
}

impl Tenant {
    async fn create(name: &str, level: &str) -> Self {
        let client = cluster::client().await;
        let random = clock::new_id().simple().to_string();
        let namespace = format!("e2e-{name}-{}", &random[24..]);
        let object = serde_json::from_value(json!({
            "metadata": {"name": namespace, "labels": {ENFORCE_LABEL: level}},
        }))
        .expect("a namespace");
        let namespaces: Api<Namespace> = Api::all(client.clone());
        namespaces.create(&PostParams::default(), &object).await.expect("the namespace can be made");
        Self { client, pool: cluster::database(), namespace }
    }

    pub fn builds(&self) -> Api<Build> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub fn jobs(&self) -> Api<Job> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// A name in the registry that no other test has.
    pub fn image(&self, name: &str, tag: &str) -> String {
        format!("{}/{}/{name}:{tag}", cluster::registry(), self.namespace)
    }

    /// The same in the registry that asks for a password.
    pub fn private_image(&self, name: &str) -> String {
        format!("{}/{}/{name}:1", cluster::variable("REGISTRY_PRIVATE"), self.namespace)
    }

    pub async fn secret(&self, name: &str, kind: &str, entries: Value) {
        let object = json!({"metadata": {"name": name}, "type": kind, "stringData": entries});
        let secret = serde_json::from_value(object).expect("a Secret");
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        secrets.create(&PostParams::default(), &secret).await.expect("the Secret can be made");
    }

    /// The Secret `kubectl create secret docker-registry` makes, with this password of the private registry.
    pub async fn push_secret(&self, name: &str, password: &str) {
        let user = cluster::variable("REGISTRY_PRIVATE_USER");
        let auth = STANDARD.encode(format!("{user}:{password}"));
        let login = json!({"username": user, "password": password, "auth": auth});
        let config = json!({"auths": {cluster::variable("REGISTRY_PRIVATE"): login}}).to_string();
        self.secret(name, "kubernetes.io/dockerconfigjson", json!({".dockerconfigjson": config})).await;
    }

    /// A Build of this Dockerfile, in which `BASE` stands for an image with a shell.
    pub fn manifest(&self, name: &str, method: &str, dockerfile: &str) -> Value {
        let dockerfile = dockerfile.replace("BASE", &format!("{}/busybox:1", cluster::registry()));
        json!({
            "apiVersion": "imagefactory.dev/v1alpha1",
            "kind": "Build",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                "method": method,
                "source": {"inline": {"files": {"Dockerfile": dockerfile}}},
                "output": {"image": self.image(name, "1"), "insecure": true},
                "timeout": "5m",
            },
        })
    }

    /// Applies a manifest as a person would.
    pub async fn apply(&self, manifest: &Value) -> Build {
        let name = manifest["metadata"]["name"].as_str().expect("a manifest has a name");
        let params = PatchParams::apply(APPLIER).force();
        self.builds().patch(name, &params, &Patch::Apply(manifest)).await.expect("the API server accepts it")
    }

    pub fn schedules(&self) -> Api<BuildSchedule> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// A schedule that comes once a year and builds this template; with further fields of its specification.
    pub fn schedule(&self, name: &str, build: &Value, fields: &Value) -> Value {
        let mut spec = json!({"cron": "0 0 1 1 *", "template": {"spec": build["spec"]}});
        spec.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
        json!({
            "apiVersion": "imagefactory.dev/v1alpha1",
            "kind": "BuildSchedule",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": spec,
        })
    }

    pub async fn apply_schedule(&self, manifest: &Value) -> BuildSchedule {
        let name = manifest["metadata"]["name"].as_str().expect("a manifest has a name");
        let params = PatchParams::apply(APPLIER).force();
        self.schedules().patch(name, &params, &Patch::Apply(manifest)).await.expect("the API server accepts it")
    }

    /// Asks a schedule for a Build now.
    pub async fn run_now(&self, schedule: &str, value: &str) {
        let change = json!({"metadata": {"annotations": {labels::RUN_NOW: value}}});
        let changed = self.schedules().patch(schedule, &PatchParams::default(), &Patch::Merge(&change)).await;
        changed.expect("the API server accepts it");
    }

    /// The Builds of a schedule, oldest first.
    pub async fn scheduled(&self, schedule: &str) -> Vec<Build> {
        let of_schedule = ListParams::default().labels(&format!("{}={schedule}", labels::SCHEDULE));
        let mut builds = self.builds().list(&of_schedule).await.expect("Builds can be listed").items;
        // Ids of slots are in the order in which they were taken.
        builds.sort_by_key(|build| build.annotations().get(labels::ORIGIN).cloned());
        builds
    }

    /// Waits until a schedule has so many Builds, and gives the newest.
    pub async fn scheduled_build(&self, schedule: &str, number: usize) -> Build {
        watching::eventually(&format!("Build {number} of {schedule}"), async || {
            let mut builds = self.scheduled(schedule).await;
            if builds.len() == number { builds.pop() } else { None }
        })
        .await
    }

    /// Changes a Build as `kubectl annotate` or `kubectl patch` would.
    pub async fn merge(&self, name: &str, change: &Value) {
        let changed = self.builds().patch(name, &PatchParams::default(), &Patch::Merge(change)).await;
        changed.expect("the API server accepts it");
    }

    /// Watches a Build until `reached`.
    pub async fn until(&self, name: &str, what: &str, reached: impl Fn(&Build) -> bool) -> Build {
        let build = watching::until(&self.builds(), name, what, |build| build.is_some_and(&reached)).await;
        build.expect("the Build is there")
    }

    /// Waits for the end of this run, as `kubectl wait --for=condition=Finished` would.
    pub async fn finished(&self, name: &str, run: i32) -> Build {
        let what = format!("the end of run {run} of {name}");
        self.until(name, &what, |build| {
            status(build)["run"] == run && condition(build, "Finished").as_deref() == Some("True")
        })
        .await
    }

    /// Waits until the log of the newest attempt has this line: the build is in the midst of its work.
    pub async fn prints(&self, build: &Build, line: &str) -> Uuid {
        let uid = build.uid().expect("a Build has a UID");
        watching::eventually(&format!("the line {line:?} of {}", build.name_any()), async || {
            let attempt = rows::attempts(&self.pool, &uid).await.pop()?;
            let log = rows::log(&self.pool, rows::id(&attempt)).await;
            log.iter().any(|stored| stored.ends_with(line)).then(|| rows::id(&attempt))
        })
        .await
    }

    /// The attempts of a Build, oldest first.
    pub async fn attempts(&self, build: &Build) -> Vec<Value> {
        rows::attempts(&self.pool, &build.uid().expect("a Build has a UID")).await
    }

    /// The Jobs of one attempt; there must never be two.
    pub async fn jobs_of(&self, attempt: Uuid) -> Vec<Job> {
        let jobs = self.jobs().list(&of_attempt(attempt)).await.expect("Jobs can be listed");
        jobs.items
    }

    pub async fn pods_of(&self, attempt: Uuid) -> Vec<Pod> {
        let pods = self.pods().list(&of_attempt(attempt)).await.expect("Pods can be listed");
        pods.items
    }

    /// The log of a container, line by line, as the API server gives it.
    pub async fn container_log(&self, pod: &str, container: &str) -> Vec<String> {
        let params = LogParams { container: Some(container.to_owned()), ..LogParams::default() };
        let log = self.pods().logs(pod, &params).await.expect("the log can be read");
        log.lines().map(str::to_owned).collect()
    }

    /// What a person would look at first.
    async fn describe(&self) {
        for schedule in self.schedules().list(&ListParams::default()).await.into_iter().flatten() {
            let status = serde_json::to_value(&schedule.status).expect("a status is JSON");
            eprintln!("--- schedule {}/{}: {status:#}", self.namespace, schedule.name_any());
        }
        let Ok(builds) = self.builds().list(&ListParams::default()).await else { return };
        for build in builds {
            eprintln!("--- {}/{}: {:#}", self.namespace, build.name_any(), status(&build));
            for attempt in self.attempts(&build).await {
                let log = rows::log(&self.pool, rows::id(&attempt)).await;
                eprintln!("{attempt:#}\n{}", log.join("\n"));
            }
        }
    }
}

fn of_attempt(attempt: Uuid) -> ListParams {
    ListParams::default().labels(&format!("{}={attempt}", labels::BUILD_ID))
}

/// The status as a manifest shows it.
pub fn status(build: &Build) -> Value {
    serde_json::to_value(&build.status).expect("a status is JSON")
}

/// The status of a condition: True, False, Unknown; none where it is absent.
pub fn condition(build: &Build, kind: &str) -> Option<String> {
    let conditions = &build.status.as_ref()?.conditions;
    conditions.iter().find(|condition| condition.type_ == kind).map(|condition| condition.status.clone())
}

pub fn phase(build: &Build) -> Value {
    status(build)["phase"].clone()
}
