-- The result of an attempt that ran. Durations come from the
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
due as (
    update builds
    set cleanup_due_at = now() + make_interval(secs => coalesce($11::float8, 0)),
        -- A short build can end before its Job was recorded.
        job_created_at = coalesce(job_created_at, case when $11::float8 is not null then now() end),
        git_commit = $12,
        git_branch = $13,
        git_author = $14,
        git_message = $15
    where id = $1
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
