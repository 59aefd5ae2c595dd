-- One row a Build, which tells its whole status. The place in the queue and the tail of the log are looked
-- up only for an attempt that waits or has failed.
select
    b.resource_uid,
    b.id,
    b.build_number,
    b.run,
    b.attempt,
    b.status,
    b.inputs_hash,
    b.observed_rerun,
    b.observed_generation,
    b.queued_at,
    b.started_at,
    b.completed_at,
    b.cancel_requested_at,
    b.job_created_at,
    b.error_message,
    r.failure_reason as "failure_reason?",
    r.failure_stage as "failure_stage?",
    r.exit_code as "exit_code?",
    r.output_image_url as "output_image_url?",
    r.output_image_digest as "output_image_digest?",
    a.artifact_size_bytes as "artifact_size_bytes?",
    w.worker_name as "worker_name?",
    q.position as "position?",
    q.waiting_for as "waiting_for?",
    q.message as "waiting_message?",
    case b.status when 'failed' then array(
        select tail.log_content
        from (
            select l.log_content, l.line_number
            from build_logs l
            where l.build_id = b.id
            order by l.line_number desc
            limit 10
        ) tail
        order by tail.line_number
    ) end as log_tail
from unnest($1::text[]) as asked (resource_uid)
cross join lateral (
    select *
    from builds n
    where n.resource_uid = asked.resource_uid
    order by n.run desc, n.attempt desc
    limit 1
) b
left join build_results r on r.build_id = b.id
left join build_artifacts a on a.build_id = b.id and a.artifact_type = 'docker_image'
    and a.artifact_name = r.output_image_url
left join build_workers w on w.id = b.worker_id
left join lateral (
    select v.position, v.waiting_for, v.message
    from build_queue v
    where b.status = 'queued' and v.tenant_id = b.tenant_id and v.build_id = b.id
    -- Kept apart: joined with the rest, the whole queue would be worked out for every Build.
    offset 0
) q on true
