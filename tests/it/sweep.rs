//! What the sweep makes of what it finds in the cluster: attempts without their Build, and Jobs without their attempt.

use image_factory::{
    clock::{new_id, now},
    db::{launches, queue::claim, results},
    tasks::sweeper::sweep,
};
use image_factory_core::{ids, labels};
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    attempts::{attempt, broken_histories, finish, history, limits, queued, success},
    cluster::{Cluster, list},
};

const BUILDS: &str = "/apis/imagefactory.dev/v1alpha1/builds";

fn path_of_build(name: &str) -> String {
    format!("/apis/imagefactory.dev/v1alpha1/namespaces/green/builds/{name}")
}

fn path_of_job(build: &str, id: Uuid) -> String {
    format!("/apis/batch/v1/namespaces/green/jobs/{}", ids::job_name(build, id))
}

fn build(name: &str, uid: &str) -> Value {
    json!({
        "apiVersion": "imagefactory.dev/v1alpha1", "kind": "Build",
        "metadata": {"name": name, "namespace": "green", "uid": uid},
    })
}

fn job(build: &str, id: Uuid, created: &str) -> Value {
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {
            "name": ids::job_name(build, id), "namespace": "green", "uid": format!("uid-{id}"), "creationTimestamp": created,
            "labels": {labels::BUILD_ID: id.to_string(), labels::BUILD: build},
            "ownerReferences": [{
                "apiVersion": "imagefactory.dev/v1alpha1", "kind": "Build", "name": build, "uid": "u", "controller": true,
            }],
        },
    })
}

/// The cluster has these Builds, and these Jobs in its lists and by themselves.
fn has(cluster: &Cluster, builds: &[Value], jobs: &[(&str, Uuid, Value)]) {
    cluster.has(BUILDS, &list(builds));
    for build in builds {
        cluster.has(&path_of_build(build["metadata"]["name"].as_str().expect("a name")), build);
    }
    let all: Vec<Value> = jobs.iter().map(|(.., job)| job.clone()).collect();
    cluster.has("/apis/batch/v1/jobs", &list(&all));
    for (build, id, job) in jobs {
        cluster.has(&path_of_job(build, *id), job);
    }
}

#[sqlx::test(migrations = "./migrations")]
async fn an_attempt_whose_build_is_gone_or_another_by_now_is_cancelled(pool: PgPool) {
    limits(&pool, 10, 10).await;
    let mut ids = Vec::new();
    for name in ["running", "waiting", "replaced", "unlisted", "there"] {
        ids.push(queued(&pool, &attempt("green", name)).await);
        if name == "running" {
            assert_eq!(claim(&pool).await.expect("it can be claimed"), ids);
            launches::jobs_created(&pool, &ids).await.expect("no error");
        }
    }
    let cluster = Cluster::default();
    has(&cluster, &[build("replaced", "another"), build("there", "uid-green-there")], &[]);
    // Made after the list was.
    cluster.has(&path_of_build("unlisted"), &build("unlisted", "uid-green-unlisted"));
    let context = cluster.context(&pool).await;
    for _ in 0..2 {
        sweep(context.clone()).await.expect("no error");
    }
    let [running, waiting, replaced, unlisted, there] = ids[..] else { unreachable!("five were made") };
    for (id, way) in [
        (running, "queued → in_progress"),
        (waiting, "queued → cancelled"),
        (replaced, "queued → cancelled"),
        (unlisted, "queued"),
        (there, "queued"),
    ] {
        assert_eq!(history(&pool, id).await, way);
    }
    let asked: Vec<Uuid> = sqlx::query_scalar("select id from builds where cancel_reason = 'Deleted' order by id")
        .fetch_all(&pool)
        .await
        .expect("builds can be read");
    assert_eq!(asked, [running, waiting, replaced], "one that runs ends with its Pod");
    assert_eq!(broken_histories(&pool).await, Vec::<String>::new());
}

#[sqlx::test(migrations = "./migrations")]
async fn builds_are_listed_a_few_at_a_time_and_none_is_missed(pool: PgPool) {
    limits(&pool, 10, 10).await;
    let mut builds = Vec::new();
    for number in 0..120 {
        let name = format!("wall-{number}");
        builds.push(build(&name, &format!("uid-green-{name}")));
    }
    let gone = queued(&pool, &attempt("green", "gone")).await;
    let first = queued(&pool, &attempt("green", "wall-0")).await;
    let last = queued(&pool, &attempt("green", "wall-119")).await;
    let cluster = Cluster::default();
    // Those that are in no list are looked for by themselves: none is there.
    cluster.has(BUILDS, &list(&builds));
    cluster.has("/apis/batch/v1/jobs", &list(&[]));
    sweep(cluster.context(&pool).await).await.expect("no error");
    for (id, way) in [(gone, "queued → cancelled"), (first, "queued"), (last, "queued")] {
        assert_eq!(history(&pool, id).await, way);
    }
    assert_eq!(cluster.largest_page(BUILDS), 50, "each may be large");
}

#[sqlx::test(migrations = "./migrations")]
async fn a_job_goes_whose_attempt_was_cleaned_up_or_is_long_unknown(pool: PgPool) {
    limits(&pool, 10, 10).await;
    let cleaned = queued(&pool, &attempt("green", "cleaned")).await;
    let ended = queued(&pool, &attempt("green", "ended")).await;
    let running = queued(&pool, &attempt("green", "running")).await;
    claim(&pool).await.expect("they can be claimed");
    for id in [cleaned, ended] {
        assert!(finish(&pool, id, &success("registry.test/green/wall:1")).await);
    }
    results::cleaned(&pool, cleaned, "completed").await.expect("no error");
    let (unknown, young, changed) = (new_id(), new_id(), new_id());

    let (old, today) = ("2026-01-01T10:00:00Z", now().to_string());
    let jobs = [
        ("cleaned", cleaned, job("cleaned", cleaned, &today)),
        ("ended", ended, job("ended", ended, old)),
        ("running", running, job("running", running, old)),
        ("unknown", unknown, job("unknown", unknown, old)),
        ("young", young, job("young", young, &today)),
        ("changed", changed, job("changed", changed, old)),
    ];
    let builds: Vec<Value> = ["ended", "running"].map(|name| build(name, &format!("uid-green-{name}"))).to_vec();
    let cluster = Cluster::default();
    has(&cluster, &builds, &jobs);
    // Another Job has the name by now.
    let mut another = job("changed", changed, old);
    another["metadata"]["uid"] = json!("another");
    cluster.has(&path_of_job("changed", changed), &another);

    sweep(cluster.context(&pool).await).await.expect("no error");
    let left: Vec<&str> =
        jobs.iter().filter(|(build, id, _)| cluster.still_has(&path_of_job(build, *id))).map(|one| one.0).collect();
    assert_eq!(left, ["ended", "running", "young", "changed"]);
}
