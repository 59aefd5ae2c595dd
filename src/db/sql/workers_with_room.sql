-- Workers that take another build. Counts come from the rows themselves: the column
-- current_builds_count is what people read.
select w.id,
       w.tenant_id,
       w.concurrent_builds_limit,
       (select count(*) from builds b where b.worker_id = w.id and b.status = 'in_progress')::int as "running!"
from build_workers w
where w.status <> 'offline'
  and (select count(*) from builds b where b.worker_id = w.id and b.status = 'in_progress') < w.concurrent_builds_limit
order by w.id
