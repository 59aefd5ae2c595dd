-- Every worker with what runs on it. Counts come from the rows themselves: the column
-- current_builds_count is what people read.
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
       (select count(*) from builds b where b.worker_id = w.id and b.status = 'in_progress')::int as "running!"
from build_workers w
-- What a deleted worker still runs goes on, and is counted.
where w.declared or w.tenant_id is null and w.worker_name = $1 or w.current_builds_count > 0
order by w.id
