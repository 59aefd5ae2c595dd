//! What the public reference of the database promises: every table under its migration's number, every column with
//! its type, every reference, every word of every enumeration. A name here is never changed, only added to.

use std::collections::BTreeMap;

use sqlx::PgPool;

/// Table, migration, columns with their type. `->` names the table a column refers to.
const REFERENCE: &[(&str, i64, &str)] = &[
    (
        "builds",
        1,
        "id uuid, tenant_id uuid -> projects, project_id uuid -> projects, image_id uuid -> images, build_number integer,
         triggered_by_user_id uuid -> users, triggered_by_git_event text, git_commit text, git_branch text, git_author text,
         git_message text, started_at timestamptz, completed_at timestamptz, status text, error_message text, cleanup_at timestamptz",
    ),
    (
        "build_configs",
        12,
        "id uuid, build_id uuid -> builds, build_method text, dockerfile text, build_context text, cache_enabled boolean,
         cache_repo text, metadata jsonb, platforms jsonb, cache_from jsonb, cache_to jsonb, target_stage text, builder text,
         buildpacks jsonb, packer_template text, build_args jsonb, environment jsonb, secrets jsonb",
    ),
    (
        "build_triggers",
        13,
        "id uuid, build_id uuid -> builds, trigger_type text, trigger_source text, created_by_user_id uuid -> users,
         created_at timestamptz",
    ),
    (
        "build_steps",
        5,
        "id uuid, build_id uuid -> builds, step_number integer, step_name text, instruction_type text, status text,
         layer_digest text, layer_size_bytes bigint, cached boolean, stdout text, stderr text, error_message text,
         error_code text, duration_seconds integer",
    ),
    (
        "build_logs",
        1,
        "id uuid, build_id uuid -> builds, log_content text, log_level text, logged_at timestamptz",
    ),
    (
        "build_metrics",
        5,
        "id uuid, build_id uuid -> builds, total_duration_seconds integer, docker_build_duration_seconds integer,
         docker_push_duration_seconds integer, peak_memory_usage_mb integer, cpu_usage_percent numeric, disk_read_bytes bigint,
         disk_write_bytes bigint, total_layers integer, reused_layers integer, new_layers integer, final_image_size_bytes bigint,
         compression_ratio numeric",
    ),
    (
        "build_artifacts",
        5,
        "id uuid, build_id uuid -> builds, artifact_type text, artifact_name text, artifact_location text,
         artifact_size_bytes bigint, sha256_digest text, is_available boolean, retention_policy text, expires_at timestamptz,
         image_id uuid -> images",
    ),
    (
        "image_metadata",
        5,
        "id uuid, image_id uuid -> images, docker_config_digest text, docker_manifest_digest text, total_layer_count integer,
         compressed_size_bytes bigint, uncompressed_size_bytes bigint, packages_count integer, vulnerabilities_high integer,
         vulnerabilities_medium integer, vulnerabilities_low integer, entrypoint jsonb, cmd jsonb, env_vars jsonb,
         working_dir jsonb, last_scanned_at timestamptz, scan_tool text",
    ),
    (
        "image_layers",
        5,
        "id uuid, image_id uuid -> images, layer_number integer, layer_digest text, layer_size_bytes bigint,
         is_base_layer boolean, base_image_name text, base_image_tag text, used_in_builds_count integer,
         last_used_in_build_at timestamptz",
    ),
    (
        "webhook_configs",
        13,
        "id uuid, tenant_id uuid -> projects, project_id uuid -> projects, webhook_name text, webhook_url text,
         webhook_secret text, event_types jsonb, branch_patterns jsonb, auto_build_enabled boolean, build_method text,
         build_config_preset jsonb, is_active boolean, is_verified boolean, last_delivery_at timestamptz,
         last_delivery_status text",
    ),
    (
        "webhook_deliveries",
        13,
        "id uuid, webhook_config_id uuid -> webhook_configs, build_id uuid -> builds, event_type text, payload jsonb,
         response_status integer, error_message text, attempt_number integer, next_retry_at timestamptz",
    ),
    (
        "build_schedules",
        13,
        "id uuid, tenant_id uuid -> projects, project_id uuid -> projects, schedule_name text, cron_expression text,
         timezone text, build_method text, build_config_preset jsonb, git_branch text, is_active boolean,
         last_triggered_at timestamptz, next_trigger_at timestamptz",
    ),
    (
        "build_workers",
        14,
        "id uuid, tenant_id uuid -> tenants, worker_name text, worker_type text, concurrent_builds_limit integer,
         current_builds_count integer, status text, zone text, labels jsonb, last_heartbeat timestamptz, uptime_percent numeric",
    ),
    (
        "build_concurrency_policies",
        14,
        "id uuid, tenant_id uuid -> tenants, max_concurrent_builds integer, max_concurrent_per_project integer,
         kaniko_max_concurrent integer, buildx_max_concurrent integer, packer_max_concurrent integer,
         paketo_max_concurrent integer, priority_dispatch_enabled boolean, max_queued_wait_minutes integer",
    ),
    (
        "build_results",
        15,
        "id uuid, build_id uuid -> builds, status text, exit_code integer, output_image_id uuid -> images,
         output_image_url text, output_image_digest text, failure_reason text, failure_stage text,
         total_duration_milliseconds bigint, queue_wait_milliseconds bigint, build_execution_milliseconds bigint,
         artifact_push_milliseconds bigint, retry_count integer, is_retry boolean, original_build_id uuid -> builds,
         cleanup_status text",
    ),
    (
        "build_status_history",
        15,
        "id uuid, build_id uuid -> builds, from_status text, to_status text, reason text, changed_by_user_id uuid -> users,
         changed_by_system boolean, changed_at timestamptz",
    ),
    (
        "build_performance_daily",
        15,
        "id uuid, tenant_id uuid -> tenants, date date, total_builds integer, successful integer, failed integer,
         cancelled integer, average_duration_seconds integer, median_queue_wait_seconds integer, failure_rate_percent numeric,
         most_common_failure text, kaniko_count integer, buildx_count integer, packer_count integer, paketo_count integer,
         max_concurrent_at_peak integer",
    ),
];

/// The words of every enumeration, by the constraint that holds them.
const ENUMERATIONS: &[(&str, &str)] = &[
    ("builds_status_check", "queued in_progress success failed cancelled"),
    ("build_configs_build_method_check", "kaniko buildx container paketo packer"),
    ("webhook_configs_build_method_check", "kaniko buildx container paketo packer"),
    ("build_schedules_build_method_check", "kaniko buildx container paketo packer"),
    ("build_triggers_trigger_type_check", "manual webhook schedule git_event"),
    ("build_steps_status_check", "pending running success failed skipped"),
    ("build_logs_log_level_check", "INFO WARN ERROR DEBUG"),
    (
        "build_artifacts_artifact_type_check",
        "docker_image sbom test_report build_log security_scan provenance packer_artifact",
    ),
    ("build_artifacts_retention_policy_check", "permanent days_30 days_90 days_365 delete_on_success"),
    ("build_workers_worker_type_check", "docker kubernetes local"),
    ("build_workers_status_check", "healthy busy degraded offline"),
    ("build_results_status_check", "success failed cancelled timeout"),
    ("build_results_failure_stage_check", "compile build push scan verification"),
    ("build_results_cleanup_status_check", "pending completed failed"),
    ("schedule_slots_outcome_check", "made skipped failed"),
    ("webhook_deliveries_direction_check", "inbound outbound"),
];

/// Columns the reference calls unique, or the primary key.
const KEYS: &[(&str, &str)] = &[
    ("build_configs", "build_id"),
    ("image_metadata", "image_id"),
    ("build_concurrency_policies", "tenant_id"),
    ("build_results", "build_id"),
    ("build_workers", "tenant_id, worker_name"),
    ("build_performance_daily", "tenant_id, date"),
    ("builds", "project_id, build_number"),
    ("builds", "resource_uid, run, attempt"),
    ("build_logs", "build_id, line_number"),
    ("build_status_history", "build_id, sequence"),
    ("images", "project_id, repository, tag"),
    ("webhook_deliveries", "webhook_config_id, direction, delivery_id, attempt_number"),
    ("schedule_slots", "schedule_id, slot"),
];

/// The columns of a table of the reference: name, type, and the table referred to.
fn columns(listing: &str) -> impl Iterator<Item = (&str, &str, Option<&str>)> {
    listing.split(',').map(|column| {
        let mut words = column.split_whitespace();
        let (name, kind) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        (name, kind, words.nth(1))
    })
}

#[sqlx::test(migrations = "./migrations")]
async fn every_column_of_the_reference_stands_with_its_type(pool: PgPool) -> sqlx::Result<()> {
    let rows: Vec<(String, String, String)> = sqlx::query_as(
        "select table_name::text, column_name::text, replace(data_type, 'timestamp with time zone', 'timestamptz')
         from information_schema.columns where table_schema = 'public'",
    )
    .fetch_all(&pool)
    .await?;
    let found: BTreeMap<_, _> =
        rows.iter().map(|(table, column, kind)| ((table.as_str(), column.as_str()), kind.as_str())).collect();
    for (table, _, listing) in REFERENCE {
        for (column, kind, _) in columns(listing) {
            assert_eq!(found.get(&(*table, column)), Some(&kind), "{table}.{column}");
        }
    }
    Ok(())
}

#[test]
fn every_table_of_the_reference_is_made_by_its_migration() {
    let migrator = sqlx::migrate!("./migrations");
    for (table, version, _) in REFERENCE {
        let makers: Vec<i64> = migrator
            .iter()
            .filter(|m| m.sql.as_str().contains(&format!("create table {table} (")))
            .map(|m| m.version)
            .collect();
        assert_eq!(makers, [*version], "{table}");
    }
}

#[sqlx::test(migrations = "./migrations")]
async fn every_reference_is_a_foreign_key(pool: PgPool) -> sqlx::Result<()> {
    let found: Vec<(String, String, String)> = sqlx::query_as(
        "select c.conrelid::regclass::text, a.attname::text, c.confrelid::regclass::text
         from pg_constraint c join pg_attribute a on a.attrelid = c.conrelid and a.attnum = any (c.conkey)
         where c.contype = 'f'",
    )
    .fetch_all(&pool)
    .await?;
    for (table, _, listing) in REFERENCE {
        // Lines are stored with their cursor, which asks for the build once for all of them (decision 0012).
        let holder = if *table == "build_logs" { "build_log_cursors" } else { table };
        for (column, _, target) in columns(listing) {
            if let Some(target) = target {
                let wanted = (holder.to_owned(), column.to_owned(), target.to_owned());
                assert!(found.contains(&wanted), "{holder}.{column} refers to no {target}");
            }
        }
    }
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn every_key_is_unique(pool: PgPool) -> sqlx::Result<()> {
    let found: Vec<(String, String)> = sqlx::query_as(
        "select c.conrelid::regclass::text, string_agg(a.attname, ', ' order by array_position(c.conkey, a.attnum))
         from pg_constraint c join pg_attribute a on a.attrelid = c.conrelid and a.attnum = any (c.conkey)
         where c.contype in ('p', 'u') group by c.oid, c.conrelid",
    )
    .fetch_all(&pool)
    .await?;
    let ids = REFERENCE.iter().map(|(table, ..)| (*table, "id")).filter(|(table, _)| *table != "build_logs");
    for (table, key) in KEYS.iter().copied().chain(ids) {
        assert!(found.contains(&(table.to_owned(), key.to_owned())), "{table} ({key})");
    }
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn every_enumeration_has_exactly_its_words(pool: PgPool) -> sqlx::Result<()> {
    for (constraint, words) in ENUMERATIONS {
        let found: Vec<String> = sqlx::query_scalar(
            "select m[1] from pg_constraint c, regexp_matches(pg_get_constraintdef(c.oid), '''([^'']+)''', 'g') m
             where c.conname = $1 and not (select relispartition from pg_class where oid = c.conrelid)",
        )
        .bind(constraint)
        .fetch_all(&pool)
        .await?;
        assert_eq!(found, words.split(' ').collect::<Vec<_>>(), "{constraint}");
    }
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn every_constraint_has_a_name_that_a_migration_chose(pool: PgPool) -> sqlx::Result<()> {
    let found: Vec<(String, String)> = sqlx::query_as(
        "select c.conname::text, r.relname::text
         from pg_constraint c join pg_class r on r.oid = c.conrelid
         where r.relnamespace = 'public'::regnamespace and c.contype in ('p', 'u', 'f', 'c', 'x')
             and not r.relispartition and r.relname <> '_sqlx_migrations'",
    )
    .fetch_all(&pool)
    .await?;
    assert!(found.len() > 150, "only {} constraints found", found.len());
    let migrator = sqlx::migrate!("./migrations");
    for (constraint, table) in found {
        assert!(constraint.starts_with(&format!("{table}_")), "{constraint} on {table}");
        let chosen = format!("constraint {constraint} ");
        assert!(migrator.iter().any(|m| m.sql.as_str().contains(&chosen)), "no migration says {chosen:?}");
    }
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn every_table_column_and_function_is_explained(pool: PgPool) -> sqlx::Result<()> {
    let silent: Vec<String> = sqlx::query_scalar(
        "with ours as (
             select oid, relname from pg_class
             where relnamespace = 'public'::regnamespace and relkind in ('r', 'p', 'v') and relname <> '_sqlx_migrations'
                 and not relispartition
         )
         select relname from ours where obj_description(oid, 'pg_class') is null
         union all
         select o.relname || '.' || a.attname from ours o join pg_attribute a on a.attrelid = o.oid
         where a.attnum > 0 and not a.attisdropped and col_description(o.oid, a.attnum) is null
         union all
         select proname || '()' from pg_proc where pronamespace = 'public'::regnamespace and obj_description(oid, 'pg_proc') is null",
    )
    .fetch_all(&pool)
    .await?;
    assert_eq!(silent, Vec::<String>::new());
    Ok(())
}
