-- Queued builds that have waited for longer than they may, at most $1, each with its limit and what it waits for.
-- A backoff is no wait. The cost follows the tenants that wait, not the queue.
with recursive waiting (tenant_id) as (
    (select tenant_id from builds where status = 'queued' order by tenant_id limit 1)
    union all
    select (select b.tenant_id from builds b where b.status = 'queued' and b.tenant_id > w.tenant_id
            order by b.tenant_id limit 1)
    from waiting w
    where w.tenant_id is not null
),
limits as (
    select w.tenant_id,
           coalesce(p.max_queued_wait_minutes, s.max_queued_wait_minutes) as minutes,
           p.max_queued_wait_minutes is not null as by_policy
    from waiting w
    left join build_concurrency_policies p on p.tenant_id = w.tenant_id
    left join operator_settings s on s.singleton
    where w.tenant_id is not null
),
overdue as materialized (
    select b.id, l.minutes, l.by_policy
    from limits l
    cross join lateral (
        select b.id
        from builds b
        where b.tenant_id = l.tenant_id
          and b.status = 'queued'
          and b.queued_at <= now() - make_interval(mins => l.minutes)
          and (b.not_before is null or b.not_before <= now() - make_interval(mins => l.minutes))
        order by b.queued_at, b.id
        limit $1
    ) b
    where l.minutes is not null
    limit $1
)
select o.id as "id!", o.minutes as "minutes!", o.by_policy as "by_policy!", w.message as "message!"
from overdue o
cross join lateral (
    -- Kept apart: joined, the reasons of the whole queue would be worked out.
    select message from waiting_builds where build_id = o.id offset 0
) w
