-- What runs on each worker, where it is not what is told.
with running as materialized (
    select worker_id, count(*)::int as builds from builds where status = 'in_progress' group by worker_id
)
update build_workers w
set current_builds_count = c.running,
    status = case when w.status in ('healthy', 'busy')
             then case when c.running >= w.concurrent_builds_limit then 'busy' else 'healthy' end
             else w.status end
from (
    select w.id, coalesce(r.builds, 0) as running
    from build_workers w
    left join running r on r.worker_id = w.id
) c
where c.id = w.id and w.current_builds_count <> c.running
