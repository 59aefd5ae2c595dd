//! The queue as people see it in the view.

use sqlx::PgPool;

use super::rows::{claimed, queued, refused_by, two_tenants};

/// The queue in its overall order: build, place in the tenant, reason, message.
async fn queue(pool: &PgPool) -> sqlx::Result<Vec<(String, i64, Option<String>, String)>> {
    sqlx::query_as(
        "select t.name || '/' || b.resource_name, q.position, q.waiting_for, q.message
         from build_queue q join builds b on b.id = q.build_id join tenants t on t.id = q.tenant_id
         order by q.overall_position",
    )
    .fetch_all(pool)
    .await
}

/// The reason and message of one build.
async fn held_back(pool: &PgPool, build: &str) -> sqlx::Result<(Option<String>, String)> {
    sqlx::query_as("select waiting_for, message from build_queue where build_id = md5($1)::uuid")
        .bind(build)
        .fetch_one(pool)
        .await
}

async fn change(pool: &PgPool, statement: &'static str) -> sqlx::Result<()> {
    let done = sqlx::query(statement).execute(pool).await?;
    assert!(done.rows_affected() > 0, "changed nothing: {statement}");
    Ok(())
}

fn because(reason: &str, message: &str) -> (Option<String>, String) {
    (Some(reason.to_owned()), message.to_owned())
}

#[sqlx::test(migrations = "./migrations")]
async fn builds_wait_in_the_order_of_time_and_take_turns_between_tenants(pool: PgPool) -> sqlx::Result<()> {
    two_tenants(&pool).await?;
    for (tenant, name, minute) in
        [("green", "running", 0), ("green", "b", 2), ("green", "a", 1), ("amber", "d", 4), ("amber", "c", 3)]
    {
        queued(&pool, tenant, name, minute, 0).await?;
    }
    claimed(&pool, "green/running", "everyone").await?;
    let order: Vec<_> = queue(&pool).await?.into_iter().map(|(build, position, ..)| (build, position)).collect();
    // amber runs none, so its first comes first though it came later; then both would run one each, and time decides.
    let wanted = [("amber/c", 1), ("green/a", 1), ("amber/d", 2), ("green/b", 2)];
    assert_eq!(order, wanted.map(|(build, position)| (build.to_owned(), position)));
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn a_tenant_of_more_weight_has_more_turns(pool: PgPool) -> sqlx::Result<()> {
    two_tenants(&pool).await?;
    for minute in 0..3 {
        queued(&pool, "green", &format!("g{minute}"), minute, 0).await?;
        queued(&pool, "amber", &format!("a{minute}"), minute + 10, 0).await?;
    }
    change(&pool, "insert into build_concurrency_policies (id, tenant_id, weight) values (gen_random_uuid(), md5('amber')::uuid, 2)").await?;
    let order: Vec<_> = queue(&pool).await?.into_iter().map(|(build, ..)| build).collect();
    assert_eq!(order, ["green/g0", "amber/a0", "amber/a1", "green/g1", "amber/a2", "green/g2"]);
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn priority_counts_only_where_the_policy_or_else_the_operator_says_so(pool: PgPool) -> sqlx::Result<()> {
    two_tenants(&pool).await?;
    for tenant in ["green", "amber"] {
        queued(&pool, tenant, "early", 1, -5).await?;
        queued(&pool, tenant, "late", 2, 0).await?;
        queued(&pool, tenant, "urgent", 3, 9).await?;
    }
    let first = async |tenant: &str| -> sqlx::Result<String> {
        let all = queue(&pool).await?;
        Ok(all
            .into_iter()
            .find(|(build, position, ..)| build.starts_with(tenant) && *position == 1)
            .map(|row| row.0)
            .unwrap_or_default())
    };
    assert_eq!(first("green").await?, "green/early", "without policy and settings, time alone");
    change(&pool, "insert into build_concurrency_policies (id, tenant_id, priority_dispatch_enabled) values (gen_random_uuid(), md5('green')::uuid, true)").await?;
    assert_eq!((first("green").await?, first("amber").await?), ("green/urgent".into(), "amber/early".into()));
    change(&pool, "insert into operator_settings (max_concurrent_builds, priority_dispatch_enabled) values (9, true)")
        .await?;
    change(&pool, "update build_concurrency_policies set priority_dispatch_enabled = false").await?;
    assert_eq!((first("green").await?, first("amber").await?), ("green/early".into(), "amber/urgent".into()));
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn the_first_thing_that_holds_a_build_back_is_told_with_its_numbers(pool: PgPool) -> sqlx::Result<()> {
    two_tenants(&pool).await?;
    queued(&pool, "green", "old", 0, 0).await?;
    claimed(&pool, "green/old", "everyone").await?;
    queued(&pool, "green", "new", 1, 0).await?;
    let new = "green/new";
    assert_eq!(held_back(&pool, new).await?, (None, "ready to be claimed".to_owned()));

    change(&pool, "update build_workers set concurrent_builds_limit = 1 where worker_name = 'everyone'").await?;
    assert_eq!(held_back(&pool, new).await?, because("WorkersBusy", "workers that fit run 1 of 1 builds"));

    change(&pool, "insert into operator_settings (max_concurrent_builds) values (1)").await?;
    assert_eq!(held_back(&pool, new).await?, because("TenantLimit", "tenant green runs 1 of 1 builds"));
    change(&pool, "insert into build_concurrency_policies (id, tenant_id, max_concurrent_builds) values (gen_random_uuid(), md5('green')::uuid, 2)").await?;
    assert_eq!(
        held_back(&pool, new).await?.0.as_deref(),
        Some("WorkersBusy"),
        "the policy goes before the operator's default"
    );
    change(&pool, "update build_concurrency_policies set max_concurrent_builds = 0").await?;
    assert_eq!(held_back(&pool, new).await?, because("TenantLimit", "tenant green runs 1 of 0 builds"));

    change(&pool, "update build_concurrency_policies set max_concurrent_builds = 2, max_concurrent_per_project = 1, container_max_concurrent = 1").await?;
    assert_eq!(held_back(&pool, new).await?, because("ProjectLimit", "project paint runs 1 of 1 builds"));
    change(&pool, "update build_concurrency_policies set max_concurrent_per_project = null").await?;
    assert_eq!(
        held_back(&pool, new).await?,
        because("MethodLimit", "tenant green runs 1 of 1 builds of method container")
    );

    change(&pool, "update build_workers set status = 'offline' where worker_name = 'everyone'").await?;
    assert_eq!(
        held_back(&pool, new).await?,
        because("WorkersOffline", "of the workers that fit none takes builds: everyone is offline, own is offline")
    );

    change(&pool, "update builds set placement = '{\"name\": \"gpu-1\"}' where status = 'queued'").await?;
    assert_eq!(
        held_back(&pool, new).await?,
        because("NoMatchingWorker", "no worker takes builds of method container that ask for {\"name\": \"gpu-1\"}")
    );

    change(&pool, "update builds set not_before = '2999-01-01T00:00:00Z' where status = 'queued'").await?;
    assert_eq!(held_back(&pool, new).await?, because("BackingOff", "not before 2999-01-01T00:00:00Z"));
    let estimated: bool =
        sqlx::query_scalar("select estimated_start = '2999-01-01T00:00:00Z' from build_queue").fetch_one(&pool).await?;
    assert!(estimated, "a backoff's end is when it is expected to start");

    change(&pool, "update builds set resource_uid = 'uid-green/new', attempt = 2 where status = 'in_progress'").await?;
    change(&pool, "update builds set run = 2 where status = 'queued'").await?;
    assert_eq!(held_back(&pool, new).await?, because("PreviousRun", "run 1, attempt 2 of new has not ended"));
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn a_worker_fits_by_tenant_name_zone_and_labels(pool: PgPool) -> sqlx::Result<()> {
    two_tenants(&pool).await?;
    queued(&pool, "green", "one", 0, 0).await?;
    change(&pool, "update build_workers set status = 'healthy', zone = 'north', labels = '{\"gpu\": true, \"memory\": \"32gb\"}' where worker_name = 'own'").await?;
    change(&pool, "update build_workers set worker_name = 'amber-only' where id = md5('amber')::uuid").await?;
    for (placement, fits) in [
        ("{}", true),
        (r#"{"name": "own"}"#, true),
        (r#"{"name": "amber-only"}"#, false),
        (r#"{"zone": "north", "selector": {"gpu": "true", "memory": "32gb"}}"#, true),
        (r#"{"zone": "south"}"#, false),
        (r#"{"name": "everyone", "zone": "north"}"#, false),
        (r#"{"selector": {"gpu": "false"}}"#, false),
        (r#"{"selector": {"gpu": "true", "disk": "fast"}}"#, false),
    ] {
        sqlx::query("update builds set placement = $1::jsonb where status = 'queued'")
            .bind(placement)
            .execute(&pool)
            .await?;
        let reason = held_back(&pool, "green/one").await?.0;
        assert_eq!(reason.as_deref(), (!fits).then_some("NoMatchingWorker"), "{placement}");
    }
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn the_queue_is_open_to_everyone_and_the_settings_are_one_row(pool: PgPool) -> sqlx::Result<()> {
    let open: bool =
        sqlx::query_scalar("select has_table_privilege('public', 'build_queue', 'select')").fetch_one(&pool).await?;
    assert!(open);
    let settings = "insert into operator_settings (max_concurrent_builds) values (4)";
    sqlx::query(settings).execute(&pool).await?;
    assert_eq!(refused_by(sqlx::query(settings).execute(&pool).await, settings), "operator_settings_pkey");
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn the_built_in_worker_takes_what_no_declared_worker_fits(pool: PgPool) -> sqlx::Result<()> {
    two_tenants(&pool).await?;
    queued(&pool, "green", "one", 0, 0).await?;
    change(&pool, "insert into build_workers (id, tenant_id, worker_name, worker_type, concurrent_builds_limit, status) values (gen_random_uuid(), null, 'cluster', 'kubernetes', 1, 'healthy')").await?;
    change(&pool, "update build_workers set cordoned = true where worker_name = 'everyone'").await?;
    let away = "of the workers that fit none takes builds: everyone is cordoned, own is offline";
    assert_eq!(held_back(&pool, "green/one").await?, because("WorkersOffline", away));
    change(&pool, "update build_workers set methods = '{kaniko}' where declared").await?;
    assert_eq!(held_back(&pool, "green/one").await?.0, None);
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn the_start_is_estimated_from_what_the_tenants_builds_took(pool: PgPool) -> sqlx::Result<()> {
    two_tenants(&pool).await?;
    for minute in 0..7 {
        queued(&pool, "green", &format!("b{minute}"), minute, 0).await?;
    }
    let estimates = async || -> sqlx::Result<Vec<Option<f64>>> {
        sqlx::query_scalar(
            "select extract(epoch from estimated_start - now())::float8 from build_queue order by position",
        )
        .fetch_all(&pool)
        .await
    };
    change(&pool, "insert into operator_settings (max_concurrent_builds) values (2)").await?;
    claimed(&pool, "green/b0", "everyone").await?;
    claimed(&pool, "green/b1", "everyone").await?;
    assert_eq!(estimates().await?, [None; 5], "nothing has ended yet");
    for (build, seconds) in [("green/b0", 30), ("green/b1", 50)] {
        sqlx::query("update builds set status = 'success', completed_at = now(), started_at = now() - make_interval(secs => $2) where id = md5($1)::uuid")
            .bind(build).bind(f64::from(seconds)).execute(&pool).await?;
    }
    claimed(&pool, "green/b2", "everyone").await?;
    assert_eq!(estimates().await?, [Some(0.0); 4], "there is room");
    claimed(&pool, "green/b3", "everyone").await?;
    assert_eq!(estimates().await?, [Some(40.0), Some(40.0), Some(80.0)], "two at once, 40 seconds each");
    Ok(())
}
