//! `image-factory verify` on rows that the operator's own statements wrote, sound as they are and
//! then broken in every way it looks for, where constraints stand in the way without them.

use std::{sync::atomic::Ordering, time::Duration};

use image_factory::{
    clock,
    controllers::build::{report, watched::Watched},
    db::{
        self, launches,
        logs::{self, Cursor, Line},
        queue,
        results::{self, End},
        steps::Recorded,
    },
    verify::{self, Finding},
};
use image_factory_core::{loglevel::Level, outcome::Outcome, reason::Reason};
use jiff::Timestamp;
use serde_json::json;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::{
    api::counted,
    attempts::{attempt, failure, limits, next_run, queued, success},
    cluster::{Cluster, list},
};

/// Its Job is made, its log of three lines is stored, and it succeeds.
async fn succeed(pool: &PgPool, build: Uuid) {
    launches::jobs_created(pool, &[build]).await.expect("is marked");
    let line =
        |content: &str| Line { content: content.to_owned(), level: Level::Info, logged_at: Timestamp::UNIX_EPOCH };
    let cursor = |container: &str, line_number| Cursor {
        container: container.to_owned(),
        last_timestamp: Some(Timestamp::UNIX_EPOCH),
        lines_at_timestamp: 1,
        line_number,
        finished: true,
        ..Cursor::default()
    };
    logs::append(pool, build, &[line("source")], &Recorded::default(), &cursor("prepare", 1)).await.expect("stores");
    logs::append(pool, build, &[line("one"), line("two")], &Recorded::default(), &cursor("build", 3))
        .await
        .expect("stores");
    assert!(finish(pool, build, &success("registry.test/a:1"), Some(Duration::from_mins(10))).await);
}

async fn finish(pool: &PgPool, build: Uuid, outcome: &Outcome, job_ttl: Option<Duration>) -> bool {
    results::finish(pool, build, End { job_ttl, ..End::of(outcome) }).await.expect("finishes")
}

/// Two tenants. Of green: `done` succeeded, `twice` was overtaken in the queue by its second run,
/// which runs. Of amber: `done` failed without a Job, `waits` is queued.
async fn history(pool: &PgPool) {
    limits(pool, 10, 2).await;
    let done = queued(pool, &attempt("green", "done")).await;
    let refused = queued(pool, &attempt("amber", "done")).await;
    assert_eq!(queue::claim(pool).await.expect("claims").len(), 2);
    succeed(pool, done).await;
    assert!(finish(pool, refused, &failure(Reason::InvalidSpec), None).await);
    let twice = attempt("green", "twice");
    queued(pool, &twice).await;
    queued(pool, &next_run(&twice)).await;
    assert_eq!(queue::claim(pool).await.expect("claims").len(), 1);
    queued(pool, &attempt("amber", "waits")).await;
}

/// The invariants that are broken: the words they begin with, and how many breaks each has.
async fn broken(conn: &mut PgConnection, limits_since: Option<Timestamp>) -> Vec<(String, Vec<String>)> {
    let findings = verify::rows(conn, limits_since).await.expect("asks");
    assert_eq!(findings.len(), 10);
    findings
        .into_iter()
        .filter(|finding| !finding.checked.broken.is_empty())
        .map(|Finding { invariant, checked, .. }| {
            (
                invariant.to_owned(),
                checked.broken.into_iter().map(|one| format!("{}: {}", one.subject, one.problem)).collect(),
            )
        })
        .collect()
}

#[sqlx::test(migrations = "./migrations")]
async fn rows_as_the_operator_writes_them_break_nothing(pool: PgPool) {
    history(&pool).await;
    let mut snapshot = db::verify::snapshot(&pool).await.expect("begins");
    assert_eq!(broken(&mut snapshot, None).await, []);
    assert_eq!(broken(&mut snapshot, Some(Timestamp::UNIX_EPOCH)).await, []);
    let examined: Vec<usize> =
        verify::rows(&mut snapshot, None).await.expect("asks").iter().map(|finding| finding.checked.examined).collect();
    assert_eq!(examined, [5, 3, 11, 3, 3, 0, 5, 3, 2, 1]);
}

/// What is dropped so that rows can be broken: what refuses them otherwise.
const UNGUARD: &str = "
    alter table builds drop constraint builds_resource_uid_run_attempt_key, drop constraint builds_completed_at_check,
        drop constraint builds_queued_check, drop constraint builds_in_progress_check,
        drop constraint builds_tenant_id_project_id_fkey, drop constraint builds_project_id_image_id_fkey;
    alter table build_status_history drop constraint build_status_history_transition_check,
        drop constraint build_status_history_sequence_check;
    alter table build_results drop constraint build_results_build_id_key,
        drop constraint build_results_project_id_build_id_fkey,
        drop constraint build_results_project_id_output_image_id_fkey;
    alter table build_artifacts drop constraint build_artifacts_project_id_build_id_fkey,
        drop constraint build_artifacts_project_id_image_id_fkey;
    alter table build_logs drop constraint build_logs_pkey;
    alter table schedule_slots drop constraint schedule_slots_schedule_id_slot_key;
    alter table webhook_deliveries drop constraint webhook_deliveries_delivery_key,
        drop constraint webhook_deliveries_tenant_id_build_id_fkey,
        drop constraint webhook_deliveries_tenant_id_webhook_config_id_fkey;
    alter table schedule_slots drop constraint schedule_slots_tenant_id_build_id_fkey,
        drop constraint schedule_slots_tenant_id_schedule_id_fkey;
    create function named(tenant text, name text) returns uuid language sql return
        (select id from builds where resource_namespace = tenant and resource_name = name order by run desc limit 1);
    create function tenant(called text) returns uuid language sql return (select id from tenants where name = called);
    create function project(called text) returns uuid language sql return
        (select id from projects where tenant_id = tenant(called));
    insert into build_schedules (id, tenant_id, project_id, schedule_name, cron_expression, build_method, build_config_preset)
        select gen_random_uuid(), t.id, p.id, 'nightly', '0 2 * * *', 'buildx', '{}' from tenants t join projects p on p.tenant_id = t.id;
    insert into webhook_configs (id, tenant_id, project_id, webhook_name)
        select gen_random_uuid(), t.id, p.id, 'hook' from tenants t join projects p on p.tenant_id = t.id;
";

const SLOT: &str = "insert into schedule_slots (id, tenant_id, schedule_id, slot, build_name, build_id)";
const DELIVERY: &str = "insert into webhook_deliveries (id, tenant_id, webhook_config_id, build_id, direction, delivery_id, event_type, payload)";

/// The statements that break something, with words of the invariant they break and of the problem.
/// `$slot` and `$delivery` stand for the beginning of an insert.
const BREAKS: [(&str, &str, &str); 43] = [
    (
        "a run has one row",
        "run 1 has 2 rows for attempts 1 to 1",
        "update builds set run = 1 where resource_name = 'twice'",
    ),
    (
        "a run has one row",
        "run 1 has 1 rows for attempts 1 to 2",
        "update builds set attempt = 2 where id = named('green', 'done')",
    ),
    (
        "a run has one row",
        "has rows of 2 runs, and its newest is run 3",
        "update builds set run = 3 where resource_name = 'twice' and run = 2",
    ),
    (
        "a run has one row",
        "run 1 is queued though a newer run exists",
        "update builds set resource_uid = 'uid-green-twice', run = 3 - 2, attempt = 2 where id = named('amber', 'waits')",
    ),
    (
        "no limit",
        "runs 3 builds, where 2 may",
        "update builds set tenant_id = tenant('green'), status = 'in_progress', started_at = now(), worker_id = (select id from build_workers limit 1) where status in ('queued', 'failed')",
    ),
    (
        "no limit",
        "2 attempts of it ran at once",
        "update builds set resource_uid = 'uid-green-done' where id = named('amber', 'done')",
    ),
    (
        "the history",
        "its transition 2 has number 4",
        "update build_status_history set sequence = 4 where build_id = named('green', 'twice') and sequence = 2",
    ),
    (
        "the history",
        "transition 2 leaves in_progress, where the build was queued",
        "update build_status_history set from_status = 'in_progress' where build_id = named('green', 'twice') and sequence = 2",
    ),
    (
        "the history",
        "transition 2 is not legal: queued → success",
        "update build_status_history set to_status = 'success' where build_id = named('green', 'twice') and sequence = 2",
    ),
    (
        "the history",
        "transition 3 is older than the one before it",
        "update build_status_history set changed_at = changed_at - interval '1 day' where build_id = named('green', 'done') and sequence = 3",
    ),
    (
        "the history",
        "is success, and its history ends with in_progress",
        "delete from build_status_history where build_id = named('green', 'done') and sequence = 3",
    ),
    (
        "the history",
        "is queued, and its history ends with nothing",
        "delete from build_status_history where build_id = named('amber', 'waits')",
    ),
    (
        "the history",
        "is queued, and its history ends with in_progress",
        "update builds set status = 'queued', started_at = null, worker_id = null where id = named('green', 'twice')",
    ),
    (
        "the history",
        ", by its history at",
        "update builds set completed_at = completed_at + interval '1 s' where id = named('green', 'done')",
    ),
    (
        "the history",
        "started at no time, by its history at",
        "update builds set started_at = null where id = named('green', 'done')",
    ),
    (
        "a finished build has",
        "is success and has 2 results",
        "insert into build_results (id, build_id, project_id, status, output_image_digest, total_duration_milliseconds, queue_wait_milliseconds) select gen_random_uuid(), id, project_id, 'success', 'd', 1, 1 from builds where id = named('green', 'done')",
    ),
    (
        "a finished build has",
        "is success and has 0 results",
        "delete from build_results where build_id = named('green', 'done')",
    ),
    (
        "a finished build has",
        "is in_progress and has 1 results",
        "update build_results set build_id = named('green', 'twice') where build_id = named('green', 'done')",
    ),
    (
        "a finished build has",
        "is success, and its result says cancelled",
        "update build_results set status = 'cancelled' where build_id = named('green', 'done')",
    ),
    (
        "a finished build has",
        "is a success without the digest of an image",
        "update build_results set output_image_digest = null where build_id = named('green', 'done')",
    ),
    ("log lines", "has 2 lines with 2 numbers from 1 to 3", "delete from build_logs where line_number = 2"),
    ("log lines", "has 3 lines with 3 numbers from 2 to 4", "update build_logs set line_number = line_number + 1"),
    (
        "log lines",
        "has 3 lines with 2 numbers from 1 to 3",
        "update build_logs set line_number = 3 where line_number = 2",
    ),
    (
        "log lines",
        "its cursor stands at line 4, its last line is 3",
        "update build_log_cursors set line_number = 4 where container = 'build'",
    ),
    ("log lines", "its cursor stands at line 0, its last line is 3", "delete from build_log_cursors"),
    (
        "log lines",
        "ended with its Job made and its log not concluded",
        "update build_log_cursors set finished = false where container = 'build'",
    ),
    (
        "a slot and",
        "is there 2 times",
        "$slot select gen_random_uuid(), c.tenant_id, c.id, now(), 'nightly-1', null from build_schedules c, generate_series(1, 2) where c.tenant_id = tenant('green')",
    ),
    (
        "a slot and",
        "is the build of 2 slots",
        "$slot select gen_random_uuid(), c.tenant_id, c.id, now() - make_interval(days => n), 'nightly-1', named('green', 'done') from build_schedules c, generate_series(1, 2) n where c.tenant_id = tenant('green')",
    ),
    (
        "a slot and",
        "which was skipped",
        "insert into schedule_slots (id, tenant_id, schedule_id, slot, build_name, build_id, outcome, message)
         select gen_random_uuid(), c.tenant_id, c.id, now(), 'nightly-1', named('green', 'done'), 'skipped', 'too late'
         from build_schedules c where c.tenant_id = tenant('green')",
    ),
    (
        "a slot and",
        "inbound delivery, attempt 1, is there 2 times",
        "$delivery select gen_random_uuid(), c.tenant_id, c.id, null, 'inbound', 'd', 'push', '{}' from webhook_configs c, generate_series(1, 2) where c.tenant_id = tenant('green')",
    ),
    (
        "a slot and",
        "is the build of 2 deliveries",
        "$delivery select gen_random_uuid(), c.tenant_id, c.id, named('green', 'done'), 'inbound', 'd' || n, 'push', '{}' from webhook_configs c, generate_series(1, 2) n where c.tenant_id = tenant('green')",
    ),
    (
        "a row refers",
        "is in a project of another tenant",
        "update builds set project_id = project('amber'), build_number = 99 where id = named('green', 'twice')",
    ),
    (
        "a row refers",
        "pushes an image of another project",
        "update builds set image_id = (select image_id from builds where id = named('amber', 'done')) where id = named('green', 'done')",
    ),
    (
        "a row refers",
        "runs on worker own of another tenant",
        "with own as (insert into build_workers (id, tenant_id, worker_name, worker_type, concurrent_builds_limit, status) values (gen_random_uuid(), tenant('amber'), 'own', 'kubernetes', 1, 'healthy') returning id) update builds set worker_id = own.id from own where builds.id = named('green', 'done')",
    ),
    (
        "a row refers",
        "has a result in another project",
        "update build_results set project_id = project('amber') where build_id = named('green', 'done')",
    ),
    (
        "a row refers",
        "in another project",
        "update build_artifacts set project_id = project('amber') where build_id = named('green', 'done')",
    ),
    (
        "a row refers",
        "was made by a webhook of another tenant",
        "$delivery select gen_random_uuid(), c.tenant_id, c.id, named('green', 'done'), 'inbound', 'd', 'push', '{}' from webhook_configs c where c.tenant_id = tenant('amber')",
    ),
    (
        "a row refers",
        "was made by a schedule of another tenant",
        "$slot select gen_random_uuid(), c.tenant_id, c.id, now(), 'nightly-1', named('green', 'done') from build_schedules c where c.tenant_id = tenant('amber')",
    ),
    (
        "a finished build is",
        "was to be cleaned up at",
        "update builds set cleanup_due_at = now() - interval '2 minutes' where id = named('green', 'done')",
    ),
    (
        "a build that ran",
        "is success and has 0 rows of metrics",
        "delete from build_metrics where build_id = named('green', 'done')",
    ),
    (
        "a build that ran",
        "is queued and has 1 rows of metrics",
        "insert into build_metrics (id, build_id) select gen_random_uuid(), named('amber', 'waits')",
    ),
    (
        "a layer is counted",
        "is counted 2 times and in the images of 1 builds",
        "update layers set used_in_builds_count = 2, last_used_in_build_at = now()",
    ),
    ("a layer is counted", "is counted 0 times and in the images of 1 builds", "delete from layers"),
];

#[sqlx::test(migrations = "./migrations")]
async fn every_way_to_break_an_invariant_is_found(pool: PgPool) {
    history(&pool).await;
    sqlx::raw_sql(UNGUARD).execute(&pool).await.expect("drops what refuses");
    for (invariant, problem, statement) in BREAKS {
        let mut tx = pool.begin().await.expect("begins");
        let statement = statement.replace("$slot", SLOT).replace("$delivery", DELIVERY);
        let done = sqlx::query(sqlx::AssertSqlSafe(statement.clone())).execute(&mut *tx).await;
        let changed = done.unwrap_or_else(|error| panic!("{statement}: {error}")).rows_affected();
        assert!(changed > 0, "changed nothing: {statement}");
        let found = broken(&mut tx, None).await;
        let named = found.iter().any(|(broken, problems)| {
            broken.starts_with(invariant) && problems.iter().any(|one| one.contains(problem))
        });
        assert!(named, "{statement}: {found:#?}");
        tx.rollback().await.expect("rolls back");
    }
    let mut snapshot = db::verify::snapshot(&pool).await.expect("begins");
    assert_eq!(broken(&mut snapshot, None).await, []);
}

#[sqlx::test(migrations = "./migrations")]
async fn a_limit_that_was_exceeded_for_a_moment_is_found_in_the_history(pool: PgPool) {
    history(&pool).await;
    let mut tx = pool.begin().await.expect("begins");
    // Of green one build ran after the other, of amber one alone.
    sqlx::query("update operator_settings set max_concurrent_builds = 1").execute(&mut *tx).await.expect("lowers");
    assert_eq!(broken(&mut tx, Some(Timestamp::UNIX_EPOCH)).await, []);
    // Now the first of green ends when the second runs.
    let later = "with later as (update builds set completed_at = now() where resource_name = 'done' and resource_namespace = 'green' returning id)
                 update build_status_history h set changed_at = now() from later where build_id = later.id and to_status = 'success'";
    sqlx::query(later).execute(&mut *tx).await.expect("moves the end");
    let found = broken(&mut tx, Some(Timestamp::UNIX_EPOCH)).await;
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0].1, ["tenant green: ran 2 builds at once since then, where 1 may"]);
    assert_eq!(broken(&mut tx, None).await, [], "what runs now is within the limit");
    let tomorrow = clock::now() + Duration::from_hours(24);
    assert_eq!(broken(&mut tx, Some(tomorrow)).await, [], "nothing was claimed since then");
}

#[sqlx::test(migrations = "./migrations")]
async fn a_job_is_kept_by_an_attempt_that_it_ran_for_even_where_that_ended_before_it_was_recorded(pool: PgPool) {
    limits(&pool, 10, 5).await;
    let mut ids = Vec::new();
    for name in ["runs", "short", "stopped", "cleaned"] {
        ids.push(queued(&pool, &attempt("green", name)).await);
    }
    assert_eq!(queue::claim(&pool).await.expect("claims").len(), 4);
    for (build, job_ttl) in [(ids[1], Some(Duration::from_mins(10))), (ids[2], None), (ids[3], Some(Duration::ZERO))] {
        assert!(finish(&pool, build, &failure(Reason::Cancelled), job_ttl).await);
    }
    results::cleaned(&pool, ids[3], "completed").await.expect("is cleaned up");

    // An operator that was paused all the while tells that it made the four Jobs.
    let mut kept = launches::jobs_created(&pool, &ids).await.expect("records");
    kept.sort();
    assert_eq!(kept, ids[..2]);
}

#[sqlx::test(migrations = "./migrations")]
async fn statuses_are_compared_page_by_page_with_one_statement_a_page(pool: PgPool) {
    limits(&pool, 10, 10).await;
    let mut builds = Vec::new();
    for number in 0..120 {
        let new = attempt("green", &format!("wall-{number}"));
        queued(&pool, &new).await;
        let mut build = json!({
            "apiVersion": "imagefactory.dev/v1alpha1", "kind": "Build",
            "metadata": {"name": new.resource.name, "namespace": "green", "uid": new.resource.uid, "generation": 1},
            "spec": {
                "method": "container",
                "source": {"inline": {"files": {"Dockerfile": "FROM scratch"}}},
                "output": {"image": "registry.test/green/wall:1"},
            },
        });
        let newest = db::builds::newest(&pool, &new.resource.uid).await.expect("a row").expect("it is there");
        let watched: Watched = serde_json::from_value(build.clone()).expect("a Build");
        build["status"] = serde_json::to_value(report::status(&watched, Some(&newest))).expect("JSON");
        builds.push(build);
    }
    builds[119]["status"]["run"] = json!(2);
    let cluster = Cluster::default();
    let all = "/apis/imagefactory.dev/v1alpha1/builds";
    cluster.has(all, &list(&builds));
    cluster.has("/apis/batch/v1/jobs", &list(&[]));
    let client = cluster.context(&pool).await.client;
    let (counted, statements) = counted(&pool);
    let mend = async {
        // It is compared again while something is broken.
        while statements.load(Ordering::Relaxed) < 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        builds[119]["status"]["run"] = json!(1);
        cluster.has(all, &list(&builds));
    };
    let (found, ()) = tokio::join!(verify::cluster(&counted, &client), mend);
    let of_statuses = found.expect("no error").remove(1).checked;
    assert_eq!((of_statuses.examined, of_statuses.broken), (120, Vec::new()));
    assert_eq!(cluster.largest_page(all), 50);
    assert_eq!(
        statements.load(Ordering::Relaxed),
        8,
        "two rounds, each with one statement a page and one for the Jobs"
    );
}
