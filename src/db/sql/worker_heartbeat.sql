-- Every worker that is not offline was seen now; and which share of the last 7 days, or of its life where that is
-- shorter, each was not offline. Workers that are declared no more are left alone, and of one that is offline only
-- another share is written.
with shares as (
    select w.id,
           extract(epoch from statement_timestamp() - life.since) as seconds,
           coalesce((
               select sum(extract(epoch from coalesce(o.ended_at, statement_timestamp()) - greatest(o.began_at, life.since)))
               from build_worker_outages o
               where o.worker_id = w.id and coalesce(o.ended_at, statement_timestamp()) > life.since
           ), 0) as offline
    from build_workers w
    cross join lateral (select greatest(w.created_at, statement_timestamp() - interval '7 days') as since) life
    where w.declared or (w.tenant_id is null and w.worker_name = 'cluster')
),
seen as (
    select w.id,
           w.status <> 'offline' as well,
           case when s.seconds > 0 then round(100 * (1 - least(s.offline / s.seconds, 1)), 2)
                when w.status = 'offline' then 0
                else 100 end as uptime
    from shares s
    join build_workers w on w.id = s.id
)
update build_workers w
set last_heartbeat = case when seen.well then statement_timestamp() else w.last_heartbeat end,
    uptime_percent = seen.uptime
from seen
where seen.id = w.id
  and (seen.well or w.uptime_percent is distinct from seen.uptime)
