-- An outage lasts exactly as long as its worker is offline. Of those that ended more than 7 days ago only a worker's
-- last is kept: it says since when the worker is well.
with begun as (
    insert into build_worker_outages (worker_id, began_at)
    select w.id, statement_timestamp()
    from build_workers w
    where w.status = 'offline'
      and not exists (select from build_worker_outages o where o.worker_id = w.id and o.ended_at is null)
    on conflict do nothing
),
ended as (
    update build_worker_outages o
    set ended_at = statement_timestamp()
    from build_workers w
    where w.id = o.worker_id and o.ended_at is null and w.status <> 'offline'
)
delete from build_worker_outages o
where o.ended_at < now() - interval '7 days'
  and exists (select from build_worker_outages later where later.worker_id = o.worker_id and later.began_at > o.began_at)
