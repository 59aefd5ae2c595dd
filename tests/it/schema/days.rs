//! The days' numbers against a plain computation of the same over every build, whatever order they end and commit in.

use std::collections::BTreeMap;

use image_factory::db::rollup;
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use sqlx::{PgPool, Postgres};
use uuid::Uuid;

use super::rows::two_tenants;

const TENANTS: [&str; 2] = ["green", "amber"];
const METHODS: [&str; 5] = ["kaniko", "buildx", "container", "packer", "paketo"];
const DAY: i64 = 86_400_000;
const DAYS: i64 = 3;

/// Times are milliseconds since the midnight before yesterday.
#[derive(Clone, Debug)]
struct Run {
    tenant: usize,
    method: usize,
    queued: i64,
    started: Option<i64>,
    /// When it ended, as what, and why.
    ended: Option<(i64, &'static str, Option<&'static str>)>,
}

fn run() -> impl Strategy<Value = Run> {
    let wait = prop_oneof![Just(0), Just(500), 0..5_000_000i64];
    // Some of them shorter than the clock can tell, some over two midnights.
    let length = prop_oneof![2 => Just(0), 6 => 0..4_000_000i64, 1 => 0..2 * DAY];
    let status = prop_oneof![
        Just(("success", None)),
        prop::sample::select(vec!["BuildFailed", "OutOfMemory", "TimedOut"])
            .prop_map(|reason| ("failed", Some(reason))),
        Just(("cancelled", Some("Cancelled"))),
    ];
    (0..2usize, 0..5usize, 0..DAYS * DAY, wait, length, status, any::<bool>()).prop_map(
        |(tenant, method, queued, wait, length, (status, reason), short)| {
            let queued = if short { queued / DAY * DAY + queued % 3_600_000 } else { queued };
            let unclaimed = status != "success" && length % 5 == 1;
            let started = queued + wait;
            let ended = started + length;
            Run {
                tenant,
                method,
                queued,
                started: (!unclaimed).then_some(started),
                ended: Some((ended, status, reason)),
            }
        },
    )
}

fn sample(runner: &mut TestRunner, count: usize) -> Vec<Run> {
    prop::collection::vec(run(), count).new_tree(runner).expect("runs can be made").current()
}

/// Writes a run as it is: waiting for nothing, running, or ended.
async fn write(executor: impl sqlx::Executor<'_, Database = Postgres>, number: usize, run: &Run) -> sqlx::Result<()> {
    let status = run.ended.map_or("in_progress", |(_, status, _)| status);
    sqlx::query(
        "with clock as (select (date_trunc('day', now(), 'UTC') - interval '2 days') as midnight, md5('run' || $1::text)::uuid as id),
         written as (
             insert into builds (id, tenant_id, project_id, build_number, status, queued_at, started_at, completed_at, worker_id,
                 resource_namespace, resource_name, resource_uid, run, attempt, inputs_hash, observed_generation, build_method)
             select id, md5($2)::uuid, md5($2)::uuid, $1, $4, midnight + make_interval(secs => $5), midnight + make_interval(secs => $6),
                 midnight + make_interval(secs => $7), md5('everyone')::uuid, $2, 'b', 'uid' || $1::text, 1, 1, 'h', 1, $3 from clock
             on conflict (id) do update set status = excluded.status, completed_at = excluded.completed_at
         ),
         configured as (insert into build_configs (id, build_id, build_method, spec) select id, id, $3, '{}' from clock on conflict do nothing)
         insert into build_results (id, build_id, project_id, status, failure_reason, total_duration_milliseconds, queue_wait_milliseconds)
         select id, id, md5($2)::uuid, case $8 when 'TimedOut' then 'timeout' else $4 end, $8, 1, ((coalesce($6, $7) - $5) * 1000)::bigint
         from clock where $7 is not null",
    )
    .bind(i32::try_from(number + 1).expect("a small number"))
    .bind(TENANTS[run.tenant])
    .bind(METHODS[run.method])
    .bind(status)
    .bind(seconds(run.queued))
    .bind(run.started.map(seconds))
    .bind(run.ended.map(|(at, ..)| seconds(at)))
    .bind(run.ended.and_then(|(.., reason)| reason))
    .execute(executor)
    .await?;
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a few days in milliseconds are exact")]
fn seconds(milliseconds: i64) -> f64 {
    milliseconds as f64 / 1000.0
}

#[derive(Clone, Debug, Default, PartialEq, Eq, sqlx::FromRow)]
struct Numbers {
    total_builds: i32,
    successful: i32,
    failed: i32,
    cancelled: i32,
    average_duration_seconds: Option<i32>,
    median_queue_wait_seconds: Option<i32>,
    failure_rate_hundredths: Option<i32>,
    most_common_failure: Option<String>,
    methods: Vec<i32>,
    max_concurrent_at_peak: i32,
}

type Table = BTreeMap<(String, i32), Numbers>;

async fn stored(pool: &PgPool) -> sqlx::Result<Table> {
    #[derive(sqlx::FromRow)]
    struct Row {
        tenant: String,
        day: i32,
        #[sqlx(flatten)]
        numbers: Numbers,
    }
    let rows: Vec<Row> = sqlx::query_as(
        "select t.name as tenant, d.date - (now() at time zone 'UTC')::date + 2 as day, d.*,
                (d.failure_rate_percent * 100)::int as failure_rate_hundredths,
                array[kaniko_count, buildx_count, container_count, packer_count, paketo_count] as methods
         from build_performance_daily d join tenants t on t.id = d.tenant_id",
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|row| ((row.tenant, row.day), row.numbers)).collect())
}

/// The same by going through every build for every day, and at every start counting who runs.
fn expected(runs: &[Run]) -> Table {
    let mut table = Table::new();
    for (tenant, name) in TENANTS.iter().enumerate() {
        for day in 0..DAYS + 4 {
            let (begins, ends) = (day * DAY, (day + 1) * DAY);
            let mine: Vec<&Run> = runs.iter().filter(|run| run.tenant == tenant).collect();
            let ended: Vec<&Run> = mine
                .iter()
                .copied()
                .filter(|run| run.ended.is_some_and(|(at, ..)| (begins..ends).contains(&at)))
                .collect();
            let touched = |run: &&&Run| {
                let end = run.ended.map_or(i64::MAX, |(at, ..)| at);
                (begins..ends).contains(&end) || run.started.is_some_and(|start| start < ends && end >= begins)
            };
            if mine.iter().any(|run| touched(&run)) {
                let day_number = i32::try_from(day).expect("a small number");
                table.insert(((*name).to_owned(), day_number), numbers(&mine, &ended, begins, ends));
            }
        }
    }
    table
}

fn numbers(mine: &[&Run], ended: &[&Run], begins: i64, ends: i64) -> Numbers {
    let count = |test: &dyn Fn(&Run) -> bool| i32::try_from(ended.iter().filter(|run| test(run)).count()).expect("few");
    let of = |status: &str| count(&|run| run.ended.is_some_and(|(_, is, _)| is == status));
    let (successful, failed) = (of("success"), of("failed"));
    let lengths: Vec<i64> = ended.iter().filter_map(|run| Some(run.ended?.0 - run.started?)).collect();
    let mut waits: Vec<i64> = ended.iter().filter_map(|run| Some(run.started? - run.queued)).collect();
    waits.sort_unstable();
    let doubled_median = (!waits.is_empty()).then(|| waits[(waits.len() - 1) / 2] + waits[waits.len() / 2]);
    let mut failures: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, status, reason) in ended.iter().filter_map(|run| run.ended) {
        if status == "failed" {
            *failures.entry(reason.expect("a failure has a reason")).or_default() += 1;
        }
    }
    let most = failures.values().max();
    let intervals: Vec<(i64, i64)> = mine
        .iter()
        .filter_map(|run| Some((run.started?.max(begins), run.ended.map_or(ends, |(at, ..)| at).min(ends))))
        .collect();
    let at = |moment: i64| intervals.iter().filter(|(from, to)| (*from..*to).contains(&moment)).count();
    let peak = intervals.iter().map(|(from, _)| at(*from)).max().unwrap_or(0);
    let int = |value: i64| i32::try_from(value).expect("a small number");
    let number = int(i64::try_from(lengths.len()).expect("few"));
    Numbers {
        total_builds: int(i64::try_from(ended.len()).expect("few")),
        successful,
        failed,
        cancelled: of("cancelled"),
        average_duration_seconds: (number > 0).then(|| {
            let number = i64::from(number);
            int((2 * lengths.iter().sum::<i64>() + 1000 * number) / (2000 * number))
        }),
        median_queue_wait_seconds: doubled_median.map(|doubled| int((doubled + 1000) / 2000)),
        failure_rate_hundredths: (successful + failed > 0)
            .then(|| (20_000 * failed + successful + failed) / (2 * (successful + failed))),
        most_common_failure: failures
            .iter()
            .find(|(_, count)| Some(*count) == most)
            .map(|(reason, _)| (*reason).to_owned()),
        methods: (0..5).map(|method| count(&|run| run.method == method)).collect(),
        max_concurrent_at_peak: i32::try_from(peak).expect("few"),
    }
}

async fn count_all(pool: &PgPool, limit: u16) {
    while rollup::count(pool, limit).await.expect("the days can be counted") > 0 {}
}

#[sqlx::test(migrations = "./migrations")]
async fn every_day_is_what_going_through_all_builds_would_give(pool: PgPool) -> sqlx::Result<()> {
    two_tenants(&pool).await?;
    let runs = sample(&mut TestRunner::deterministic(), 400);
    // In pieces, and in batches that end in the midst of a day: what a day was before must not show.
    for (number, run) in runs.iter().enumerate() {
        write(&pool, number, run).await?;
        if number % 40 == 7 {
            count_all(&pool, 9).await;
            assert_eq!(stored(&pool).await?, expected(&runs[..=number]), "after {number}");
        }
    }
    count_all(&pool, 9).await;
    assert_eq!(stored(&pool).await?, expected(&runs));
    let again = rollup::count(&pool, 1000).await.expect("no error");
    assert_eq!(again, 0, "what is counted is not counted again");
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn a_build_that_runs_counts_at_the_peak_of_today_before_it_ends(pool: PgPool) -> sqlx::Result<()> {
    two_tenants(&pool).await?;
    let mut runs = sample(&mut TestRunner::deterministic(), 120);
    let running: Vec<Run> = runs
        .iter()
        .map(|run| Run { started: Some(run.started.unwrap_or(run.queued)), ended: None, ..run.clone() })
        .collect();
    for (number, run) in running.iter().enumerate() {
        write(&pool, number, run).await?;
    }
    count_all(&pool, 100).await;
    let recent = |table: Table| table.into_iter().filter(|((_, day), _)| (1..=2).contains(day)).collect::<Table>();
    assert_eq!(recent(stored(&pool).await?), recent(expected(&running)));
    for (run, running) in runs.iter_mut().zip(&running) {
        run.started = running.started;
    }
    for (number, run) in runs.iter().enumerate() {
        write(&pool, number, run).await?;
    }
    count_all(&pool, 100).await;
    assert_eq!(stored(&pool).await?, expected(&runs));
    Ok(())
}

/// The days that the next turn would compute, by tenant, without those of builds that ended.
async fn days_to_raise(pool: &PgPool) -> sqlx::Result<Vec<(String, i32)>> {
    let stale = include_str!("../../../src/db/sql/rollup_stale.sql");
    let stale: Vec<(Option<Uuid>, Uuid, jiff_sqlx::Date, jiff_sqlx::Date)> =
        sqlx::query_as(stale).bind(1000_i64).fetch_all(pool).await?;
    let (tenants, days): (Vec<Uuid>, Vec<jiff_sqlx::Date>) =
        stale.into_iter().filter(|(build, ..)| build.is_none()).map(|(_, tenant, first, _)| (tenant, first)).unzip();
    sqlx::query_as(
        "select t.name, d.date - (now() at time zone 'UTC')::date + 2 from unnest($1::uuid[], $2::date[]) as d (id, date)
         join tenants t on t.id = d.id order by 1, 2",
    )
    .bind(tenants)
    .bind(days)
    .fetch_all(pool)
    .await
}

#[sqlx::test(migrations = "./migrations")]
async fn a_day_of_builds_that_run_is_computed_again_only_where_more_run_than_it_knows(
    pool: PgPool,
) -> sqlx::Result<()> {
    two_tenants(&pool).await?;
    let running =
        |tenant: usize, started: i64| Run { tenant, method: 0, queued: started, started: Some(started), ended: None };
    // One of green since the day before yesterday, one of amber since today.
    write(&pool, 0, &running(0, DAY / 2)).await?;
    write(&pool, 1, &running(1, 2 * DAY)).await?;
    let day = |tenant: &str, day: i32| (tenant.to_owned(), day);
    assert_eq!(days_to_raise(&pool).await?, [day("amber", 2), day("green", 1), day("green", 2)]);
    count_all(&pool, 10).await;
    assert_eq!(days_to_raise(&pool).await?, [], "nothing has begun since");

    write(&pool, 2, &running(0, 2 * DAY + 1)).await?;
    assert_eq!(days_to_raise(&pool).await?, [day("green", 2)], "yesterday is as it was");
    count_all(&pool, 10).await;
    assert_eq!(stored(&pool).await?[&day("green", 2)].max_concurrent_at_peak, 2);
    assert_eq!(days_to_raise(&pool).await?, []);

    // As many as before, so the peak stays.
    write(&pool, 0, &Run { ended: Some((2 * DAY + 5, "success", None)), ..running(0, DAY / 2) }).await?;
    count_all(&pool, 10).await;
    write(&pool, 3, &running(0, 2 * DAY + 9)).await?;
    assert_eq!(days_to_raise(&pool).await?, []);
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn a_build_whose_end_is_committed_late_is_counted_late(pool: PgPool) -> sqlx::Result<()> {
    two_tenants(&pool).await?;
    let runs = sample(&mut TestRunner::deterministic(), 2);
    let (early, late) = (Run { tenant: 0, ..runs[0].clone() }, Run { tenant: 0, ..runs[0].clone() });
    let mut open = pool.begin().await?;
    write(&mut *open, 0, &early).await?;
    write(&pool, 1, &late).await?;
    count_all(&pool, 10).await;
    assert_eq!(stored(&pool).await?, expected(std::slice::from_ref(&late)));
    open.commit().await?;
    count_all(&pool, 10).await;
    assert_eq!(stored(&pool).await?, expected(&[early, late]));
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn operators_that_count_at_once_lose_no_build(pool: PgPool) -> sqlx::Result<()> {
    two_tenants(&pool).await?;
    let runs = sample(&mut TestRunner::deterministic(), 200);
    let (odd, even): (Vec<_>, Vec<_>) = runs.iter().enumerate().partition(|(number, _)| number % 2 == 1);
    let writing = async |runs: Vec<(usize, &Run)>| {
        for (number, run) in runs {
            write(&pool, number, run).await.expect("it can be written");
        }
    };
    let counting = async || {
        for _ in 0..100 {
            rollup::count(&pool, 20).await.expect("the days can be counted");
        }
    };
    tokio::join!(writing(odd), writing(even), counting(), counting(), counting());
    count_all(&pool, 20).await;
    assert_eq!(stored(&pool).await?, expected(&runs));
    Ok(())
}

/// Four hundred days of fifty builds, all counted but the last hundred.
async fn long_history(pool: &PgPool) -> sqlx::Result<()> {
    two_tenants(pool).await?;
    sqlx::raw_sql(
        "insert into builds (id, tenant_id, project_id, build_number, status, queued_at, started_at, completed_at, worker_id,
             resource_namespace, resource_name, resource_uid, run, attempt, inputs_hash, observed_generation, build_method)
         select md5('b' || n)::uuid, md5('green')::uuid, md5('green')::uuid, n, 'success', at, at, at + interval '5 minutes',
             md5('everyone')::uuid, 'green', 'b', 'uid' || n, 1, 1, 'h', 1, 'container'
         from generate_series(1, 20000) n, lateral (select now() - make_interval(mins => 28 * n) as at) times;
         insert into build_configs (id, build_id, build_method, spec) select id, id, 'container', '{}' from builds;
         insert into build_results (id, build_id, project_id, status, total_duration_milliseconds, queue_wait_milliseconds, counted_at)
         select id, id, project_id, 'success', 1, 1, case when build_number > 100 then now() end from builds;",
    )
    .execute(pool)
    .await?;
    sqlx::raw_sql("analyze").execute(pool).await?;
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn counting_reads_the_days_that_changed_and_not_the_history(pool: PgPool) -> sqlx::Result<()> {
    long_history(&pool).await?;
    let stale = concat!("explain ", include_str!("../../../src/db/sql/rollup_stale.sql"));
    let stale: Vec<String> = sqlx::query_scalar(stale).bind(1000_i64).fetch_all(&pool).await?;
    let days = concat!("explain ", include_str!("../../../src/db/sql/rollup.sql"));
    let days: Vec<String> = sqlx::query_scalar(days)
        .bind(vec![Uuid::nil()])
        .bind(vec![Uuid::nil()])
        .bind(vec![jiff_sqlx::Date::from(jiff::civil::date(2031, 1, 1))])
        .fetch_all(&pool)
        .await?;
    for plan in [stale.join("\n"), days.join("\n")] {
        for table in ["builds", "build_results", "build_configs"] {
            assert!(!plan.contains(&format!("Seq Scan on {table}")), "{plan}");
        }
    }
    let days = days.join("\n");
    for index in ["builds_ended_idx", "builds_over_midnight_idx", "builds_running_idx"] {
        assert!(days.contains(index), "{index} is not used:\n{days}");
    }
    assert!(stale.join("\n").contains("build_results_to_count_idx"), "{}", stale.join("\n"));
    Ok(())
}
