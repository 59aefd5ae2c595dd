-- The result of an attempt that ran and, where it succeeded, its image. Durations come from the
-- rows' own times: queued_at (or not_before) → started_at → completed_at.
with ended as (
    select b.id,
           b.project_id,
           b.image_id,
           greatest(b.queued_at, coalesce(b.not_before, b.queued_at)) as waiting_since,
           b.started_at,
           b.completed_at
    from builds b
    where b.id = $1
),
kept as (
    select coalesce(c.spec #>> '{retention,artifacts}', 'permanent') as policy,
           e.completed_at + case c.spec #>> '{retention,artifacts}'
               when 'days_30' then interval '30 days'
               when 'days_90' then interval '90 days'
               when 'days_365' then interval '365 days'
               when 'delete_on_success' then interval '0'
           end as until
    from ended e
    join build_configs c on c.build_id = e.id
),
due as (
    update builds
    set cleanup_due_at = now() + make_interval(secs => coalesce($13::float8, 0)),
        -- A short build can end before its Job was recorded.
        job_created_at = coalesce(job_created_at, case when $13::float8 is not null then now() end),
        git_commit = $14,
        git_branch = $15,
        git_author = $16,
        git_message = $17
    where id = $1
),
artifact as (
    insert into build_artifacts (id, build_id, project_id, artifact_type, artifact_name, artifact_location,
        artifact_size_bytes, sha256_digest, image_id, retention_policy, expires_at)
    select $11, id, project_id, 'docker_image', $5, $5 || '@' || $6, $12, $6, image_id, kept.policy, kept.until
    from ended
    cross join kept
    where $5::text is not null
)
insert into build_results (id, build_id, project_id, status, exit_code, output_image_id, output_image_url,
    output_image_digest, failure_reason, failure_stage, total_duration_milliseconds, queue_wait_milliseconds,
    build_execution_milliseconds, artifact_push_milliseconds)
select $2,
       id,
       project_id,
       $3,
       $4,
       case when $5::text is not null then image_id end,
       $5,
       $6,
       $7,
       $8,
       greatest(0, extract(epoch from completed_at - waiting_since) * 1000)::bigint,
       greatest(0, extract(epoch from started_at - waiting_since) * 1000)::bigint,
       $9,
       $10
from ended
