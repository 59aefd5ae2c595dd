//! Workers as rows: the table declares what is handed in and forgets no worker, an outage lasts as long as its worker
//! is offline, and what a lost worker has not begun waits again.

use std::time::Duration;

use image_factory::{
    crd::build_worker::{Toleration, TolerationOperator, WorkerState},
    db::{
        launches,
        queue::claim,
        workers::{self, Declared, State, TenantName},
    },
};
use image_factory_core::{method::Method, placement::Placement, worker_health::Health};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::task::JoinSet;

use crate::attempts::{attempt, broken_histories, history, limits, queued, row};

pub fn worker(name: &str) -> Declared {
    Declared {
        tenant: None,
        name: name.to_owned(),
        concurrent_builds: 2,
        zone: None,
        labels: [].into(),
        methods: Vec::new(),
        cordoned: false,
        node_selector: [].into(),
        tolerations: Vec::new(),
        health: Health::Healthy,
    }
}

fn of_tenant(name: &str, tenant: &str) -> Declared {
    let tenant = TenantName { uid: format!("uid-{tenant}"), name: tenant.to_owned() };
    Declared { tenant: Some(tenant), ..worker(name) }
}

fn offline(worker: Declared) -> Declared {
    Declared { health: Health::Offline("no node".to_owned()), ..worker }
}

async fn declare(pool: &PgPool, workers: &[Declared]) {
    assert!(workers::declare(pool, workers, 1).await.expect("workers can be declared"));
}

async fn states(pool: &PgPool) -> Vec<State> {
    let mut states = workers::states(pool).await.expect("workers can be read");
    states.sort_by(|a, b| (&a.name, &a.tenant_uid).cmp(&(&b.name, &b.tenant_uid)));
    states
}

async fn stored(pool: &PgPool, name: &str) -> Value {
    let row = sqlx::query_scalar("select to_jsonb(w) from build_workers w where worker_name = $1").bind(name);
    row.fetch_one(pool).await.expect("the worker has a row")
}

/// The outages of a worker, oldest first: whether each has ended.
async fn outages(pool: &PgPool, name: &str) -> Vec<bool> {
    sqlx::query_scalar(
        "select o.ended_at is not null from build_worker_outages o join build_workers w on w.id = o.worker_id
         where w.worker_name = $1 order by o.began_at",
    )
    .bind(name)
    .fetch_all(pool)
    .await
    .expect("outages can be read")
}

async fn change(pool: &PgPool, statement: &'static str) {
    let changed = sqlx::raw_sql(statement).execute(pool).await.expect("rows can be changed");
    assert!(changed.rows_affected() > 0, "{statement}");
}

#[sqlx::test(migrations = "./migrations")]
async fn a_worker_is_stored_with_all_it_declares(pool: PgPool) {
    let gpu =
        Toleration { key: Some("gpu".to_owned()), operator: Some(TolerationOperator::Exists), ..Toleration::default() };
    let declared = Declared {
        zone: Some("north".to_owned()),
        labels: [("gpu".to_owned(), "true".to_owned())].into(),
        methods: vec![Method::Buildx, Method::Kaniko],
        cordoned: true,
        node_selector: [("pool".to_owned(), "builds".to_owned())].into(),
        tolerations: vec![gpu],
        health: Health::Degraded("1 of 2 nodes".to_owned()),
        ..of_tenant("roller", "green")
    };
    declare(&pool, &[declared, worker("brush")]).await;
    let row = stored(&pool, "roller").await;
    for (column, expected) in [
        ("worker_type", json!("kubernetes")),
        ("concurrent_builds_limit", json!(2)),
        ("declared", json!(true)),
        ("zone", json!("north")),
        ("labels", json!({"gpu": "true"})),
        ("methods", json!(["buildx", "kaniko"])),
        ("cordoned", json!(true)),
        ("node_selector", json!({"pool": "builds"})),
        ("tolerations", json!([{"key": "gpu", "operator": "Exists"}])),
        ("status", json!("degraded")),
        ("message", json!("1 of 2 nodes")),
    ] {
        assert_eq!(row[column], expected, "{column}");
    }
    let served: Vec<Option<String>> = states(&pool).await.into_iter().map(|state| state.tenant_uid).collect();
    assert_eq!(served, [None, Some("uid-green".to_owned())]);
}

#[sqlx::test(migrations = "./migrations")]
async fn a_deleted_worker_keeps_its_row_and_is_taken_up_again_by_name(pool: PgPool) {
    limits(&pool, 1, 1).await;
    // The same name in two namespaces and in the operator's own is three workers.
    let all = [of_tenant("brush", "green"), of_tenant("brush", "amber"), worker("brush")];
    declare(&pool, &all).await;
    let ids: i64 = sqlx::query_scalar("select count(*) from build_workers where worker_name = 'brush'")
        .fetch_one(&pool)
        .await
        .expect("rows can be counted");
    assert_eq!(ids, 3);

    declare(&pool, &all[..2]).await;
    let rest: Vec<Option<String>> = states(&pool).await.into_iter().map(|state| state.tenant_uid).collect();
    assert_eq!(rest, [Some("uid-amber".to_owned()), Some("uid-green".to_owned())]);
    declare(&pool, &[]).await;
    assert_eq!(states(&pool).await, []);
    let row = sqlx::query_scalar::<_, Value>(
        "select jsonb_agg(distinct jsonb_build_array(declared, status, message)) from build_workers where worker_name = 'brush'",
    );
    let rows = row.fetch_one(&pool).await.expect("rows can be read");
    assert_eq!(rows, json!([[false, "offline", "its BuildWorker was deleted"]]));
    assert_eq!(stored(&pool, workers::BUILT_IN).await["status"], "healthy", "the built-in one is nobody's");

    declare(&pool, &all).await;
    let again: Vec<WorkerState> = states(&pool).await.into_iter().map(|state| state.state).collect();
    assert_eq!(again, [WorkerState::Healthy; 3]);
    let ids: i64 = sqlx::query_scalar("select count(*) from build_workers where worker_name = 'brush'")
        .fetch_one(&pool)
        .await
        .expect("rows can be counted");
    assert_eq!(ids, 3, "no row is made twice");
}

#[sqlx::test(migrations = "./migrations")]
async fn a_full_worker_is_busy_also_when_it_is_declared_again(pool: PgPool) {
    limits(&pool, 9, 9).await;
    declare(&pool, &[worker("brush")]).await;
    for name in ["wall", "door"] {
        queued(&pool, &attempt("green", name)).await;
    }
    claim(&pool).await.expect("they can be claimed");
    let state = |at: usize| {
        let pool = pool.clone();
        async move { states(&pool).await.swap_remove(at).state }
    };
    assert_eq!(state(0).await, WorkerState::Busy);
    declare(&pool, &[worker("brush")]).await;
    assert_eq!(state(0).await, WorkerState::Busy);
    declare(&pool, &[Declared { concurrent_builds: 3, ..worker("brush") }]).await;
    assert_eq!(state(0).await, WorkerState::Healthy);
    // A lower limit kills nothing.
    declare(&pool, &[Declared { concurrent_builds: 1, ..worker("brush") }]).await;
    assert_eq!((state(0).await, states(&pool).await[0].running), (WorkerState::Busy, 2));
}

#[sqlx::test(migrations = "./migrations")]
async fn an_outage_lasts_as_long_as_its_worker_is_offline(pool: PgPool) {
    for (declared, expected) in [
        (vec![worker("brush")], vec![]),
        (vec![offline(worker("brush"))], vec![false]),
        (vec![offline(worker("brush"))], vec![false]),
        (vec![worker("brush")], vec![true]),
        (vec![], vec![true, false]),
        (vec![Declared { health: Health::Degraded("one of two".to_owned()), ..worker("brush") }], vec![true, true]),
    ] {
        declare(&pool, &declared).await;
        assert_eq!(outages(&pool, "brush").await, expected, "{declared:?}");
    }
}

#[sqlx::test(migrations = "./migrations")]
async fn uptime_is_the_share_of_seven_days_or_of_a_shorter_life(pool: PgPool) {
    let uptime = async |name: &str| {
        workers::beat(&pool, 1).await.expect("a heartbeat can be noted");
        stored(&pool, name).await["uptime_percent"].as_f64().expect("a number")
    };
    declare(&pool, &[worker("brush"), offline(worker("roller"))]).await;
    assert!((uptime("brush").await - 100.0).abs() < 0.01);
    assert!(uptime("roller").await < 100.0);
    assert_eq!(stored(&pool, "roller").await["last_heartbeat"], Value::Null, "it was never seen well");
    assert_ne!(stored(&pool, "brush").await["last_heartbeat"], Value::Null);

    // Ten hours old, the last one of them offline.
    change(
        &pool,
        "update build_workers set created_at = now() - interval '10 hours' where worker_name = 'roller';
         update build_worker_outages set began_at = now() - interval '1 hour'",
    )
    .await;
    assert!((uptime("roller").await - 90.0).abs() < 0.1);
    // Ten days old, offline until three and a half days ago: half of the window.
    change(
        &pool,
        "update build_workers set created_at = now() - interval '10 days' where worker_name = 'roller';
         update build_worker_outages
         set began_at = now() - interval '9 days', ended_at = now() - interval '84 hours'",
    )
    .await;
    assert!((uptime("roller").await - 50.0).abs() < 0.1);
}

#[sqlx::test(migrations = "./migrations")]
async fn a_heartbeat_writes_no_row_of_a_worker_that_is_gone_or_has_nothing_new(pool: PgPool) {
    limits(&pool, 1, 1).await;
    let all = [worker("brush"), offline(worker("roller")), worker("spoon")];
    declare(&pool, &all).await;
    declare(&pool, &all[..2]).await;
    // Offline for all of its life, which is more than the window.
    change(
        &pool,
        "update build_workers set created_at = now() - interval '9 days' where worker_name = 'roller';
         update build_worker_outages set began_at = now() - interval '9 days'",
    )
    .await;
    let versions = async || -> Vec<(String, String)> {
        sqlx::query_as("select worker_name, xmin::text from build_workers order by worker_name")
            .fetch_all(&pool)
            .await
            .expect("rows can be read")
    };
    workers::beat(&pool, 1).await.expect("a heartbeat can be noted");
    let before = versions().await;
    workers::beat(&pool, 1).await.expect("a heartbeat can be noted");
    let written: Vec<String> =
        before.into_iter().zip(versions().await).filter(|(old, new)| old != new).map(|(old, _)| old.0).collect();
    assert_eq!(written, ["brush", workers::BUILT_IN]);
    assert_eq!(stored(&pool, "roller").await["uptime_percent"], 0.0);
}

#[sqlx::test(migrations = "./migrations")]
async fn outages_of_more_than_seven_days_ago_are_forgotten_but_the_last_says_since_when_a_worker_is_well(pool: PgPool) {
    declare(&pool, &[worker("brush")]).await;
    change(
        &pool,
        "insert into build_worker_outages
         select id, now() - interval '30 days', now() - interval '29 days' from build_workers
         union all select id, now() - interval '20 days', now() - interval '19 days' from build_workers",
    )
    .await;
    declare(&pool, &[worker("brush")]).await;
    assert_eq!(outages(&pool, "brush").await, [true]);
    let since = states(&pool).await.swap_remove(0).since;
    let days: f64 = sqlx::query_scalar("select extract(epoch from now() - $1)::float8 / 86400")
        .bind(jiff_sqlx::ToSqlx::to_sqlx(since))
        .fetch_one(&pool)
        .await
        .expect("the age can be reckoned");
    assert!((days - 19.0).abs() < 0.01, "{days}");
}

#[sqlx::test(migrations = "./migrations")]
async fn what_a_lost_worker_has_not_launched_waits_again_and_the_rest_follows_its_pod(pool: PgPool) {
    limits(&pool, 9, 9).await;
    declare(&pool, &[worker("brush")]).await;
    let launched = queued(&pool, &attempt("green", "wall")).await;
    let claimed = queued(&pool, &attempt("green", "door")).await;
    assert_eq!(claim(&pool).await.expect("they can be claimed").len(), 2);
    launches::jobs_created(&pool, &[launched]).await.expect("the Job can be noted");
    let unlaunched = async || launches::unlaunched(&pool).await.expect("they can be read");
    let found = unlaunched().await;
    assert_eq!(
        found.iter().map(|attempt| (attempt.id, attempt.worker_offline)).collect::<Vec<_>>(),
        [(claimed, false)]
    );

    declare(&pool, &[offline(worker("brush"))]).await;
    let stranded = unlaunched().await;
    assert!(stranded[0].worker_offline);
    // Even where the launched one is handed in: it has a Job.
    let both: Vec<_> =
        stranded.iter().cloned().chain([launches::Unlaunched { id: launched, ..stranded[0].clone() }]).collect();
    launches::put_back_stranded(&pool, &both).await.expect("it can be put back");
    assert_eq!(row(&pool, launched).await["status"], "in_progress");
    assert_eq!(history(&pool, claimed).await, "queued → in_progress → queued");
    let reason: String =
        sqlx::query_scalar("select reason from build_status_history where build_id = $1 and sequence = 3")
            .bind(claimed)
            .fetch_one(&pool)
            .await
            .expect("the history can be read");
    assert_eq!(reason, "worker brush went offline before the build had a Job");
    // It waits for its worker, and goes to another as soon as there is one.
    assert!(claim(&pool).await.expect("nothing fits").is_empty());
    declare(&pool, &[offline(worker("brush")), worker("roller")]).await;
    assert_eq!(claim(&pool).await.expect("it can be claimed"), [claimed]);
    assert_eq!(unlaunched().await[0].worker, "roller");
    // Only a Job that was refused counts against it.
    assert_eq!(unlaunched().await[0].returns, 0);
    launches::put_back(&pool, claimed, "no quota", Duration::ZERO).await.expect("it can be put back");
    assert_eq!(claim(&pool).await.expect("it can be claimed"), [claimed]);
    assert_eq!(unlaunched().await[0].returns, 1);
    assert_eq!(broken_histories(&pool).await, Vec::<String>::new());
}

#[sqlx::test(migrations = "./migrations")]
async fn a_job_is_launched_for_its_workers_nodes(pool: PgPool) {
    limits(&pool, 9, 9).await;
    let toleration = Toleration { key: Some("gpu".to_owned()), value: Some("yes".to_owned()), ..Toleration::default() };
    let picky = Declared {
        node_selector: [("pool".to_owned(), "builds".to_owned())].into(),
        tolerations: vec![toleration],
        ..worker("roller")
    };
    declare(&pool, &[worker("brush"), picky]).await;
    let mut placed = attempt("green", "wall");
    placed.placement = Some(Placement { name: Some("roller".to_owned()), ..Placement::default() });
    queued(&pool, &placed).await;
    claim(&pool).await.expect("it can be claimed");
    let attempt = launches::unlaunched(&pool).await.expect("it can be read").swap_remove(0);
    assert_eq!((attempt.worker.as_str(), attempt.node_selector["pool"].as_str()), ("roller", "builds"));
    assert_eq!(json!(attempt.tolerations), json!([{"key": "gpu", "value": "yes"}]));
}

/// Two that change the same rows in another order would wait for each other.
#[sqlx::test(migrations = "./migrations")]
async fn who_changes_workers_waits_for_the_claim_under_way(pool: PgPool) -> sqlx::Result<()> {
    let mut claim = pool.begin().await?;
    sqlx::query("select pg_advisory_xact_lock(hashtextextended('image-factory claim', 0))")
        .execute(&mut *claim)
        .await?;
    let (declaring, beating) = (pool.clone(), pool.clone());
    let mut changes = JoinSet::new();
    changes.spawn(async move { workers::declare(&declaring, &[worker("brush")], 1).await.map(|_| ()) });
    changes.spawn(async move { workers::beat(&beating, 1).await });
    let both_wait = async {
        let waiting = "select count(*) from pg_locks
                       where locktype = 'advisory' and not granted
                           and database = (select oid from pg_database where datname = current_database())";
        while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&pool).await.expect("locks can be read") < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), both_wait).await.expect("both wait");
    assert!(changes.try_join_next().is_none());
    claim.commit().await?;
    while let Some(done) = changes.join_next().await {
        done.expect("no panic").expect("it goes on");
    }
    Ok(())
}
