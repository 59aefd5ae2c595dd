-- The results of attempts that ended in the queue, and that there is nothing to clean after them.
with results as (
    insert into build_results (id, build_id, project_id, status, failure_reason, failure_stage,
        total_duration_milliseconds, queue_wait_milliseconds, cleanup_status, retry_count, is_retry, original_build_id)
    select ended.result_id,
           b.id,
           b.project_id,
           $3,
           $4,
           $5,
           w.waited,
           w.waited,
           'completed',
           b.attempt - 1,
           b.attempt > 1,
           (select f.id from builds f
            where b.attempt > 1 and f.resource_uid = b.resource_uid and f.run = b.run and f.attempt = 1)
    from unnest($1::uuid[], $2::uuid[]) as ended (id, result_id)
    join builds b on b.id = ended.id
    cross join lateral (
        select greatest(0, extract(epoch from now() - greatest(b.queued_at, coalesce(b.not_before, b.queued_at))) * 1000)::bigint as waited
    ) w
)
update builds set cleanup_at = now() where id = any($1)
