-- Workers with what runs on them, and whether they take another build. Counts come from the rows
-- themselves: the column current_builds_count is what people read.
select w.id,
       w.tenant_id,
       w.concurrent_builds_limit,
       w.current_builds_count,
       r.running as "running!",
       (w.status <> 'offline' and r.running < w.concurrent_builds_limit) as "takes_builds!"
from build_workers w
cross join lateral (
    select count(*)::int as running from builds b where b.worker_id = w.id and b.status = 'in_progress'
) r
order by w.id
