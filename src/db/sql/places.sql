-- Every worker with what runs on it. Counts come from the rows themselves: the column
-- current_builds_count is what people read.
with running as materialized (
    select worker_id, count(*)::int as builds from builds where status = 'in_progress' group by worker_id
)
select w.id,
       w.worker_name,
       w.tenant_id,
       w.zone,
       w.labels,
       w.methods,
       w.declared,
       (w.status <> 'offline' and not w.cordoned) as "takes!",
       w.concurrent_builds_limit,
       w.current_builds_count,
       coalesce(r.builds, 0) as "running!"
from build_workers w
left join running r on r.worker_id = w.id
-- What a deleted worker still runs goes on, and is counted.
where w.declared or w.tenant_id is null and w.worker_name = $1 or w.current_builds_count > 0
order by w.id
