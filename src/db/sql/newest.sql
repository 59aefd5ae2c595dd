-- One row a Build, which tells its whole status. The place in the queue and the tail of the log are looked
-- up only for an attempt that waits or has failed. The tail is that of the step that failed, where one did.
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
    b.pod_waiting_reason,
    b.pod_waiting_message,
    b.pod_given_up_at,
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
    b.steps_total,
    s.done as "steps_done?",
    s.cached as "steps_cached?",
    s.current as "step?",
    case b.status when 'failed' then coalesce((
        select printed.lines[greatest(cardinality(printed.lines) - 9, 1):]
        from build_steps f,
            lateral (select string_to_array(nullif(concat_ws(E'\n', f.stdout, f.stderr), ''), E'\n') as lines) printed
        where f.build_id = b.id and f.status = 'failed'
        order by f.step_number
        limit 1
    ), array(
        select tail.log_content
        from (
            select l.log_content, l.line_number
            from build_logs l
            where l.build_id = b.id
            order by l.line_number desc
            limit 10
        ) tail
        order by tail.line_number
    )) end as log_tail
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
    select count(*) filter (where n.status not in ('pending', 'running')) as done,
           count(*) filter (where n.cached) as cached,
           -- The first that failed, or the newest that runs.
           coalesce(
               (array_agg(n.step_name order by n.step_number) filter (where n.status = 'failed'))[1],
               (array_agg(n.step_name order by n.step_number desc) filter (where n.status = 'running'))[1]
           ) as current
    from build_steps n
    where n.build_id = b.id
) s on b.steps_total is not null
left join lateral (
    select v.waiting_for,
           v.message,
           -- Counted, since one place is asked for and not the order of all.
           case
               when v.waiting_for is null then null
               when v.by_priority then (
                   select count(*) from builds o
                   where o.tenant_id = b.tenant_id and o.status = 'queued'
                     and (-o.priority, o.queued_at, o.id) <= (-b.priority, b.queued_at, b.id))
               else (
                   select count(*) from builds o
                   where o.tenant_id = b.tenant_id and o.status = 'queued'
                     and (o.queued_at, o.id) <= (b.queued_at, b.id))
           end as position
    from waiting_builds v
    where b.status = 'queued' and v.build_id = b.id
    -- Kept apart: joined with the rest, the whole queue would be worked out for every Build.
    offset 0
) q on true
