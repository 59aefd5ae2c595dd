//! The views that answer what people ask, through the very queries of docs/database.md; and that every other query
//! there still runs.

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};

use super::rows::two_tenants;

const DOCS: &str = include_str!("../../../docs/database.md");

/// The queries of the page, each with its heading.
fn queries() -> Vec<(&'static str, &'static str)> {
    let sections = DOCS.split("\n### ").skip(1).chain(DOCS.split("\n## ").skip(1));
    sections
        .filter_map(|section| {
            let (heading, text) = section.split_once('\n')?;
            let (query, _) = text.split_once("```sql\n")?.1.split_once("```")?;
            Some((heading, query.trim().trim_end_matches(';')))
        })
        .filter(|(_, query)| query.starts_with("select"))
        .collect()
}

/// What the query under that heading gives.
async fn answer(pool: &PgPool, heading: &str) -> sqlx::Result<Value> {
    let found: Vec<&str> = queries().into_iter().filter(|(of, _)| *of == heading).map(|(_, query)| query).collect();
    assert_eq!(found.len(), 1, "docs/database.md has one query under {heading:?}");
    let query = format!("select coalesce(json_agg(row_to_json(q)), '[]') from ({}) q", found[0]);
    sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(pool).await
}

/// Builds of yesterday, as `tenant/Build minute → length in minutes`, each run after the one before.
async fn builds(pool: &PgPool) -> sqlx::Result<()> {
    two_tenants(pool).await?;
    sqlx::raw_sql(
        "create table told (tenant text, name text, run int, start int, minutes int, status text, stage text, reason text, method text);
         insert into told values
             ('green', 'bench', 1, 600, 2, 'success', null, null, 'buildx'),
             ('green', 'bench', 2, 610, 4, 'success', null, null, 'buildx'),
             ('green', 'bench', 3, 620, 9, 'success', null, null, 'buildx'),
             ('green', 'chair', 1, 630, 1, 'failed', 'build', 'BuildFailed', 'buildx'),
             ('green', 'chair', 2, 640, 1, 'failed', 'build', 'BuildFailed', 'buildx'),
             ('amber', 'table', 1, 650, 5, 'failed', 'push', 'PushDenied', 'kaniko'),
             ('amber', 'table', 2, 1430, 30, 'success', null, null, 'kaniko'),
             ('amber', 'stool', 1, 660, 1, 'cancelled', null, 'Cancelled', 'kaniko');
         insert into builds (id, tenant_id, project_id, build_number, status, queued_at, started_at, completed_at, worker_id, error_message,
             resource_namespace, resource_name, resource_uid, run, attempt, inputs_hash, observed_generation, build_method)
         select md5(name || run)::uuid, md5(tenant)::uuid, md5(tenant)::uuid, start, status, at - make_interval(secs => start / 100.0), at, at + make_interval(mins => minutes),
             md5('everyone')::uuid, case when status = 'failed' then name || ' broke' end, tenant, name, name, run, 1, 'h', 1, method
         from told, lateral (select date_trunc('day', now(), 'UTC') - interval '2 days' + make_interval(mins => start) as at) times;
         insert into build_configs (id, build_id, build_method, spec)
         select md5(name || run)::uuid, md5(name || run)::uuid, method, '{}' from told;
         insert into build_results (id, build_id, project_id, status, failure_stage, failure_reason, total_duration_milliseconds,
             queue_wait_milliseconds, build_execution_milliseconds)
         select md5(name || run)::uuid, md5(name || run)::uuid, md5(tenant)::uuid, status, stage, reason, 1, start * 10, minutes * 60000 from told;
         insert into build_steps (id, build_id, step_number, step_name, instruction_type, status, cached, duration_seconds, error_code, error_message)
         values (gen_random_uuid(), md5('bench3')::uuid, 1, 'RUN saw', 'RUN', 'success', true, 0, null, null),
                (gen_random_uuid(), md5('bench3')::uuid, 2, 'RUN glue', 'RUN', 'success', false, 400, null, null),
                (gen_random_uuid(), md5('bench3')::uuid, 3, 'COPY . .', 'COPY', 'success', false, 2, null, null),
                (gen_random_uuid(), md5('chair1')::uuid, 1, 'RUN saw', 'RUN', 'failed', false, 1, '2', 'it bent'),
                (gen_random_uuid(), md5('chair2')::uuid, 1, 'RUN saw', 'RUN', 'failed', false, 1, '2', 'it bent'),
                (gen_random_uuid(), md5('table1')::uuid, 1, 'RUN paint', 'RUN', 'success', false, 1, null, null);",
    )
    .execute(pool)
    .await?;
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn the_queue_alone_is_open_to_everyone_and_no_other_view_reads_with_its_owners_rights(
    pool: PgPool,
) -> sqlx::Result<()> {
    let open: Vec<String> = sqlx::query_scalar(
        "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p', 'v', 'm')
             and has_table_privilege('public', oid, 'select, insert, update, delete, truncate')",
    )
    .fetch_all(&pool)
    .await?;
    assert_eq!(open, ["build_queue"], "everyone reads");
    let owners: Vec<String> = sqlx::query_scalar(
        "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('v', 'm')
             and not coalesce('security_invoker=true' = any (reloptions), false)
         order by relname",
    )
    .fetch_all(&pool)
    .await?;
    assert_eq!(owners, ["build_queue", "waiting_builds"], "the queue and what it is made of");
    Ok(())
}

async fn day(pool: &PgPool, ago: i32) -> sqlx::Result<String> {
    sqlx::query_scalar("select ((now() at time zone 'UTC')::date - $1)::text").bind(ago).fetch_one(pool).await
}

#[sqlx::test(migrations = "./migrations")]
async fn every_query_of_the_documentation_runs(pool: PgPool) -> sqlx::Result<()> {
    builds(&pool).await?;
    let queries = queries();
    assert!(queries.len() > 12, "{queries:?}");
    for (heading, query) in queries {
        if let Err(error) = sqlx::raw_sql(AssertSqlSafe(query.to_owned())).fetch_all(&pool).await {
            unreachable!("{heading}: {error}\n{query}");
        }
    }
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn what_has_become_slow_stands_first_with_its_slowest_step(pool: PgPool) -> sqlx::Result<()> {
    builds(&pool).await?;
    let row = |name: &str, number: i32, minutes: i32, usual: Value, step: Value| {
        let (namespace, slowest, seconds, cached, steps) = if step.is_null() {
            (if name == "table" { "amber" } else { "green" }, Value::Null, Value::Null, 0, 0)
        } else {
            ("green", step, json!(400), 1, 3)
        };
        json!({"resource_namespace": namespace, "resource_name": name, "build_number": number,
            "build_execution_milliseconds": minutes * 60_000, "times_usual": usual, "slowest_step": slowest,
            "slowest_step_seconds": seconds, "cached_steps": cached, "steps": steps})
    };
    let mut found = answer(&pool, "What has become slow").await?;
    let first_runs = found.as_array_mut().expect("rows").split_off(2);
    // 9 minutes, where 2 and 4 were before; 4, where 2 was.
    assert_eq!(
        found,
        json!([row("bench", 620, 9, json!(3.0), json!("RUN glue")), row("bench", 610, 4, json!(2.0), Value::Null)])
    );
    for first in [row("bench", 600, 2, Value::Null, Value::Null), row("table", 1430, 30, Value::Null, Value::Null)] {
        assert!(first_runs.contains(&first), "{first} is not among {first_runs:#?}");
    }
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn failures_are_counted_by_stage_and_by_step(pool: PgPool) -> sqlx::Result<()> {
    builds(&pool).await?;
    let before = day(&pool, 2).await?;
    assert_eq!(
        answer(&pool, "Where builds fail").await?,
        json!([
            {"failure_stage": "build", "failure_reason": "BuildFailed", "builds": 2, "last": before},
            {"failure_stage": "push", "failure_reason": "PushDenied", "builds": 1, "last": before},
        ])
    );
    let last: (String, uuid::Uuid) =
        sqlx::query_as("select last_message, last_build_id from failing_stages where builds = 2")
            .fetch_one(&pool)
            .await?;
    let second: uuid::Uuid = sqlx::query_scalar("select md5('chair2')::uuid").fetch_one(&pool).await?;
    assert_eq!(last, ("chair broke".to_owned(), second));
    assert_eq!(
        answer(&pool, "Which steps fail").await?,
        json!([{"resource_namespace": "green", "resource_name": "chair", "step_name": "RUN saw", "builds": 2, "code": "2"}])
    );
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn waits_and_workers_are_told_by_the_day(pool: PgPool) -> sqlx::Result<()> {
    builds(&pool).await?;
    let (before, yesterday) = (day(&pool, 2).await?, day(&pool, 1).await?);
    let waits = |tenant: &str, method: &str, builds: i32, [median, p95, longest]: [i32; 3]| {
        json!({"tenant": tenant, "date": before, "build_method": method, "builds": builds, "median_milliseconds": median,
            "p95_milliseconds": p95, "longest_milliseconds": longest})
    };
    assert_eq!(
        answer(&pool, "How long builds wait").await?,
        json!([
            waits("amber", "kaniko", 3, [6_600, 14_300, 14_300]),
            waits("green", "buildx", 5, [6_200, 6_400, 6_400])
        ])
    );
    // Of the build over midnight 10 minutes belong to the first day, 20 to the second; ten builds may run at once.
    let worker = |date: &str, builds: i32, failed: i32, minutes: i32, percent: f64| {
        json!({"worker_name": "everyone", "date": date, "builds": builds, "failed": failed, "busy_seconds": minutes * 60,
            "use_percent": percent, "concurrent_builds_limit": 10})
    };
    assert_eq!(
        answer(&pool, "How busy workers are").await?,
        json!([worker(&before, 8, 3, 33, 0.23), worker(&yesterday, 1, 0, 20, 0.14)])
    );
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn a_running_build_uses_its_worker_up_to_now(pool: PgPool) -> sqlx::Result<()> {
    builds(&pool).await?;
    sqlx::query("update builds set status = 'in_progress', completed_at = null, started_at = now() - interval '90 seconds' where resource_name = 'stool'")
        .execute(&pool)
        .await?;
    let seconds: i64 = sqlx::query_scalar(
        "select sum(busy_seconds)::bigint from worker_use where date >= (now() at time zone 'UTC')::date - 1",
    )
    .fetch_one(&pool)
    .await?;
    assert!((20 * 60 + 90..20 * 60 + 120).contains(&seconds), "{seconds}");
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn the_days_of_each_tenant_are_there_once_counted(pool: PgPool) -> sqlx::Result<()> {
    builds(&pool).await?;
    image_factory::db::rollup::count(&pool, 100).await.expect("they can be counted");
    let (before, yesterday) = (day(&pool, 2).await?, day(&pool, 1).await?);
    assert_eq!(
        answer(&pool, "How the days went").await?,
        json!([
            {"tenant": "amber", "date": before, "total_builds": 2, "failure_rate_percent": 100.0, "most_common_failure": "PushDenied",
             "average_duration_seconds": 180, "median_queue_wait_seconds": 7, "max_concurrent_at_peak": 1},
            {"tenant": "green", "date": before, "total_builds": 5, "failure_rate_percent": 40.0, "most_common_failure": "BuildFailed",
             "average_duration_seconds": 204, "median_queue_wait_seconds": 6, "max_concurrent_at_peak": 1},
            {"tenant": "amber", "date": yesterday, "total_builds": 1, "failure_rate_percent": 0.0, "most_common_failure": null,
             "average_duration_seconds": 1800, "median_queue_wait_seconds": 14, "max_concurrent_at_peak": 1},
        ])
    );
    Ok(())
}

/// Two runs of `team-a/greeting`: the second has the base and another top layer, and an environment.
async fn greetings(pool: &PgPool) -> sqlx::Result<()> {
    builds(pool).await?;
    sqlx::raw_sql(
        "update tenants set name = 'team-a' where name = 'green';
         update builds set image_id = tenant_id;
         update builds set resource_namespace = 'team-a', resource_name = 'greeting' where resource_name = 'bench' and run < 3;
         insert into build_images (build_id, platform_number, platform, manifest_digest, config_digest, layer_count, layer_digests,
             layer_sizes_bytes, compressed_size_bytes, env_vars, cmd)
         values (md5('bench1')::uuid, 1, 'linux/amd64', 'm1', 'c1', 3, '{base,one,two}', '{100,20,3}', 123, null, '[\"hello\"]'),
                (md5('bench2')::uuid, 1, 'linux/amd64', 'm2', 'c2', 3, '{base,other,two}', '{100,50,3}', 153, '[\"A=b\"]', '[\"hello\"]'),
                (md5('bench2')::uuid, 2, 'linux/arm64', 'm3', 'c3', 1, '{base}', '{100}', 100, null, null),
                (md5('table2')::uuid, 1, 'linux/amd64', 'm4', 'c4', 1, '{base}', '{100}', 100, null, null);
         insert into layers (tenant_id, layer_digest, layer_size_bytes, used_in_builds_count, first_build_id, last_used_in_build_at)
         values (md5('green')::uuid, 'base', 100, 3, md5('bench1')::uuid, now()), (md5('green')::uuid, 'one', 20, 1, md5('bench1')::uuid, null),
                (md5('amber')::uuid, 'base', 100, 1, md5('table2')::uuid, null);
         insert into image_layers (id, image_id, layer_number, layer_digest, layer_size_bytes, is_base_layer, base_image_name, base_image_tag)
         values (gen_random_uuid(), md5('green')::uuid, 1, 'base', 100, true, 'registry.test/stump', '1'),
                (gen_random_uuid(), md5('amber')::uuid, 1, 'base', 100, true, 'registry.test/root', '1');",
    )
    .execute(pool)
    .await?;
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn two_builds_of_an_image_are_compared_layer_by_layer(pool: PgPool) -> sqlx::Result<()> {
    greetings(&pool).await?;
    // Which of the two is the newer tells the id; here it is a hash.
    let ordered: bool = sqlx::query_scalar("select md5('bench1')::uuid < md5('bench2')::uuid").fetch_one(&pool).await?;
    let (newer, older, growth, new) = if ordered { (610, 600, 30, 50) } else { (600, 610, -30, 20) };
    let (before, after) = if ordered { (Value::Null, json!(["A=b"])) } else { (json!(["A=b"]), Value::Null) };
    assert_eq!(
        answer(&pool, "What two builds of an image differ in").await?,
        json!([{"platform": "linux/amd64", "other_build_number": older, "build_number": newer, "growth_bytes": growth, "same_layers": 2,
            "layer_count": 3, "first_new_layer": 2, "new_bytes": new, "configuration_changes": {"env_vars": [before, after]}}])
    );
    let pairs: i64 = sqlx::query_scalar("select count(*) from image_comparison").fetch_one(&pool).await?;
    assert_eq!(pairs, 2, "each with the other, and no platform that only one has, nor another tenant's image");
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn a_layer_is_told_with_what_sharing_it_saves(pool: PgPool) -> sqlx::Result<()> {
    greetings(&pool).await?;
    let row = |digest: &str, size: i32, used: i32, saved: i32, images: i32, base: Value| {
        json!({"layer_digest": digest, "layer_size_bytes": size, "used_in_builds_count": used, "saved_bytes": saved,
            "images": images, "base_image_name": base})
    };
    assert_eq!(
        answer(&pool, "Which layers are shared").await?,
        json!([row("base", 100, 3, 200, 1, json!("registry.test/stump")), row("one", 20, 1, 0, 0, Value::Null)])
    );
    Ok(())
}
