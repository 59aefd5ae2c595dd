//! What the database refuses by itself, whatever a program does: rows that reach into another tenant, states of a
//! build that can't be, histories that no build can have.

use sqlx::PgPool;

use super::rows::{claimed, queued, refused_by, two_tenants};

#[sqlx::test(migrations = "./migrations")]
async fn a_row_refers_only_to_rows_of_its_own_tenant(pool: PgPool) -> sqlx::Result<()> {
    two_tenants(&pool).await?;
    for tenant in ["green", "amber"] {
        queued(&pool, tenant, "one", 0, 0).await?;
    }
    // $1 is the tenant whose build or webhook or schedule it is, $2 the tenant whose row is referred to.
    let cases = [
        (
            "builds_tenant_id_project_id_fkey",
            "update builds set project_id = md5($2)::uuid, image_id = null, build_number = 99 where id = md5($1 || '/one')::uuid",
        ),
        (
            "builds_project_id_image_id_fkey",
            "update builds set image_id = md5($2)::uuid where id = md5($1 || '/one')::uuid",
        ),
        (
            "build_artifacts_project_id_image_id_fkey",
            "insert into build_artifacts (id, build_id, project_id, artifact_type, artifact_name, image_id)
             values (gen_random_uuid(), md5($1 || '/one')::uuid, md5($1)::uuid, 'docker_image', 'a:1', md5($2)::uuid)",
        ),
        (
            "build_artifacts_project_id_build_id_fkey",
            "insert into build_artifacts (id, build_id, project_id, artifact_type, artifact_name, image_id)
             values (gen_random_uuid(), md5($1 || '/one')::uuid, md5($2)::uuid, 'docker_image', 'b:1', md5($2)::uuid)",
        ),
        (
            "build_results_project_id_output_image_id_fkey",
            "insert into build_results (id, build_id, project_id, status, output_image_id, total_duration_milliseconds, queue_wait_milliseconds)
             values (gen_random_uuid(), md5($1 || '/one')::uuid, md5($1)::uuid, 'success', md5($2)::uuid, 1, 1)
             on conflict (build_id) do update set output_image_id = excluded.output_image_id",
        ),
        (
            "build_results_project_id_original_build_id_fkey",
            "insert into build_results (id, build_id, project_id, status, is_retry, retry_count, original_build_id, total_duration_milliseconds, queue_wait_milliseconds)
             values (gen_random_uuid(), md5($1 || '/one')::uuid, md5($1)::uuid, 'success', true, 1, md5($2 || '/one')::uuid, 1, 1)
             on conflict (build_id) do update set is_retry = true, retry_count = 1, original_build_id = excluded.original_build_id",
        ),
        (
            "webhook_configs_tenant_id_project_id_fkey",
            "update webhook_configs set project_id = md5($2)::uuid where id = md5($1)::uuid",
        ),
        (
            "webhook_deliveries_tenant_id_build_id_fkey",
            "insert into webhook_deliveries (id, tenant_id, webhook_config_id, build_id, direction, delivery_id, event_type, payload)
             values (gen_random_uuid(), md5($1)::uuid, md5($1)::uuid, md5($2 || '/one')::uuid, 'inbound', $2, 'push', '{}')",
        ),
        (
            "build_schedules_tenant_id_project_id_fkey",
            "update build_schedules set project_id = md5($2)::uuid where id = md5($1)::uuid",
        ),
        (
            "schedule_slots_tenant_id_build_id_fkey",
            "insert into schedule_slots (id, tenant_id, schedule_id, slot, build_name, build_id)
             values (gen_random_uuid(), md5($1)::uuid, md5($1)::uuid, now(), $2, md5($2 || '/one')::uuid)",
        ),
    ];
    for (constraint, statement) in cases {
        let across = sqlx::query(statement).bind("green").bind("amber").execute(&pool).await;
        assert_eq!(refused_by(across, statement), constraint);
        // The same statement within one tenant is taken: it was the other tenant that was refused.
        let within = sqlx::query(statement).bind("green").bind("green").execute(&pool).await?;
        assert_eq!(within.rows_affected(), 1, "{statement}");
    }
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn a_build_is_never_in_a_state_that_cannot_be(pool: PgPool) -> sqlx::Result<()> {
    two_tenants(&pool).await?;
    queued(&pool, "green", "waits", 0, 0).await?;
    queued(&pool, "green", "runs", 1, 0).await?;
    claimed(&pool, "green/runs", "everyone").await?;
    let cases = [
        (
            "builds_in_progress_check",
            "update builds set status = 'in_progress', started_at = now() where status = 'queued'",
        ),
        ("builds_in_progress_check", "update builds set worker_id = null where status = 'in_progress'"),
        ("builds_queued_check", "update builds set status = 'queued' where status = 'in_progress'"),
        ("builds_queued_check", "update builds set job_created_at = now() where status = 'queued'"),
        ("builds_completed_at_check", "update builds set status = 'success' where status = 'in_progress'"),
        ("builds_completed_at_check", "update builds set completed_at = now() where status = 'queued'"),
        ("builds_cleanup_at_check", "update builds set cleanup_at = now() where status = 'queued'"),
        ("builds_pod_waiting_check", "update builds set pod_waiting_reason = 'ImagePull' where status = 'in_progress'"),
        (
            "builds_pod_waiting_reason_check",
            "update builds set pod_waiting_reason = 'Bored', pod_waiting_message = 'm', pod_waiting_since = now()",
        ),
        ("builds_pod_given_up_at_check", "update builds set pod_given_up_at = now() where status = 'in_progress'"),
        ("builds_status_check", "update builds set status = 'done' where status = 'in_progress'"),
        ("builds_resource_uid_run_attempt_key", "update builds set resource_uid = 'same'"),
        ("builds_project_id_build_number_key", "update builds set build_number = 7"),
        ("builds_worker_id_fkey", "update builds set worker_id = md5('nowhere')::uuid where status = 'in_progress'"),
    ];
    for (constraint, statement) in cases {
        assert_eq!(refused_by(sqlx::query(statement).execute(&pool).await, statement), constraint, "{statement}");
    }
    let put_back =
        "update builds set status = 'queued', started_at = null, worker_id = null where status = 'in_progress'";
    assert_eq!(sqlx::query(put_back).execute(&pool).await?.rows_affected(), 1);
    let ended_in_the_queue = "update builds set status = 'cancelled', completed_at = now() where status = 'queued'";
    assert_eq!(sqlx::query(ended_in_the_queue).execute(&pool).await?.rows_affected(), 2);
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn only_legal_transitions_enter_the_history_and_each_once(pool: PgPool) -> sqlx::Result<()> {
    const LEGAL: [(Option<&str>, &str); 8] = [
        (None, "queued"),
        (Some("queued"), "in_progress"),
        (Some("queued"), "cancelled"),
        (Some("queued"), "failed"),
        (Some("in_progress"), "success"),
        (Some("in_progress"), "failed"),
        (Some("in_progress"), "cancelled"),
        (Some("in_progress"), "queued"),
    ];
    two_tenants(&pool).await?;
    queued(&pool, "green", "one", 0, 0).await?;
    let statement =
        "insert into build_status_history (id, build_id, sequence, from_status, to_status, changed_by_system)
                     values (gen_random_uuid(), md5('green/one')::uuid, $1, $2, $3, true)";
    let statuses = ["queued", "in_progress", "success", "failed", "cancelled"];
    let mut sequence = 1;
    for from in std::iter::once(None).chain(statuses.map(Some)) {
        for to in statuses {
            let outcome = sqlx::query(statement).bind(sequence).bind(from).bind(to).execute(&pool).await;
            if LEGAL.contains(&(from, to)) {
                outcome?;
                sequence += 1;
            } else {
                let by = refused_by(outcome, statement);
                assert!(
                    by == "build_status_history_transition_check" || by == "build_status_history_sequence_check",
                    "{from:?} → {to}: {by}"
                );
            }
        }
    }
    assert_eq!(sequence, 9, "eight legal transitions were taken");
    let again = sqlx::query(statement).bind(2).bind("queued").bind("in_progress").execute(&pool).await;
    assert_eq!(refused_by(again, statement), "build_status_history_build_id_sequence_key");
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn a_config_has_no_value_that_its_method_has_no_use_for(pool: PgPool) -> sqlx::Result<()> {
    two_tenants(&pool).await?;
    queued(&pool, "green", "one", 0, 0).await?;
    let cases = [
        ("build_configs_platforms_check", "update build_configs set platforms = '[\"linux/amd64\"]'"),
        (
            "build_configs_platforms_check",
            "update build_configs set build_method = 'buildx', platforms = '\"linux/amd64\"'",
        ),
        ("build_configs_builder_check", "update build_configs set builder = 'b'"),
        ("build_configs_packer_template_check", "update build_configs set packer_template = 't'"),
        (
            "build_configs_dockerfile_check",
            "update build_configs set build_method = 'paketo', dockerfile = 'Dockerfile'",
        ),
        ("build_configs_cache_repo_check", "update build_configs set build_method = 'buildx', cache_repo = 'r'"),
    ];
    for (constraint, statement) in cases {
        assert_eq!(refused_by(sqlx::query(statement).execute(&pool).await, statement), constraint);
    }
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn a_shared_worker_has_its_name_alone_and_a_tenant_may_use_that_name_too(pool: PgPool) -> sqlx::Result<()> {
    two_tenants(&pool).await?;
    let statement =
        "insert into build_workers (id, tenant_id, worker_name, worker_type, concurrent_builds_limit, status)
                     values (gen_random_uuid(), $1, 'everyone', 'kubernetes', 1, 'healthy')";
    let shared = sqlx::query(statement).bind(None::<uuid::Uuid>).execute(&pool).await;
    assert_eq!(refused_by(shared, statement), "build_workers_tenant_id_worker_name_key");
    let green: uuid::Uuid = sqlx::query_scalar("select md5('green')::uuid").fetch_one(&pool).await?;
    sqlx::query(statement).bind(Some(green)).execute(&pool).await?;
    Ok(())
}
