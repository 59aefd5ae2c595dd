//! What a claim takes first: by the rows, what the plan in core says of the whole queue, however much of it was read.

use std::collections::{BTreeMap, BTreeSet};

use image_factory::db::{
    policies::Policy,
    queue::claim,
    workers::{self, Declared},
};
use image_factory_core::{
    method::Method,
    placement::{Placement, Wish, Worker},
    queue::{self, Group, Head, Tenant},
    reason::Reason,
    worker_health::Health,
};
use jiff_sqlx::Timestamp;
use sqlx::PgPool;
use uuid::Uuid;

use super::{Dice, declare};
use crate::attempts::{attempt, failure, finish, limits, next_run, policy, queued, row, success};

fn worker(name: &str, concurrent_builds: i32) -> Declared {
    Declared {
        tenant: None,
        name: name.to_owned(),
        concurrent_builds,
        zone: None,
        labels: [].into(),
        methods: Vec::new(),
        cordoned: false,
        node_selector: [].into(),
        tolerations: Vec::new(),
        health: Health::Healthy,
    }
}

async fn declare_workers(pool: &PgPool, declared: &[Declared]) {
    assert!(workers::declare(pool, declared, 1).await.expect("workers can be declared"));
}

async fn claimed(pool: &PgPool) -> BTreeSet<Uuid> {
    claim(pool).await.expect("a claim succeeds").into_iter().collect()
}

#[sqlx::test(migrations = "./migrations")]
async fn an_image_is_built_again_where_it_was_built_last(pool: PgPool) {
    limits(&pool, 9, 9).await;
    declare_workers(&pool, &[worker("brush", 4), worker("roller", 4)]).await;
    let place = async |id| {
        assert_eq!(claimed(&pool).await, [id].into());
        let name = sqlx::query_scalar(
            "select w.worker_name from builds b join build_workers w on w.id = b.worker_id where b.id = $1",
        );
        let name: String = name.bind(id).fetch_one(&pool).await.expect("it has a worker");
        name
    };
    for (build, first, other) in [("wall", "brush", "roller"), ("door", "roller", "brush")] {
        let mut run = attempt("green", build);
        for (asked, expected, succeeds) in [
            (Some(first), first, true),
            (None, first, true),
            (Some(other), other, false),
            (None, first, true),
            (Some(other), other, true),
            (None, other, true),
        ] {
            run.placement = asked.map(|name| Placement { name: Some(name.to_owned()), ..Placement::default() });
            let id = queued(&pool, &run).await;
            assert_eq!(place(id).await, expected, "run {} of {build}", run.run);
            let outcome = if succeeds {
                success(&format!("registry.test/green/{build}:1"))
            } else {
                failure(Reason::BuildFailed)
            };
            assert!(finish(&pool, id, &outcome).await);
            run = next_run(&run);
        }
    }
}

#[sqlx::test(migrations = "./migrations")]
async fn a_limit_below_what_runs_ends_nothing_and_lets_nothing_start_until_it_holds(pool: PgPool) {
    limits(&pool, 10, 10).await;
    let mut all = BTreeSet::new();
    for build in 0..6 {
        all.insert(queued(&pool, &attempt("green", &format!("wall-{build}"))).await);
    }
    let allow = async |most| declare(&pool, &[Policy { max_concurrent_builds: Some(most), ..policy("green") }]).await;
    allow(4).await;
    let mut running = claimed(&pool).await;
    assert_eq!(running.len(), 4);
    allow(2).await;
    let mut ended = 0;
    while let Some(id) = running.pop_first() {
        assert_eq!(row(&pool, id).await["status"], "in_progress");
        assert!(finish(&pool, id, &success("registry.test/green/wall:1")).await);
        ended += 1;
        let started = claimed(&pool).await;
        assert_eq!(started.is_empty(), running.len() >= 2 || ended > 4, "{started:?} beside {running:?}");
        running.extend(started);
        assert!(ended < 3 || running.len() <= 2);
    }
    for id in all {
        assert_eq!(row(&pool, id).await["status"], "success");
    }
}

const TENANTS: usize = 5;
const BUILDS: usize = 30;
const METHODS: [Method; 2] = [Method::Container, Method::Kaniko];

/// Tenants as their policies say, in the words of the plan.
fn tenant(policy: &Policy, id: Uuid) -> Tenant {
    Tenant {
        id,
        weight: policy.weight,
        by_priority: policy.priority_dispatch,
        limit: policy.max_concurrent_builds.expect("it has one"),
        project_limit: policy.max_concurrent_per_project,
        method_limits: policy.max_concurrent_by_method.clone(),
        ..Tenant::default()
    }
}

#[derive(sqlx::FromRow)]
struct Row {
    id: Uuid,
    tenant_id: Uuid,
    project_id: Uuid,
    build_method: String,
    status: String,
    priority: i32,
    queued_at: Timestamp,
    worker_id: Option<Uuid>,
    /// Who last built its image.
    warm: Option<Uuid>,
}

/// What the plan in core says of the whole queue.
async fn expected(pool: &PgPool, declared: &[Policy]) -> BTreeSet<Uuid> {
    let ids: Vec<(String, Uuid)> =
        sqlx::query_as("select name, id from tenants").fetch_all(pool).await.expect("they can be read");
    let id_of = |name: &str| ids.iter().find(|(of, _)| of == name).map(|(_, id)| *id).expect("it is known");
    let mut tenants: Vec<Tenant> = declared.iter().map(|policy| tenant(policy, id_of(&policy.tenant_name))).collect();
    let workers: Vec<(Uuid, String, i32, bool)> =
        sqlx::query_as("select id, worker_name, concurrent_builds_limit, declared from build_workers")
            .fetch_all(pool)
            .await
            .expect("they can be read");
    let mut workers: Vec<Worker> = workers
        .into_iter()
        .map(|(id, name, limit, declared)| Worker { id, name, limit, declared, takes: true, ..Worker::default() })
        .collect();
    workers.iter_mut().filter(|worker| worker.declared).for_each(|worker| worker.methods = vec![Method::Kaniko]);
    let rows: Vec<Row> = sqlx::query_as(
        "select b.*, (select w.worker_id from builds w where w.image_id = b.image_id and w.status = 'success'
                      order by w.completed_at desc limit 1) as warm
         from builds b where b.status in ('queued', 'in_progress')",
    )
    .fetch_all(pool)
    .await
    .expect("they can be read");
    let mut groups: BTreeMap<(Uuid, Uuid, Method), Group> = BTreeMap::new();
    for row in rows {
        let method: Method = serde_json::from_value(row.build_method.into()).expect("a method");
        if row.status == "in_progress" {
            let tenant = tenants.iter_mut().find(|tenant| tenant.id == row.tenant_id).expect("it is known");
            tenant.running += 1;
            *tenant.running_by_project.entry(row.project_id).or_default() += 1;
            *tenant.running_by_method.entry(method).or_default() += 1;
            workers.iter_mut().find(|worker| Some(worker.id) == row.worker_id).expect("it has one").running += 1;
            continue;
        }
        let group = groups.entry((row.tenant_id, row.project_id, method)).or_insert_with(|| Group {
            tenant: row.tenant_id,
            project: row.project_id,
            method,
            placement: Placement::default(),
            heads: Vec::new(),
            more: false,
        });
        let queued_at = row.queued_at.to_jiff();
        let wish = Wish { warm: row.warm, ..Wish::default() };
        group.heads.push(Head { build: row.id, priority: row.priority, queued_at, wish });
    }
    let plan = queue::plan(tenants, workers, groups.into_values().collect());
    plan.assignments.into_iter().map(|assignment| assignment.build).collect()
}

/// Long groups and short ones, weights, priorities and limits of every kind, at workers that are too few: each claim
/// takes what a plan of the whole queue takes, until it is empty.
async fn claims_are_the_plan_of_the_whole_queue_from(seed: u64, pool: &PgPool) {
    eprintln!("seed {seed:#x}");
    sqlx::raw_sql("truncate tenants, build_workers cascade").execute(pool).await.expect("rows can go");
    limits(pool, 9, 1).await;
    declare_workers(pool, &[Declared { methods: vec![Method::Kaniko], ..worker("roller", 4) }]).await;
    let mut dice = Dice(seed);
    let declared: Vec<Policy> = (0..TENANTS)
        .map(|tenant| Policy {
            max_concurrent_builds: Some(dice.number(2, 8)),
            max_concurrent_per_project: dice.once_in(2).then(|| dice.number(1, 5)),
            max_concurrent_by_method: dice.once_in(2).then(|| (METHODS[1], dice.number(1, 3))).into_iter().collect(),
            priority_dispatch: dice.once_in(2),
            weight: dice.number(1, 3),
            ..policy(&format!("tenant-{tenant}"))
        })
        .collect();
    declare(pool, &declared).await;
    for build in 0..TENANTS * BUILDS {
        let mut wall = attempt(&format!("tenant-{}", build % TENANTS), &format!("wall-{build}"));
        // Most are of one project: its group is longer than a fair share.
        wall.project = if dice.once_in(4) { format!("paint-{}", dice.below(4)) } else { "paint".to_owned() };
        wall.config.method = METHODS[usize::from(dice.once_in(5))];
        wall.priority = dice.number(0, 3);
        queued(pool, &wall).await;
    }
    let mut running = BTreeSet::new();
    loop {
        let expected = expected(pool, &declared).await;
        assert_eq!(claimed(pool).await, expected);
        running.extend(expected);
        if running.is_empty() {
            break;
        }
        let ends: Vec<Uuid> = running.iter().copied().filter(|_| dice.once_in(2)).collect();
        for id in ends {
            running.remove(&id);
            assert!(finish(pool, id, &success("registry.test/a/b:1")).await);
        }
    }
    let left: i64 = sqlx::query_scalar("select count(*) from builds where status = 'queued'")
        .fetch_one(pool)
        .await
        .expect("rows can be counted");
    assert_eq!(left, 0);
}

#[sqlx::test(migrations = "./migrations")]
async fn claims_are_the_plan_of_the_whole_queue(pool: PgPool) {
    limits(&pool, 1, 1).await;
    let (_, of_this_run) = image_factory::clock::new_id().as_u64_pair();
    for seed in [0x9e37_79b9_7f4a_7c15, 0x8a51_7741_6d39_f1c3, of_this_run] {
        claims_are_the_plan_of_the_whole_queue_from(seed, &pool).await;
    }
}

/// So many builds of the tenant of `like`, each of a group of its own, queued one after another before it. Where
/// `selector` is given no worker fits them.
async fn many_groups(pool: &PgPool, like: Uuid, groups: i32, selector: bool) {
    sqlx::query(
        "with made as (
             insert into projects (id, tenant_id, name)
             select gen_random_uuid(), b.tenant_id, 'paint-' || n from builds b, generate_series(1, $2) n where b.id = $1
             returning id, tenant_id, split_part(name, '-', 2)::int as n
         ),
         waiting as (
             insert into builds (id, tenant_id, project_id, build_number, status, queued_at, resource_namespace, resource_name,
                 resource_uid, run, attempt, inputs_hash, observed_generation, build_method, placement)
             select gen_random_uuid(), m.tenant_id, m.id, 1, 'queued', b.queued_at + make_interval(secs => n - $2 - 1),
                 b.resource_namespace, 'many-' || n, 'uid-many-' || n, 1, 1, b.inputs_hash, 1, b.build_method,
                 case when $3 then jsonb_build_object('selector', jsonb_build_object('moon', n::text)) end
             from made m, builds b
             where b.id = $1
             returning id
         )
         insert into build_status_history (id, build_id, sequence, to_status, changed_by_system, changed_at)
         select id, id, 1, 'queued', true, now() from waiting",
    )
    .bind(like)
    .bind(groups)
    .bind(selector)
    .execute(pool)
    .await
    .expect("builds can be queued");
}

#[sqlx::test(migrations = "./migrations")]
async fn groups_that_no_worker_fits_are_in_nobodys_way_however_many(pool: PgPool) {
    limits(&pool, 30, 50).await;
    let last = queued(&pool, &attempt("green", "wall")).await;
    many_groups(&pool, last, 700, true).await;
    for build in 0..60 {
        queued(&pool, &attempt("amber", &format!("door-{build}"))).await;
    }
    // One of its own tenant may wait for its lot, none of another.
    let mut started = claimed(&pool).await;
    let (of_amber, batches): (i64, i64) = sqlx::query_as(
        "select count(*), count(distinct xmin::text) from builds
         where status = 'in_progress' and resource_namespace = 'amber'",
    )
    .fetch_one(&pool)
    .await
    .expect("rows can be counted");
    assert!(of_amber >= 29, "{of_amber}");
    assert_eq!(batches, 1, "all by the first plan");
    workers::beat(&pool, 90).await.expect("the worker can be declared");
    let mut claims = 1;
    while !started.contains(&last) {
        started.extend(claimed(&pool).await);
        claims += 1;
        assert!(claims < 80, "it starves");
    }
}

#[sqlx::test(migrations = "./migrations")]
async fn the_oldest_builds_start_first_however_many_groups_there_are(pool: PgPool) {
    limits(&pool, 5, 50).await;
    let last = queued(&pool, &attempt("green", "wall")).await;
    many_groups(&pool, last, 400, false).await;
    for first in [1, 6, 11] {
        let started = claimed(&pool).await;
        let names: Vec<String> =
            sqlx::query_scalar("select resource_name from builds where status = 'in_progress' order by queued_at")
                .fetch_all(&pool)
                .await
                .expect("they can be read");
        assert_eq!(names, (first..first + 5).map(|number| format!("many-{number}")).collect::<Vec<_>>());
        sqlx::query(
            "update builds set status = 'cancelled', completed_at = now(), started_at = now() where id = any($1)",
        )
        .bind(started.into_iter().collect::<Vec<_>>())
        .execute(&pool)
        .await
        .expect("they can end");
    }
}
