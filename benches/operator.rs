//! What the operator adds to a bare Job, measured on the cluster of `make up` in one run: only
//! ratios and the operator's own cost are worth quoting, the machine's speed is not.
//!
//! While Pods are counted the node is cordoned, so that creation is measured and not the kubelet. With the argument
//! `launch` only what depends on who makes the Pods (`builds.launchMode` of the chart) is measured.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use futures::{StreamExt, TryStreamExt, future::join_all};
use image_factory::crd::Build;
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{Namespace, Node, Pod},
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;
use tokio::sync::mpsc;

const NAMESPACE: &str = "image-factory-bench";
const IDLE: usize = 20;
/// Between two of those: the cluster's own Job controller may send 20 requests a second.
const PAUSE: Duration = Duration::from_millis(300);
const BURST: usize = 200;
const REAL: usize = 5;
/// For what the operator costs with nothing to do.
const RESTING: Duration = Duration::from_secs(20);
const FINISHED: usize = 1_000;
const PATIENCE: Duration = Duration::from_mins(5);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::try_default().await.context("run make up, then: . .local/env")?;
    let bench = Bench { client };
    bench.namespace().await?;
    let result = bench.run().await;
    bench.cordon(false).await?;
    Api::<Namespace>::all(bench.client.clone()).delete(NAMESPACE, &DeleteParams::default()).await?;
    result
}

struct Bench {
    client: Client,
}

impl Bench {
    async fn run(&self) -> anyhow::Result<()> {
        let memory_before = resident_bytes()?;
        self.cordon(true).await?;
        println!("{:<58} {:>10} {:>10} {:>8}", "", "bare Job", "Build", "ratio");
        // Connections that have asked before, as those of an operator that has not just started.
        self.idle(Kind::Build).await?;
        let job = self.idle(Kind::Job).await?;
        let build = self.idle(Kind::Build).await?;
        row(&format!("applied → Pod created, idle, median of {IDLE}"), job, build);
        let job = self.burst(Kind::Job).await?;
        let build = self.burst(Kind::Build).await?;
        row(&format!("the same, {BURST} at once, to the last Pod"), job, build);
        self.cordon(false).await?;
        if launch_alone() {
            println!(
                "{:<58} {:>10} {:>9.1?}",
                format!("the operator's CPU a build, mean of {REAL}"),
                "",
                self.real().await?.2
            );
            return Ok(());
        }

        let (to_complete, to_status, cpu) = self.real().await?;
        row("inspect's end seen → Job complete | Build's status", to_complete, to_status);
        println!("{:<58} {:>10} {:>9.1?}", format!("the operator's CPU a build, mean of {REAL}"), "", cpu);

        self.finished().await?;
        let memory_after = resident_bytes()?;
        println!(
            "{:<58} {:>9}M {:>9}M {:>8.2}",
            format!("the operator's memory, before and with {FINISHED} finished Builds"),
            memory_before >> 20,
            memory_after >> 20,
            ratio(memory_after, memory_before),
        );
        Ok(())
    }

    /// Median time from an object's creation to its Pod's, one after the other.
    async fn idle(&self, kind: Kind) -> anyhow::Result<Duration> {
        let mut pods = self.watch_pods();
        let mut times = Vec::new();
        for index in 0..IDLE {
            let begun = Instant::now();
            self.create(kind, &format!("idle-{}-{index}", kind.word())).await?;
            next_pod(&mut pods).await?;
            times.push(begun.elapsed());
            tokio::time::sleep(PAUSE).await;
        }
        self.clear().await?;
        times.sort();
        Ok(times[IDLE / 2])
    }

    /// Time from the first creation to the last Pod.
    async fn burst(&self, kind: Kind) -> anyhow::Result<Duration> {
        let mut pods = self.watch_pods();
        let begun = Instant::now();
        let names: Vec<String> = (0..BURST).map(|index| format!("burst-{}-{index}", kind.word())).collect();
        for created in join_all(names.iter().map(|name| self.create(kind, name))).await {
            created?;
        }
        for _ in 0..BURST {
            next_pod(&mut pods).await?;
        }
        let took = begun.elapsed();
        self.clear().await?;
        Ok(took)
    }

    /// Builds that really run: how long after the end of `inspect` the Job is complete and the
    /// Build's status says so (means), and what a build costs the operator beside what it costs without any.
    async fn real(&self) -> anyhow::Result<(Duration, Duration, Duration)> {
        let (before, began) = (cpu()?, Instant::now());
        tokio::time::sleep(RESTING).await;
        let at_rest = cpu()?.saturating_sub(before).as_secs_f64() / began.elapsed().as_secs_f64();
        let (cpu_before, began) = (cpu()?, Instant::now());
        let (mut to_complete, mut to_status) = (Duration::ZERO, Duration::ZERO);
        for index in 0..REAL {
            let name = format!("real-{index}");
            let (sender, mut ends) = mpsc::unbounded_channel();
            let watches = [
                self.spawn_watch::<Pod>(sender.clone(), "inspect", |pod| {
                    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
                    let state = statuses.and_then(|all| all.first()).and_then(|status| status.state.as_ref());
                    state.is_some_and(|state| state.terminated.is_some())
                }),
                self.spawn_watch::<Job>(sender.clone(), "job", |job| {
                    job.status.as_ref().is_some_and(|status| status.completion_time.is_some())
                }),
                self.spawn_watch::<Build>(sender, "build", move |build| {
                    build.status.as_ref().is_some_and(|status| status.image.is_some())
                }),
            ];
            self.create(Kind::Build, &name).await?;
            let mut seen = BTreeMap::new();
            while seen.len() < 3 {
                let (what, at) = tokio::time::timeout(PATIENCE, ends.recv()).await?.context("the watches ended")?;
                seen.entry(what).or_insert(at);
            }
            to_complete += seen["job"].saturating_duration_since(seen["inspect"]);
            to_status += seen["build"].saturating_duration_since(seen["inspect"]);
            for watch in watches {
                watch.abort();
            }
            self.clear().await?;
        }
        let count = u32::try_from(REAL)?;
        let cost = cpu()?.saturating_sub(cpu_before).saturating_sub(began.elapsed().mul_f64(at_rest));
        Ok((to_complete / count, to_status / count, cost / count))
    }

    /// Builds that end at once, being refused: finished objects for the operator to keep in mind.
    async fn finished(&self) -> anyhow::Result<()> {
        let api: Api<Build> = Api::namespaced(self.client.clone(), NAMESPACE);
        futures::stream::iter(0..FINISHED)
            .map(Ok::<_, anyhow::Error>)
            .try_for_each_concurrent(16, |index| {
                let api = api.clone();
                async move {
                    // The namespace does not allow its Pod.
                    api.create(&PostParams::default(), &build(&format!("finished-{index}"), "buildx")?).await?;
                    Ok(())
                }
            })
            .await?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let builds = api.list(&ListParams::default()).await?;
            let finished = builds.iter().filter(|build| build.status.as_ref().is_some_and(|s| s.failure.is_some()));
            if finished.count() == FINISHED {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the Builds did not finish in time");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    async fn create(&self, kind: Kind, name: &str) -> anyhow::Result<()> {
        let parameters = PostParams::default();
        match kind {
            Kind::Job => {
                let api: Api<Job> = Api::namespaced(self.client.clone(), NAMESPACE);
                api.create(&parameters, &job(name)?).await?;
            }
            Kind::Build => {
                let api: Api<Build> = Api::namespaced(self.client.clone(), NAMESPACE);
                api.create(&parameters, &build(name, "container")?).await?;
            }
        }
        Ok(())
    }

    /// Deletes what a measurement made and waits until the Pods are gone.
    async fn clear(&self) -> anyhow::Result<()> {
        let (all, now) = (ListParams::default(), DeleteParams::background());
        Api::<Build>::namespaced(self.client.clone(), NAMESPACE).delete_collection(&now, &all).await?;
        Api::<Job>::namespaced(self.client.clone(), NAMESPACE).delete_collection(&now, &all).await?;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), NAMESPACE);
        let deadline = Instant::now() + PATIENCE;
        while !pods.list_metadata(&all).await?.items.is_empty() {
            ensure!(Instant::now() < deadline, "the Pods did not go in time");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }

    /// Names of new Pods, as the API server tells them.
    fn watch_pods(&self) -> mpsc::UnboundedReceiver<String> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), NAMESPACE);
        tokio::spawn(async move {
            let mut seen = std::collections::HashSet::new();
            let mut events =
                std::pin::pin!(watcher(pods, watcher::Config::default()).default_backoff().applied_objects());
            while let Some(Ok(pod)) = events.next().await {
                let name = pod.name_any();
                if seen.insert(name.clone()) && sender.send(name).is_err() {
                    return;
                }
            }
        });
        receiver
    }

    /// Sends the time at which an object first looks as asked.
    fn spawn_watch<K>(
        &self,
        sender: mpsc::UnboundedSender<(&'static str, Instant)>,
        what: &'static str,
        ended: impl Fn(&K) -> bool + Send + 'static,
    ) -> tokio::task::JoinHandle<()>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned
            + Send
            + 'static,
        K::DynamicType: Default,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), NAMESPACE);
        tokio::spawn(async move {
            let mut events =
                std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff().applied_objects());
            while let Some(Ok(object)) = events.next().await {
                if ended(&object) && sender.send((what, Instant::now())).is_err() {
                    return;
                }
            }
        })
    }

    async fn namespace(&self) -> anyhow::Result<()> {
        let namespace: Namespace = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "baseline"}},
        }))?;
        Api::<Namespace>::all(self.client.clone()).create(&PostParams::default(), &namespace).await?;
        Ok(())
    }

    async fn cordon(&self, on: bool) -> anyhow::Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        for node in nodes.list_metadata(&ListParams::default()).await? {
            let patch = Patch::Merge(json!({"spec": {"unschedulable": on}}));
            nodes.patch(&node.name_any(), &PatchParams::default(), &patch).await?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Job,
    Build,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Job => "job",
            Self::Build => "build",
        }
    }
}

fn launch_alone() -> bool {
    std::env::args().any(|argument| argument == "launch")
}

#[expect(clippy::disallowed_methods, reason = "the bench is no part of the operator")]
fn registry() -> anyhow::Result<String> {
    std::env::var("REGISTRY").context("run make up, then: . .local/env")
}

fn build(name: &str, method: &str) -> anyhow::Result<Build> {
    let registry = registry()?;
    Ok(serde_json::from_value(json!({
        "apiVersion": "imagefactory.dev/v1alpha1", "kind": "Build",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "method": method,
            "source": {"inline": {"files": {"Dockerfile": format!("FROM {registry}/busybox:1\nRUN true\n")}}},
            "output": {"image": format!("{registry}/bench/{name}:1"), "insecure": true},
        },
    }))?)
}

fn job(name: &str) -> anyhow::Result<Job> {
    let registry = registry()?;
    Ok(serde_json::from_value(json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"backoffLimit": 0, "template": {"spec": {
            "restartPolicy": "Never",
            "containers": [{"name": "c", "image": format!("{registry}/busybox:1"), "command": ["true"]}],
        }}},
    }))?)
}

async fn next_pod(pods: &mut mpsc::UnboundedReceiver<String>) -> anyhow::Result<String> {
    tokio::time::timeout(PATIENCE, pods.recv()).await?.context("the watch of Pods ended")
}

fn row(what: &str, job: Duration, build: Duration) {
    println!("{what:<58} {job:>10.1?} {build:>10.1?} {:>8.2}", build.as_secs_f64() / job.as_secs_f64());
}

#[expect(clippy::cast_precision_loss, reason = "a ratio of two memory sizes")]
fn ratio(a: u64, b: u64) -> f64 {
    a as f64 / b as f64
}

/// The operator's process on this machine: the local node is this machine.
fn operator() -> anyhow::Result<String> {
    for entry in fs::read_dir("/proc")?.flatten() {
        let path = entry.path();
        let Ok(line) = fs::read(path.join("cmdline")) else { continue };
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        if words.first().is_some_and(|word| word.ends_with(b"image-factory")) && words.get(1) == Some(&&b"operator"[..])
        {
            return Ok(path.to_string_lossy().into_owned());
        }
    }
    anyhow::bail!("no operator runs on this machine: make up")
}

fn resident_bytes() -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("{}/status", operator()?))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

/// User and system time so far. Fields 14 and 15 of proc(5)'s stat, in ticks of 10 ms.
fn cpu() -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("{}/stat", operator()?))?;
    let (_, fields) = stat.rsplit_once(')').context("no stat")?;
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 10))
}
