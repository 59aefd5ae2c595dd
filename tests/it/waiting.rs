//! Builds that wait: how long they may, and what it costs to keep what their statuses say true.

use std::{collections::HashMap, sync::Arc};

use image_factory::{
    controllers::build::{
        queue::Looks,
        report,
        watched::{Guarded, Watched},
    },
    crd::Build,
    db::{
        builds::{self, Newest},
        launches,
        policies::{self, Policy},
        queue::{self, claim, waiting},
        settings,
    },
};
use image_factory_core::reason::Reason;
use kube::core::DeserializeGuard;
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

use crate::attempts::{self, attempt, broken_histories, history, limits, queued, results, row};

/// As if it had joined the queue, or its backoff had ended, so many minutes ago.
async fn waits_since(pool: &PgPool, build: Uuid, minutes: i32, backoff: Option<i32>) {
    sqlx::query(
        "update builds set queued_at = now() - make_interval(mins => $2), not_before = now() - make_interval(mins => $3)
         where id = $1",
    )
    .bind(build)
    .bind(minutes)
    .bind(backoff)
    .execute(pool)
    .await
    .expect("the row can be changed");
}

async fn policy(pool: &PgPool, tenant: &str, minutes: i32) {
    let policy =
        Policy { max_concurrent_builds: Some(0), max_queued_wait_minutes: Some(minutes), ..attempts::policy(tenant) };
    policies::declare(pool, &[policy], 1).await.expect("it can be declared");
}

#[sqlx::test(migrations = "./migrations")]
async fn a_build_that_waits_for_longer_than_its_policy_lets_it_fails_and_says_for_what(pool: PgPool) {
    limits(&pool, 10, 10).await;
    let mut ids = Vec::new();
    for (name, minutes, backoff) in
        [("long", 31, None), ("short", 29, None), ("back", 99, Some(31)), ("backing-off", 99, Some(29))]
    {
        let id = queued(&pool, &attempt("green", name)).await;
        waits_since(&pool, id, minutes, backoff).await;
        ids.push(id);
    }
    let elsewhere = queued(&pool, &attempt("amber", "long")).await;
    waits_since(&pool, elsewhere, 9_999, None).await;
    assert_eq!(queue::time_out(&pool, 10).await.expect("no error"), Vec::<Uuid>::new(), "nobody has set a limit");
    policy(&pool, "green", 30).await;
    let [long, short, back, backing_off] = ids[..] else { unreachable!("four were made") };
    let mut ended = queue::time_out(&pool, 10).await.expect("no error");
    ended.sort_unstable();
    assert_eq!(ended, [long, back]);
    assert_eq!(queue::time_out(&pool, 10).await.expect("no error"), Vec::<Uuid>::new());
    for id in ended {
        assert_eq!(history(&pool, id).await, "queued → failed");
        assert_eq!(results(&pool, id).await, [("timeout".to_owned(), Some("QueueTimeout".to_owned()))]);
        assert_eq!(
            row(&pool, id).await["error_message"],
            "it waited in the queue for 30m, as long as the policy of its tenant lets it: tenant green runs 0 of 0 builds"
        );
    }
    for id in [short, backing_off, elsewhere] {
        assert_eq!(history(&pool, id).await, "queued");
    }
    assert_eq!(broken_histories(&pool).await, Vec::<String>::new());
}

#[sqlx::test(migrations = "./migrations")]
async fn a_worker_that_comes_and_goes_makes_no_build_wait_for_ever(pool: PgPool) {
    limits(&pool, 10, 10).await;
    let id = queued(&pool, &attempt("green", "wall")).await;
    waits_since(&pool, id, 31, None).await;
    assert_eq!(claim(&pool).await.expect("no error"), [id]);
    let stranded = launches::unlaunched(&pool).await.expect("no error");
    launches::put_back_stranded(&pool, &stranded).await.expect("no error");
    policy(&pool, "green", 30).await;
    assert_eq!(queue::time_out(&pool, 10).await.expect("no error"), [id]);
    assert_eq!(broken_histories(&pool).await, Vec::<String>::new());
}

#[sqlx::test(migrations = "./migrations")]
async fn where_the_policy_does_not_say_the_operators_limit_holds(pool: PgPool) {
    limits(&pool, 10, 0).await;
    settings::declare(&pool, 0, Some(60)).await.expect("it can be declared");
    for (tenant, minutes) in [("green", 61), ("amber", 61), ("blue", 59)] {
        let id = queued(&pool, &attempt(tenant, "wall")).await;
        waits_since(&pool, id, minutes, None).await;
    }
    policy(&pool, "amber", 90).await;
    let ended = queue::time_out(&pool, 10).await.expect("no error");
    assert_eq!(ended.len(), 1);
    let row = row(&pool, ended[0]).await;
    assert_eq!(row["resource_namespace"], "green");
    let message = "it waited in the queue for 1h, as long as the operator lets it: tenant green runs 0 of 0 builds";
    assert_eq!(row["error_message"], message);
    settings::declare(&pool, 0, None).await.expect("it can be declared");
    let limit: Option<i32> = sqlx::query_scalar("select max_queued_wait_minutes from operator_settings")
        .fetch_one(&pool)
        .await
        .expect("there is one row");
    assert_eq!(limit, None, "a limit can be taken away again");
}

#[sqlx::test(migrations = "./migrations")]
async fn a_long_queue_is_given_up_batch_by_batch(pool: PgPool) {
    limits(&pool, 10, 10).await;
    policy(&pool, "green", 1).await;
    for number in 0..5 {
        let id = queued(&pool, &attempt("green", &format!("wall-{number}"))).await;
        waits_since(&pool, id, 5 + number, None).await;
    }
    let mut batches = Vec::new();
    for _ in 0..4 {
        batches.push(queue::time_out(&pool, 2).await.expect("no error").len());
    }
    assert_eq!(batches, [2, 2, 1, 0]);
}

/// Builds in the watch's store, each with the status that its newest row gives now.
async fn told(pool: &PgPool, names: &[String]) -> Vec<Arc<Guarded>> {
    let uids: Vec<String> = names.iter().map(|name| format!("uid-green-{name}")).collect();
    let newest: HashMap<String, Newest> = builds::newest_of(pool, &uids).await.expect("no error");
    let told = |(name, uid): (&String, &String)| {
        let mut build: Build = serde_json::from_value(json!({
            "apiVersion": "imagefactory.dev/v1alpha1", "kind": "Build",
            "metadata": {"name": name, "namespace": "green", "uid": uid, "generation": 1},
            "spec": {
                "method": "container",
                "source": {"inline": {"files": {"Dockerfile": "FROM scratch"}}},
                "output": {"image": "registry.test/green/wall:1"},
            },
        }))
        .expect("a Build");
        let watched = Watched::try_from(build.clone()).expect("it can be watched");
        build.status = report::status(&watched, newest.get(uid));
        Arc::new(DeserializeGuard(Ok(Watched::try_from(build).expect("it can be watched"))))
    };
    names.iter().zip(&uids).map(told).collect()
}

/// Names of the Builds that a look at the queue wakes.
async fn woken(pool: &PgPool, looks: &mut Looks, builds: &[Arc<Guarded>]) -> Vec<String> {
    let queue = waiting(pool).await.expect("no error");
    looks.stale(&queue, builds).into_iter().map(|build| build.name).collect()
}

/// That many Builds of one tenant, of which none may run.
async fn long_queue(pool: &PgPool, length: usize) -> Vec<String> {
    limits(pool, 10, 0).await;
    let names: Vec<String> = (1..=length).map(|number| format!("wall-{number}")).collect();
    let first = queued(pool, &attempt("green", &names[0])).await;
    sqlx::query(
        "insert into builds (id, tenant_id, project_id, build_number, status, resource_namespace, resource_name, resource_uid,
             run, attempt, inputs_hash, observed_generation, build_method, queued_at)
         select gen_random_uuid(), tenant_id, project_id, n, 'queued', 'green', 'wall-' || n, 'uid-green-wall-' || n,
             1, 1, 'h', 1, 'container', queued_at + make_interval(secs => n)
         from builds, generate_series(2, $2) n where id = $1",
    )
    .bind(first)
    .bind(i32::try_from(length).expect("a small number"))
    .execute(pool)
    .await
    .expect("builds can be made");
    names
}

#[sqlx::test(migrations = "./migrations")]
async fn a_thousand_builds_of_which_nothing_changes_are_looked_at_together_and_woken_never(pool: PgPool) {
    let names = long_queue(&pool, 1_000).await;
    let builds = told(&pool, &names).await;
    let mut looks = Looks::default();
    for _ in 0..3 {
        assert_eq!(woken(&pool, &mut looks, &builds).await, Vec::<String>::new());
    }
    // The head leaves: the places of the ten behind it are told, and nothing of the 989 others.
    limits(&pool, 10, 1).await;
    assert_eq!(claim(&pool).await.expect("no error").len(), 1);
    assert_eq!(woken(&pool, &mut looks, &builds).await, names[..11]);
    let builds = told(&pool, &names).await;
    assert_eq!(woken(&pool, &mut looks, &builds).await, Vec::<String>::new());
}

#[sqlx::test(migrations = "./migrations")]
async fn another_reason_is_told_when_it_lasts_and_to_the_head_of_a_long_queue_first(pool: PgPool) {
    let names = long_queue(&pool, 250).await;
    let builds = told(&pool, &names).await;
    let mut looks = Looks::default();
    // For a moment there is room.
    limits(&pool, 10, 1).await;
    assert_eq!(woken(&pool, &mut looks, &builds).await, Vec::<String>::new());
    limits(&pool, 10, 0).await;
    assert_eq!(woken(&pool, &mut looks, &builds).await, Vec::<String>::new());

    sqlx::query("update build_workers set status = 'offline'").execute(&pool).await.expect("no error");
    assert_eq!(woken(&pool, &mut looks, &builds).await, Vec::<String>::new());
    assert_eq!(woken(&pool, &mut looks, &builds).await, names[..100]);
    let mut after = told(&pool, &names[..100]).await;
    after.extend_from_slice(&builds[100..]);
    assert_eq!(woken(&pool, &mut looks, &after).await, names[100..200]);
}

#[sqlx::test(migrations = "./migrations")]
async fn a_status_that_has_missed_the_beginning_or_the_end_of_a_wait_is_woken(pool: PgPool) {
    let names = long_queue(&pool, 3).await;
    let builds = told(&pool, &names).await;
    let mut unwritten = builds.clone();
    let bare = Watched { told: None, ..builds[2].0.clone().expect("a Build") };
    unwritten[2] = Arc::new(DeserializeGuard(Ok(bare)));
    assert_eq!(woken(&pool, &mut Looks::default(), &unwritten).await, names[2..]);
    // Nobody has heard of this.
    builds::request_cancel(&pool, "uid-green-wall-1", Reason::Cancelled, "it was asked").await.expect("no error");
    assert_eq!(woken(&pool, &mut Looks::default(), &builds).await, names, "the place of the two behind it, too");
}

#[sqlx::test(migrations = "./migrations")]
async fn the_place_in_a_status_is_the_views(pool: PgPool) {
    limits(&pool, 10, 0).await;
    for tenant in ["green", "amber"] {
        for (name, priority) in [("a", 0), ("b", 5), ("c", -5), ("d", 5)] {
            let mut wall = attempt(tenant, name);
            wall.priority = priority;
            queued(&pool, &wall).await;
        }
    }
    let by_priority = Policy { priority_dispatch: true, max_concurrent_builds: Some(0), ..attempts::policy("amber") };
    policies::declare(&pool, &[by_priority], 2).await.expect("it can be declared");
    let queue = waiting(&pool).await.expect("no error");
    let uids: Vec<String> = queue.iter().map(|one| one.resource_uid.clone()).collect();
    let newest = builds::newest_of(&pool, &uids).await.expect("no error");
    for one in &queue {
        let place = newest[&one.resource_uid].queue.as_ref().expect("it waits");
        assert_eq!((place.position, Some(&place.waiting_for)), (one.position, one.waiting_for.as_ref()));
    }
    let place = |uid: &str| newest[uid].queue.as_ref().map(|place| place.position);
    let places = |tenant: &str| ["a", "b", "c", "d"].map(|name| place(&format!("uid-{tenant}-{name}")));
    assert_eq!(places("green"), [1, 2, 3, 4].map(Some));
    assert_eq!(places("amber"), [3, 1, 4, 2].map(Some));
}
