-- Every worker that is not offline was seen now; and which share of the last 7 days, or of its life where that is
-- shorter, each was not offline.
with life as (
    select w.id, greatest(w.created_at, statement_timestamp() - interval '7 days') as since
    from build_workers w
),
shares as (
    select l.id,
           extract(epoch from statement_timestamp() - l.since) as seconds,
           coalesce((
               select sum(extract(epoch from coalesce(o.ended_at, statement_timestamp()) - greatest(o.began_at, l.since)))
               from build_worker_outages o
               where o.worker_id = l.id and coalesce(o.ended_at, statement_timestamp()) > l.since
           ), 0) as offline
    from life l
)
update build_workers w
set last_heartbeat = case when w.status = 'offline' then w.last_heartbeat else statement_timestamp() end,
    uptime_percent = case when s.seconds > 0 then round(100 * (1 - least(s.offline / s.seconds, 1)), 2)
                          when w.status = 'offline' then 0
                          else 100 end
from shares s
where s.id = w.id
