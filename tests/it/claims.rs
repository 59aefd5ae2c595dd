//! A model of many operators at one queue: they claim, finish and queue again at random, and at every commit
//! the database itself counts what runs. A limit exceeded for a moment fails the test.

use std::sync::{
    Arc,
    atomic::{AtomicI64, AtomicUsize, Ordering},
};

use image_factory::db::{
    builds::enqueue,
    policies::{self, Policy},
    queue::claim,
};
use image_factory_core::{method::Method, placement::Placement, reason::Reason};
use sqlx::PgPool;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::attempts::{attempt, broken_histories, failure, finish, limits, next_run, queued, success};

const TENANTS: usize = 20;
const BUILDS: usize = 12;
const OPERATORS: u64 = 4;
const DEFAULT_LIMIT: i32 = 3;

/// The same numbers for the same seed; the order in which the operators act differs each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u64) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % sides
    }
}

/// Counts at every commit that starts builds. Commits take turns from here on, so that each sees all
/// before it: two that would together exceed a limit can't pass by not seeing each other.
const WATCHDOG: &str = "
    create table peaks (place text primary key, running bigint not null, most int not null);
    create function watch_limits() returns trigger language plpgsql as $$
    declare
        broken text;
    begin
        perform pg_advisory_xact_lock(20071124);
        with places as (
            select 'tenant ' || b.tenant_id as place, count(*) as running,
                   coalesce(min(p.max_concurrent_builds), min(s.max_concurrent_builds)) as most
            from builds b
            cross join operator_settings s
            left join build_concurrency_policies p on p.tenant_id = b.tenant_id
            where b.status = 'in_progress' group by b.tenant_id
            union all
            select 'worker ' || w.id, count(*), w.concurrent_builds_limit
            from builds b join build_workers w on w.id = b.worker_id
            where b.status = 'in_progress' group by w.id
            union all
            select 'project ' || b.project_id, count(*), min(p.max_concurrent_per_project)
            from builds b join build_concurrency_policies p on p.tenant_id = b.tenant_id
            where b.status = 'in_progress' and p.max_concurrent_per_project is not null group by b.project_id
            union all
            select 'kaniko ' || b.tenant_id, count(*), min(p.kaniko_max_concurrent)
            from builds b join build_concurrency_policies p on p.tenant_id = b.tenant_id
            where b.status = 'in_progress' and b.build_method = 'kaniko' and p.kaniko_max_concurrent is not null group by b.tenant_id
            union all
            select 'Build ' || resource_uid, count(*), 1
            from builds where status = 'in_progress' group by resource_uid
        ),
        recorded as (
            insert into peaks select * from places
            on conflict (place) do update set running = greatest(peaks.running, excluded.running)
        )
        select string_agg(what, '; ') into broken from (
            select format('%s runs %s of %s', place, running, most) as what from places where running > most
            union all
            select format('a worker of tenant %s runs a build of %s', w.tenant_id, b.tenant_id)
            from builds b join build_workers w on w.id = b.worker_id
            where b.status = 'in_progress' and w.tenant_id <> b.tenant_id
            union all
            select format('worker %s runs a build that asks for %s', w.worker_name, b.placement)
            from builds b join build_workers w on w.id = b.worker_id
            where b.status = 'in_progress' and b.placement ->> 'zone' <> w.zone
        ) found;
        if broken is not null then
            raise exception '%', broken;
        end if;
        return null;
    end
    $$;
    create constraint trigger watch_limits after update on builds deferrable initially deferred
        for each row when (new.status = 'in_progress' and old.status = 'queued') execute function watch_limits();";

/// Twenty tenants with their builds; some have a limit of their own, some a worker of their own.
async fn set_up(pool: &PgPool, dice: &mut Dice) -> sqlx::Result<()> {
    sqlx::raw_sql(WATCHDOG).execute(pool).await?;
    limits(pool, 9, DEFAULT_LIMIT).await;
    let mut declared = Vec::new();
    for tenant in 0..TENANTS {
        let name = format!("tenant-{tenant}");
        for build in 0..BUILDS {
            let mut wall = attempt(&name, &format!("wall-{build}"));
            wall.project = format!("paint-{}", dice.below(2));
            wall.priority = i32::try_from(dice.below(5)).expect("a small number");
            if dice.below(2) == 0 {
                wall.config.method = Method::Kaniko;
            }
            wall.placement =
                (dice.below(4) == 0).then(|| Placement { zone: Some("near".to_owned()), ..Placement::default() });
            queued(pool, &wall).await;
        }
        if dice.below(3) > 0 {
            let limit = i32::try_from(1 + dice.below(4)).expect("a small number");
            declared.push(Policy {
                tenant_uid: format!("uid-{name}"),
                tenant_name: name,
                max_concurrent_builds: (dice.below(5) > 0).then_some(limit),
                max_concurrent_per_project: (dice.below(3) == 0).then_some(2),
                max_concurrent_by_method: (dice.below(3) == 0).then_some((Method::Kaniko, 1)).into_iter().collect(),
                weight: 1 + i32::try_from(dice.below(3)).expect("a small number"),
                priority_dispatch: dice.below(2) == 0,
                ..Policy::default()
            });
        }
    }
    // One tenant may run nothing at all: the others don't mind.
    declared.retain(|policy| policy.tenant_name != "tenant-7");
    declared.push(Policy {
        tenant_uid: "uid-tenant-7".to_owned(),
        tenant_name: "tenant-7".to_owned(),
        max_concurrent_builds: Some(0),
        weight: 1,
        ..Policy::default()
    });
    declare(pool, &declared).await;
    sqlx::raw_sql(
        "insert into build_workers (id, tenant_id, worker_name, worker_type, concurrent_builds_limit, status, declared, zone)
         select gen_random_uuid(), id, 'own', 'kubernetes', 2, 'healthy', true, 'near' from tenants where name in ('tenant-1', 'tenant-2');
         insert into build_workers (id, tenant_id, worker_name, worker_type, concurrent_builds_limit, status, declared)
         select gen_random_uuid(), id, 'away', 'kubernetes', 5, 'offline', true from tenants where name = 'tenant-1';
         insert into build_workers (id, tenant_id, worker_name, worker_type, concurrent_builds_limit, status, declared, zone)
         select gen_random_uuid(), null, name, 'kubernetes', most, 'healthy', true, 'near'
         from (values ('near', 3)) as w (name, most);
         insert into build_workers (id, tenant_id, worker_name, worker_type, concurrent_builds_limit, status, declared, methods)
         select gen_random_uuid(), null, 'kaniko', 'kubernetes', 4, 'healthy', true, '{kaniko}';",
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// One operator: claims, and ends or replaces something that runs, until nothing is left that may run.
async fn operate(pool: PgPool, mut dice: Dice, claims: Arc<AtomicUsize>) -> sqlx::Result<()> {
    loop {
        let claimed = claim(&pool).await.expect("a claim succeeds");
        claims.fetch_add(claimed.len(), Ordering::Relaxed);
        for _ in 0..dice.below(6) {
            let running: Option<Uuid> = sqlx::query_scalar(
                "select id from builds where status = 'in_progress' order by md5(id::text || $1) limit 1",
            )
            .bind(dice.below(1_000_000).to_string())
            .fetch_optional(&pool)
            .await?;
            let Some(id) = running else { break };
            let outcome = match dice.below(3) {
                0 => success("registry.test/a/b:1"),
                1 => failure(Reason::BuildFailed),
                _ => failure(Reason::Cancelled),
            };
            // Another may have been faster.
            finish(&pool, id, &outcome).await;
        }
        if dice.below(8) == 0 {
            let of = attempt(
                &format!("tenant-{}", dice.below(TENANTS as u64)),
                &format!("wall-{}", dice.below(BUILDS as u64)),
            );
            enqueue(&pool, &next_run(&of)).await.expect("a run can be queued");
        }
        let left: i64 = sqlx::query_scalar(
            "select count(*) from builds b join tenants t on t.id = b.tenant_id
             where b.status = 'in_progress' or (b.status = 'queued' and t.name <> 'tenant-7')",
        )
        .fetch_one(&pool)
        .await?;
        if left == 0 {
            return Ok(());
        }
    }
}

/// As a list that is newer than any before.
async fn declare(pool: &PgPool, declared: &[Policy]) {
    static VERSION: AtomicI64 = AtomicI64::new(1);
    let version = VERSION.fetch_add(1, Ordering::Relaxed);
    assert!(policies::declare(pool, declared, version).await.expect("policies can be declared"));
}

#[sqlx::test(migrations = "./migrations")]
async fn no_limit_is_exceeded_at_any_commit_with_four_operators(pool: PgPool) -> sqlx::Result<()> {
    let seed = 0x9e37_79b9_7f4a_7c15;
    set_up(&pool, &mut Dice(seed)).await?;
    let claims = Arc::new(AtomicUsize::new(0));
    let mut operators = JoinSet::new();
    for operator in 1..=OPERATORS {
        operators.spawn(operate(pool.clone(), Dice(seed ^ operator), claims.clone()));
    }
    for ended in operators.join_all().await {
        ended?;
    }

    // The end of a build wakes a claim, which also counts anew.
    assert_eq!(claim(&pool).await.expect("a claim succeeds"), Vec::<Uuid>::new());

    assert_eq!(broken_histories(&pool).await, Vec::<String>::new());
    let (starts, idle, of_the_stopped): (i64, i64, i64) = sqlx::query_as(
        "select (select count(*) from build_status_history where to_status = 'in_progress'),
                (select sum(current_builds_count) from build_workers)::bigint,
                (select count(*) from builds b join tenants t on t.id = b.tenant_id
                 where t.name = 'tenant-7' and b.status in ('success', 'failed'))",
    )
    .fetch_one(&pool)
    .await?;
    let claims = claims.load(Ordering::Relaxed);
    assert_eq!(usize::try_from(starts), Ok(claims), "each claim was given to one operator, once");
    assert!(claims >= (TENANTS - 1) * BUILDS, "everything that may run has run: {claims}");
    assert_eq!((idle, of_the_stopped), (0, 0));
    // The test is worth something only where limits were reached.
    let (tenants, workers): (i64, i64) = sqlx::query_as(
        "select count(*) filter (where place like 'tenant %'), count(*) filter (where place like 'worker %')
         from peaks where running = most",
    )
    .fetch_one(&pool)
    .await?;
    assert!(tenants >= 3 && workers >= 1, "{tenants} tenants and {workers} workers were at their limit");
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn a_claim_is_later_than_the_end_that_made_its_room(pool: PgPool) -> sqlx::Result<()> {
    limits(&pool, 1, 1).await;
    let first = queued(&pool, &attempt("green", "wall")).await;
    claim(&pool).await.expect("it can be claimed");
    queued(&pool, &attempt("green", "door")).await;

    // Another operator holds the lock; this claim's transaction has begun and waits.
    let mut other = pool.begin().await?;
    sqlx::query("select pg_advisory_xact_lock(hashtextextended('image-factory claim', 0))")
        .execute(&mut *other)
        .await?;
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { claim(&pool).await }
    });
    loop {
        let waits: bool =
            sqlx::query_scalar("select exists (select from pg_locks where locktype = 'advisory' and not granted)")
                .fetch_one(&mut *other)
                .await?;
        if waits {
            break;
        }
    }
    assert!(finish(&pool, first, &success("registry.test/green/wall:1")).await);
    other.rollback().await?;
    assert_eq!(waiting.await.expect("no panic").expect("no error").len(), 1);
    let in_order: bool = sqlx::query_scalar(
        "select (select started_at from builds where resource_name = 'door') >= (select completed_at from builds where resource_name = 'wall')",
    )
    .fetch_one(&pool)
    .await?;
    assert!(in_order);
    assert_eq!(broken_histories(&pool).await, Vec::<String>::new());
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn a_policy_that_is_taken_back_leaves_the_operators_default(pool: PgPool) -> sqlx::Result<()> {
    limits(&pool, 10, 2).await;
    for build in 0..4 {
        queued(&pool, &attempt("green", &format!("wall-{build}"))).await;
    }
    let policy = |most| Policy {
        tenant_uid: "uid-green".to_owned(),
        tenant_name: "green".to_owned(),
        max_concurrent_builds: Some(most),
        weight: 1,
        ..Policy::default()
    };
    declare(&pool, &[policy(1)]).await;
    assert_eq!(claim(&pool).await.expect("no error").len(), 1);
    declare(&pool, &[policy(3)]).await;
    assert_eq!(claim(&pool).await.expect("no error").len(), 2, "two more under a limit of three");
    declare(&pool, &[]).await;
    assert_eq!(claim(&pool).await.expect("no error").len(), 0, "three already run where two may");
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn policies_that_were_read_earlier_replace_none_that_were_read_later(pool: PgPool) {
    let policy = Policy { tenant_uid: "u".to_owned(), tenant_name: "green".to_owned(), weight: 1, ..Policy::default() };
    let declare =
        async |policies: &[Policy], version| policies::declare(&pool, policies, version).await.expect("no error");
    assert!(declare(&[], 7).await);
    assert!(declare(std::slice::from_ref(&policy), 8).await);
    assert!(!declare(&[], 7).await, "an operator that was paused after it read them");
    let kept: i64 = sqlx::query_scalar("select count(*) from build_concurrency_policies")
        .fetch_one(&pool)
        .await
        .expect("rows can be read");
    assert_eq!(kept, 1);
    assert!(declare(&[], 8).await, "the same list may be read again");
}
