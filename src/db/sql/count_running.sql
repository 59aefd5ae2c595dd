-- What runs on each worker, where it is not what is told.
update build_workers w
set current_builds_count = c.running,
    status = case when w.status in ('healthy', 'busy')
             then case when c.running >= w.concurrent_builds_limit then 'busy' else 'healthy' end
             else w.status end
from (
    select w.id, (select count(*) from builds b where b.worker_id = w.id and b.status = 'in_progress')::int as running
    from build_workers w
) c
where c.id = w.id and w.current_builds_count <> c.running
