//! What a cache is worth, by method, and what the operator adds to a build, on the cluster of `make up` in one run. One
//! project is built cold, again without a change, and after a change of its last file: by kaniko and by container with
//! their cache in the registry, by buildx with its registry cache. The operator's part is a Build's time without its
//! builder's, beside the same Pod made by hand. Only the ratios are worth quoting. `BENCH_ROUNDS` makes it smaller.

mod shared;

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures::StreamExt as _;
use image_factory::crd::Build;
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{Namespace, Pod},
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::{Value, json};
use shared::{median, number, variable};
use sqlx::{PgPool, postgres::PgPoolOptions};
use uuid::Uuid;

const NAMESPACE: &str = "image-factory-bench-methods";
const METHODS: [&str; 3] = ["kaniko", "buildx", "container"];
const PATIENCE: Duration = Duration::from_mins(5);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::try_default().await.context("run make up, then: . .local/env")?;
    let pool = PgPoolOptions::new().max_connections(1).connect(&variable("DATABASE_URL")?).await?;
    let bench = Bench { client, pool, registry: variable("REGISTRY")?, rounds: number("BENCH_ROUNDS", 3)? };
    let namespaces: Api<Namespace> = Api::all(bench.client.clone());
    // buildx needs the level.
    let labels = json!({"pod-security.kubernetes.io/enforce": "privileged"});
    let namespace = serde_json::from_value(json!({"metadata": {"name": NAMESPACE, "labels": labels}}))?;
    namespaces.create(&PostParams::default(), &namespace).await?;
    let result = bench.run().await;
    namespaces.delete(NAMESPACE, &DeleteParams::default()).await?;
    result
}

struct Bench {
    client: Client,
    pool: PgPool,
    registry: String,
    rounds: i64,
}

/// One run of a Build.
struct Run {
    /// From the queue to the end.
    total: Duration,
    /// The life of the builder's container.
    builder: Duration,
    job: String,
}

impl Bench {
    async fn run(&self) -> anyhow::Result<()> {
        println!(
            "{:<34} {:>10} {:>10} {:>8} {:>10} {:>8}",
            "the builder's time, median", "cold", "no change", "ratio", "one line", "ratio"
        );
        let mut operators = Vec::new();
        for method in METHODS {
            let [mut cold, mut same, mut line] = [Vec::new(), Vec::new(), Vec::new()];
            let (mut beside, mut by_hand) = (Vec::new(), Vec::new());
            for round in 0..self.rounds {
                let name = format!("{method}-{round}");
                cold.push(self.built(&name, method, 1, "one", "first").await?.builder);
                let again = self.built(&name, method, 2, "one", "second").await?;
                beside.push(again.total.saturating_sub(again.builder));
                by_hand.push((again.total, self.by_hand(&again.job).await?));
                same.push(again.builder);
                line.push(self.built(&name, method, 3, "two", "second").await?.builder);
            }
            let [cold, same, line] = [cold, same, line].map(median);
            let ratio = |time: Duration| time.as_secs_f64() / cold.as_secs_f64();
            println!(
                "{method:<34} {cold:>10.1?} {same:>10.1?} {:>8.2} {line:>10.1?} {:>8.2}",
                ratio(same),
                ratio(line)
            );
            let (totals, pods): (Vec<_>, Vec<_>) = by_hand.into_iter().unzip();
            operators.push((method, median(beside), median(totals), median(pods)));
        }
        println!(
            "\n{:<34} {:>10} {:>10} {:>10} {:>8}",
            "a Build without a change, median", "beside", "a Build", "its Pod", "ratio"
        );
        for (method, beside, total, pod) in operators {
            let ratio = total.as_secs_f64() / pod.as_secs_f64();
            println!("{method:<34} {beside:>10.1?} {total:>10.1?} {pod:>10.1?} {ratio:>8.2}");
        }
        println!(
            "beside: a Build's time without its builder's. its Pod: the same Pod made by hand, to the end of its last container."
        );
        Ok(())
    }

    /// The next run of the Build of this name: with this text as its last file, asked for under this annotation.
    async fn built(&self, name: &str, method: &str, run: i32, text: &str, rerun: &str) -> anyhow::Result<Run> {
        let builds: Api<Build> = Api::namespaced(self.client.clone(), NAMESPACE);
        let manifest = self.manifest(name, method, text, rerun);
        builds.patch(name, &PatchParams::apply("bench").force(), &Patch::Apply(&manifest)).await?;
        let build = until(&builds, name, |build: &Build| {
            let status = build.status.as_ref();
            status.is_some_and(|status| status.run == Some(run) && status.completed_at.is_some())
        })
        .await?;
        let status = serde_json::to_value(&build.status)?;
        ensure!(status["phase"] == "Success", "{name}: {status:#}");
        let id: Uuid = status["buildId"].as_str().context("no id")?.parse()?;
        let (total, builder): (f64, i64) = sqlx::query_as(
            "select extract(epoch from b.completed_at - b.queued_at)::float8, r.build_execution_milliseconds
             from builds b join build_results r on r.build_id = b.id where b.id = $1",
        )
        .bind(id)
        .fetch_one(&self.pool)
        .await?;
        let job = status["job"].as_str().context("no Job")?.to_owned();
        let builder = Duration::from_millis(u64::try_from(builder)?);
        Ok(Run { total: Duration::from_secs_f64(total), builder, job })
    }

    /// The Pod of this Job again, of nobody: from its creation to the end of `inspect`.
    async fn by_hand(&self, job: &str) -> anyhow::Result<Duration> {
        let jobs: Api<Job> = Api::namespaced(self.client.clone(), NAMESPACE);
        let template = jobs.get(job).await?.spec.context("a Job has a spec")?.template;
        let name = format!("by-hand-{job}");
        let mut pod = Pod { spec: template.spec, ..Pod::default() };
        pod.metadata.name = Some(name.clone());
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), NAMESPACE);
        let begun = Instant::now();
        pods.create(&PostParams::default(), &pod).await?;
        let ended = |pod: &Pod| {
            let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
            let state = statuses.and_then(|all| all.first()).and_then(|status| status.state.as_ref());
            state.is_some_and(|state| state.terminated.as_ref().is_some_and(|end| end.exit_code == 0))
        };
        until(&pods, &name, ended).await?;
        let took = begun.elapsed();
        pods.delete(&name, &DeleteParams::default()).await?;
        Ok(took)
    }

    fn manifest(&self, name: &str, method: &str, text: &str, rerun: &str) -> Value {
        let cache = format!("{}/{NAMESPACE}/{name}-{}", self.registry, std::process::id());
        let of_registry = format!("type=registry,ref={cache}:cache");
        let cache = match method {
            "buildx" => json!({"from": [of_registry], "to": [format!("{of_registry},mode=max")]}),
            _ => json!({"repo": cache}),
        };
        let dockerfile = format!(
            "FROM {}/busybox:1\nCOPY fixed.txt /fixed.txt\nRUN seq 1 3000000 | sha256sum > /sum.txt\nCOPY changing.txt /changing.txt\n\
             RUN sha256sum /changing.txt > /changed.txt\n",
            self.registry
        );
        json!({
            "apiVersion": "imagefactory.dev/v1alpha1", "kind": "Build",
            "metadata": {"name": name, "namespace": NAMESPACE, "annotations": {"imagefactory.dev/rerun": rerun}},
            "spec": {
                "method": method,
                // Another project each time, or what was pushed before would be found again.
                "source": {"inline": {"files": {
                    "Dockerfile": dockerfile, "changing.txt": text, "fixed.txt": format!("{name} {}", std::process::id()),
                }}},
                "cache": cache,
                "output": {"image": format!("{}/{NAMESPACE}/{name}:1", self.registry), "insecure": true},
            },
        })
    }
}

async fn until<K>(api: &Api<K>, name: &str, reached: impl Fn(&K) -> bool) -> anyhow::Result<K>
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = std::pin::pin!(watcher(api.clone(), config).default_backoff().applied_objects());
    tokio::time::timeout(PATIENCE, async {
        while let Some(event) = events.next().await {
            if let Ok(object) = event
                && reached(&object)
            {
                return Ok(object);
            }
        }
        anyhow::bail!("the watch of {name} ended")
    })
    .await
    .with_context(|| format!("{name} took too long"))?
}
