//! Where log lines are kept: a partition per week of the time inside the build's id.

use sqlx::PgPool;

use super::rows::{queued, refused_by, two_tenants};

const ENSURE: &str = "select ensure_build_log_partitions($1::date, $2::date)";

async fn ensure(pool: &PgPool, first: &str, last: &str) -> sqlx::Result<i32> {
    sqlx::query_scalar(ENSURE).bind(first).bind(last).fetch_one(pool).await
}

/// Stores one line of a new build whose id was made at `instant`, and tells the partition it went to.
async fn line_goes_to(pool: &PgPool, instant: &str) -> sqlx::Result<String> {
    queued(pool, "green", instant, 0, 0).await?;
    sqlx::query("delete from build_configs where build_id = md5('green/' || $1)::uuid")
        .bind(instant)
        .execute(pool)
        .await?;
    sqlx::query("update builds set id = uuid_v7_floor($1::timestamptz) where id = md5('green/' || $1)::uuid")
        .bind(instant)
        .execute(pool)
        .await?;
    sqlx::query_scalar(
        "insert into build_logs (id, build_id, line_number, log_content, log_level, logged_at)
         values (gen_random_uuid(), uuid_v7_floor($1::timestamptz), 1, 'hello', 'INFO', $1::timestamptz) returning tableoid::regclass::text",
    )
    .bind(instant)
    .fetch_one(pool)
    .await
}

#[sqlx::test(migrations = "./migrations")]
async fn making_partitions_again_makes_none(pool: PgPool) -> sqlx::Result<()> {
    assert_eq!(ensure(&pool, "2031-01-08", "2031-01-21").await?, 3, "the weeks from the 6th, the 13th and the 20th");
    assert_eq!(ensure(&pool, "2031-01-08", "2031-01-21").await?, 0);
    assert_eq!(ensure(&pool, "2031-01-06", "2031-01-27").await?, 1, "only the week from the 27th was missing");
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn operators_that_start_together_make_each_partition_once(pool: PgPool) -> sqlx::Result<()> {
    let (first, last) = ("2031-01-06", "2031-03-03");
    let (a, b, c) = tokio::join!(ensure(&pool, first, last), ensure(&pool, first, last), ensure(&pool, first, last));
    assert_eq!(a? + b? + c?, 9);
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn a_line_goes_to_the_week_of_its_builds_id(pool: PgPool) -> sqlx::Result<()> {
    two_tenants(&pool).await?;
    ensure(&pool, "2031-01-06", "2031-01-13").await?;
    for (instant, partition) in [
        ("2031-01-05T23:59:59.999Z", "build_logs_default"),
        ("2031-01-06T00:00:00.000Z", "build_logs_2031_01_06"),
        ("2031-01-12T23:59:59.999Z", "build_logs_2031_01_06"),
        ("2031-01-13T00:00:00.000Z", "build_logs_2031_01_13"),
        ("2031-01-20T00:00:00.000Z", "build_logs_default"),
    ] {
        assert_eq!(line_goes_to(&pool, instant).await?, partition, "{instant}");
    }
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn the_migration_itself_makes_the_partition_of_today(pool: PgPool) -> sqlx::Result<()> {
    two_tenants(&pool).await?;
    let now: String = sqlx::query_scalar("select now()::text").fetch_one(&pool).await?;
    assert_ne!(line_goes_to(&pool, &now).await?, "build_logs_default");
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn a_week_that_came_too_late_is_left_in_the_default_partition(pool: PgPool) -> sqlx::Result<()> {
    two_tenants(&pool).await?;
    assert_eq!(line_goes_to(&pool, "2031-01-15T12:00Z").await?, "build_logs_default");
    assert_eq!(ensure(&pool, "2031-01-06", "2031-01-20").await?, 2, "all but the week from the 13th");
    assert_eq!(line_goes_to(&pool, "2031-01-16T12:00Z").await?, "build_logs_default");
    let lines: i64 = sqlx::query_scalar("select count(*) from build_logs").fetch_one(&pool).await?;
    assert_eq!(lines, 2);
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn a_partition_keeps_the_rules_of_the_table(pool: PgPool) -> sqlx::Result<()> {
    two_tenants(&pool).await?;
    ensure(&pool, "2031-01-06", "2031-01-06").await?;
    line_goes_to(&pool, "2031-01-07T00:00Z").await?;
    let insert = "insert into build_logs (id, build_id, line_number, log_content, log_level, logged_at)
                  values (gen_random_uuid(), uuid_v7_floor($1::timestamptz), $2, 'hello', $3, now())";
    let cases = [
        ("2031-01-07T00:00Z", 1_i64, "INFO", "build_logs_2031_01_06_pkey"),
        ("2031-01-07T00:00Z", 0, "INFO", "build_logs_line_number_check"),
        ("2031-01-07T00:00Z", 2, "info", "build_logs_log_level_check"),
    ];
    for (instant, line, level, constraint) in cases {
        let outcome = sqlx::query(insert).bind(instant).bind(line).bind(level).execute(&pool).await;
        assert_eq!(refused_by(outcome, insert), constraint);
    }
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn a_week_of_logs_is_dropped_once_it_is_over_and_all_its_builds_have_ended(pool: PgPool) -> sqlx::Result<()> {
    two_tenants(&pool).await?;
    ensure(&pool, "2020-01-06", "2020-01-27").await?;
    for day in ["2020-01-07T00:00Z", "2020-01-14T00:00Z", "2020-01-21T00:00Z"] {
        line_goes_to(&pool, day).await?;
    }
    sqlx::raw_sql(
        "insert into build_log_cursors (build_id, container, line_number, finished)
             select build_id, 'build', 1, true from build_logs;
         update builds set status = 'cancelled', completed_at = now() where id < uuid_v7_floor('2020-01-20T00:00Z');",
    )
    .execute(&pool)
    .await?;
    let drop = async |before: &str| -> sqlx::Result<i32> {
        sqlx::query_scalar("select drop_build_logs($1::date)").bind(before).fetch_one(&pool).await
    };
    let stored = async || -> sqlx::Result<Vec<i64>> {
        sqlx::query_scalar(
            "select c.line_number from builds b join build_log_cursors c on c.build_id = b.id
             left join build_logs l on l.build_id = b.id where coalesce(l.line_number, 0) = c.line_number order by b.id",
        )
        .fetch_all(&pool)
        .await
    };
    assert_eq!(drop("2020-01-12").await?, 0, "its last day is not over");
    assert_eq!(drop("2020-01-13").await?, 1);
    assert_eq!(drop("2020-01-13").await?, 0);
    assert_eq!(stored().await?, [0, 1, 1], "the cursors say what is stored");
    let dropped = [drop("2021-01-01").await?, drop("2021-01-01").await?, drop("2021-01-01").await?];
    assert_eq!(dropped, [1, 1, 0], "that of the 13th and the empty one, a week a call, not that of a build that waits");
    assert_eq!(stored().await?, [0, 0, 1]);
    assert_eq!(ensure(&pool, "2020-01-06", "2020-01-06").await?, 1, "it could be made again");
    Ok(())
}
