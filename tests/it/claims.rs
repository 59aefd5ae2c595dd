//! A model of many operators at one queue: they claim, finish and queue again at random while policies change, and at
//! every commit the database itself counts what runs. A limit exceeded for a moment fails the test.

mod order;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
};

use image_factory::{
    clock,
    db::{
        builds::enqueue,
        policies::{self, Policy},
        queue::claim,
    },
};
use image_factory_core::{method::Method, placement::Placement, reason::Reason};
use sqlx::{PgConnection, PgPool};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::attempts::{attempt, broken_histories, failure, finish, limits, next_run, policy, queued, success};

const TENANTS: u64 = 100;
/// Most tenants have few.
const BUILDS: [u64; 4] = [1, 2, 3, 6];
const OPERATORS: u64 = 4;
/// How often the policies change while they work.
const CHANGES: usize = 25;
const DEFAULT_LIMIT: i32 = 2;
const METHODS: [Method; 5] = [Method::Kaniko, Method::Buildx, Method::Container, Method::Packer, Method::Paketo];
/// May run nothing at all, whatever changes; the others don't mind.
const STOPPED: &str = "tenant-7";

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

    /// From `least` on, `sides` numbers.
    fn number(&mut self, least: i32, sides: u64) -> i32 {
        least + i32::try_from(self.below(sides)).expect("a small number")
    }

    /// `true` once in so many.
    fn once_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }
}

/// Counts at every commit that starts builds, for each that starts, all that counts towards one of its limits as they
/// are now: a limit that was lowered is exceeded by what runs already, but nothing more may start. Commits take turns
/// from here on, so that each sees all before it: two that would together exceed a limit can't pass by not seeing each
/// other.
const WATCHDOG: &str = "
    create table reached (place text primary key);
    create function watch_limits() returns trigger language plpgsql as $$
    declare
        broken text;
    begin
        perform pg_advisory_xact_lock(20071124);
        with places (place, running, most) as (
            select 'tenant ' || new.tenant_id, count(*), min(coalesce(p.max_concurrent_builds, s.max_concurrent_builds))
            from builds b
            cross join operator_settings s
            left join build_concurrency_policies p on p.tenant_id = b.tenant_id
            where b.status = 'in_progress' and b.tenant_id = new.tenant_id
            union all
            select 'project ' || new.project_id, count(*), min(p.max_concurrent_per_project)
            from builds b left join build_concurrency_policies p on p.tenant_id = b.tenant_id
            where b.status = 'in_progress' and b.project_id = new.project_id
            union all
            select new.build_method || ' ' || new.tenant_id, count(*), min(case new.build_method
                when 'kaniko' then p.kaniko_max_concurrent
                when 'buildx' then p.buildx_max_concurrent
                when 'container' then p.container_max_concurrent
                when 'packer' then p.packer_max_concurrent
                when 'paketo' then p.paketo_max_concurrent
            end)
            from builds b left join build_concurrency_policies p on p.tenant_id = b.tenant_id
            where b.status = 'in_progress' and b.tenant_id = new.tenant_id and b.build_method = new.build_method
            union all
            select 'worker ' || new.worker_id, count(*), min(w.concurrent_builds_limit)
            from builds b join build_workers w on w.id = b.worker_id
            where b.status = 'in_progress' and b.worker_id = new.worker_id
            union all
            select 'Build ' || new.resource_uid, count(*), 1
            from builds b
            where b.status = 'in_progress' and b.resource_uid = new.resource_uid
        ),
        full_now as (
            insert into reached select place from places where running = most on conflict do nothing
        )
        select string_agg(what, '; ') into broken from (
            select format('%s runs %s of %s', place, running, most) as what from places where running > most
            union all
            select format('a worker of tenant %s runs a build of %s', w.tenant_id, new.tenant_id)
            from build_workers w
            where w.id = new.worker_id and w.tenant_id <> new.tenant_id
            union all
            select format('worker %s runs a build of %s that asks for %s', w.worker_name, new.build_method, new.placement)
            from build_workers w
            where w.id = new.worker_id
              and (new.placement ->> 'zone' <> w.zone or w.methods <> '{}' and new.build_method <> all (w.methods))
        ) found;
        if broken is not null then
            raise exception '%', broken;
        end if;
        return null;
    end
    $$;
    create constraint trigger watch_limits after update on builds deferrable initially deferred
        for each row when (new.status = 'in_progress' and old.status = 'queued') execute function watch_limits();";

fn builds_of(tenant: u64) -> u64 {
    BUILDS.into_iter().cycle().nth(usize::try_from(tenant).expect("few")).expect("it never ends")
}

/// A hundred tenants with their builds; some have limits of their own, some a worker of their own.
async fn set_up(pool: &PgPool, dice: &mut Dice) -> sqlx::Result<()> {
    sqlx::raw_sql("truncate tenants, build_workers cascade").execute(pool).await?;
    limits(pool, 25, DEFAULT_LIMIT).await;
    for tenant in 0..TENANTS {
        for build in 0..builds_of(tenant) {
            let mut wall = attempt(&format!("tenant-{tenant}"), &format!("wall-{build}"));
            wall.project = format!("paint-{}", dice.below(2));
            wall.priority = dice.number(0, 5);
            let method = METHODS.get(usize::try_from(dice.below(5)).expect("a small number"));
            wall.config.method = *method.expect("there are five");
            wall.config.dockerfile.take_if(|_| matches!(wall.config.method, Method::Packer | Method::Paketo));
            wall.placement =
                dice.once_in(4).then(|| Placement { zone: Some("near".to_owned()), ..Placement::default() });
            queued(pool, &wall).await;
        }
    }
    declare(pool, &some_policies(dice)).await;
    sqlx::raw_sql(
        "insert into build_workers (id, tenant_id, worker_name, worker_type, concurrent_builds_limit, status, declared, zone)
         select gen_random_uuid(), id, 'own', 'kubernetes', 1, 'healthy', true, 'near' from tenants where name in ('tenant-1', 'tenant-2');
         insert into build_workers (id, tenant_id, worker_name, worker_type, concurrent_builds_limit, status, declared)
         select gen_random_uuid(), id, 'away', 'kubernetes', 5, 'offline', true from tenants where name = 'tenant-1';
         insert into build_workers (id, worker_name, worker_type, concurrent_builds_limit, status, declared, zone)
         values (gen_random_uuid(), 'near', 'kubernetes', 8, 'healthy', true, 'near');
         insert into build_workers (id, worker_name, worker_type, concurrent_builds_limit, status, declared, methods)
         values (gen_random_uuid(), 'kaniko', 'kubernetes', 6, 'healthy', true, '{kaniko}'),
                (gen_random_uuid(), 'others', 'kubernetes', 40, 'healthy', true, '{buildx,container,packer,paketo}');",
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Of two tenants in three, with limits of every kind. All but one may run something.
fn some_policies(dice: &mut Dice) -> Vec<Policy> {
    let mut found = vec![Policy { max_concurrent_builds: Some(0), ..policy(STOPPED) }];
    for tenant in (0..TENANTS).map(|tenant| format!("tenant-{tenant}")).filter(|tenant| tenant != STOPPED) {
        if dice.once_in(3) {
            continue;
        }
        let mut max_concurrent_by_method = BTreeMap::new();
        for method in METHODS {
            if dice.once_in(2) {
                max_concurrent_by_method.insert(method, dice.number(1, 2));
            }
        }
        found.push(Policy {
            max_concurrent_builds: (!dice.once_in(4)).then(|| dice.number(1, 4)),
            max_concurrent_per_project: dice.once_in(2).then(|| dice.number(1, 2)),
            max_concurrent_by_method,
            weight: dice.number(1, 3),
            priority_dispatch: dice.once_in(2),
            ..policy(&tenant)
        });
    }
    found
}

/// One operator: claims, and ends or replaces something that runs, until nothing is left that may run.
async fn operate(pool: PgPool, mut dice: Dice, claims: Arc<AtomicUsize>) -> sqlx::Result<()> {
    loop {
        let claimed = claim(&pool).await.expect("a claim succeeds");
        claims.fetch_add(claimed.len(), Ordering::Relaxed);
        let running: Vec<Uuid> = sqlx::query_scalar(
            "select id from builds where status = 'in_progress' order by md5(id::text || $1) limit $2",
        )
        .bind(dice.below(1_000_000).to_string())
        .bind(dice.number(0, 20))
        .fetch_all(&pool)
        .await?;
        for id in running {
            let outcome = match dice.below(3) {
                0 => success("registry.test/a/b:1"),
                1 => failure(Reason::BuildFailed),
                _ => failure(Reason::Cancelled),
            };
            // Another may have been faster.
            finish(&pool, id, &outcome).await;
        }
        if dice.once_in(3) {
            let tenant = dice.below(TENANTS);
            let of = attempt(&format!("tenant-{tenant}"), &format!("wall-{}", dice.below(builds_of(tenant))));
            enqueue(&pool, &next_run(&of)).await.expect("a run can be queued");
        }
        let left: i64 = sqlx::query_scalar(
            "select count(*) from builds b join tenants t on t.id = b.tenant_id
             where b.status = 'in_progress' or (b.status = 'queued' and t.name <> $1)",
        )
        .bind(STOPPED)
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

/// Everything from one seed; the last words of a failure tell it.
async fn no_limit_is_exceeded_from(seed: u64, pool: &PgPool) -> sqlx::Result<()> {
    eprintln!("seed {seed:#x}");
    set_up(pool, &mut Dice(seed)).await?;
    let claims = Arc::new(AtomicUsize::new(0));
    let mut operators = JoinSet::new();
    for operator in 1..=OPERATORS {
        operators.spawn(operate(pool.clone(), Dice(seed ^ operator), claims.clone()));
    }
    let mut dice = Dice(seed ^ (OPERATORS + 1));
    for _ in 0..CHANGES {
        declare(pool, &some_policies(&mut dice)).await;
    }
    for ended in operators.join_all().await {
        ended?;
    }

    // The end of a build wakes a claim, which also counts anew.
    assert_eq!(claim(pool).await.expect("a claim succeeds"), Vec::<Uuid>::new());

    assert_eq!(broken_histories(pool).await, Vec::<String>::new());
    let (starts, idle, of_the_stopped): (i64, i64, i64) = sqlx::query_as(
        "select (select count(*) from build_status_history where to_status = 'in_progress'),
                (select sum(current_builds_count) from build_workers)::bigint,
                (select count(*) from builds b join tenants t on t.id = b.tenant_id
                 where t.name = $1 and b.started_at is not null)",
    )
    .bind(STOPPED)
    .fetch_one(pool)
    .await?;
    let claims = claims.load(Ordering::Relaxed);
    assert_eq!(usize::try_from(starts), Ok(claims), "each claim was given to one operator, once");
    let superseded: i64 =
        sqlx::query_scalar("select count(*) from builds where run = 1 and started_at is null").fetch_one(pool).await?;
    let all = i64::try_from((0..TENANTS).map(builds_of).sum::<u64>()).expect("few");
    assert!(starts >= all - superseded, "everything that may run has run: {starts} of {all}, {superseded} have not");
    assert_eq!((idle, of_the_stopped), (0, 0));
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn no_limit_is_exceeded_at_any_commit_with_four_operators(pool: PgPool) -> sqlx::Result<()> {
    // First of all, since it says how connections are opened.
    limits(&pool, 1, 1).await;
    sqlx::raw_sql(WATCHDOG).execute(&pool).await?;
    let (_, of_this_run) = clock::new_id().as_u64_pair();
    for seed in [0x9e37_79b9_7f4a_7c15, 0x2545_f491_4f6c_dd1d, of_this_run] {
        no_limit_is_exceeded_from(seed, &pool).await?;
    }
    // The test is worth something only where limits of every kind were reached.
    let reached: Vec<String> = sqlx::query_scalar("select distinct split_part(place, ' ', 1) from reached order by 1")
        .fetch_all(&pool)
        .await?;
    let kinds = ["Build", "buildx", "container", "kaniko", "packer", "paketo", "project", "tenant", "worker"];
    assert_eq!(reached, kinds);
    Ok(())
}

/// Whether someone in this database waits for a turn.
async fn somebody_waits(conn: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar(
        "select exists (select from pg_locks where locktype = 'advisory' and not granted
             and database = (select oid from pg_database where datname = current_database()))",
    )
    .fetch_one(conn)
    .await
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
    while !somebody_waits(&mut other).await? {}
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
    let policy = |most| Policy { max_concurrent_builds: Some(most), ..policy("green") };
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

#[sqlx::test(migrations = "./migrations")]
async fn a_policy_waits_for_the_claim_that_goes_by_the_one_before(pool: PgPool) -> sqlx::Result<()> {
    limits(&pool, 10, 2).await;
    let mut claiming = pool.begin().await?;
    sqlx::query("select pg_advisory_xact_lock(hashtextextended('image-factory claim', 0))")
        .execute(&mut *claiming)
        .await?;
    let declared = tokio::spawn({
        let pool = pool.clone();
        async move { declare(&pool, &[]).await }
    });
    while !somebody_waits(&mut claiming).await? {
        assert!(!declared.is_finished(), "it has not waited");
    }
    claiming.rollback().await?;
    declared.await.expect("no panic");
    Ok(())
}
