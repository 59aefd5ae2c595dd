-- The first builds of every tenant with room, as many as it has room for. A build whose older run
-- still runs, or that is not due yet, is no head. The cost follows tenants with a queue, not the
-- backlog: the waiting tenants are found by skipping through the queue's index.
with recursive waiting (tenant_id) as (
    (select tenant_id from builds where status = 'queued' order by tenant_id limit 1)
    union all
    select (select b.tenant_id from builds b where b.status = 'queued' and b.tenant_id > w.tenant_id
            order by b.tenant_id limit 1)
    from waiting w
    where w.tenant_id is not null
),
limits as (
    select t.tenant_id,
           (select count(*) from builds b where b.tenant_id = t.tenant_id and b.status = 'in_progress')::int as running,
           coalesce(p.max_concurrent_builds, s.max_concurrent_builds) as tenant_limit,
           coalesce(p.weight, 1) as weight,
           coalesce(p.priority_dispatch_enabled, s.priority_dispatch_enabled) as by_priority
    from waiting t
    cross join operator_settings s
    left join build_concurrency_policies p on p.tenant_id = t.tenant_id
    where t.tenant_id is not null
)
select l.tenant_id as "tenant_id!",
       l.running as "running!",
       l.tenant_limit as "tenant_limit!",
       l.weight as "weight!",
       l.by_priority as "by_priority!",
       h.id as "id!",
       h.priority as "priority!",
       h.queued_at as "queued_at!"
from limits l
cross join lateral (
    (select b.id, b.priority, b.queued_at
     from builds b
     where l.by_priority and b.tenant_id = l.tenant_id and b.status = 'queued'
       and (b.not_before is null or b.not_before <= now())
       and not exists (select from builds o
                       where o.resource_uid = b.resource_uid and o.status = 'in_progress')
     order by b.priority desc, b.queued_at, b.id
     limit least($1, l.tenant_limit - l.running))
    union all
    (select b.id, b.priority, b.queued_at
     from builds b
     where not l.by_priority and b.tenant_id = l.tenant_id and b.status = 'queued'
       and (b.not_before is null or b.not_before <= now())
       and not exists (select from builds o
                       where o.resource_uid = b.resource_uid and o.status = 'in_progress')
     order by b.queued_at, b.id
     limit least($1, l.tenant_limit - l.running))
) h
where l.running < l.tenant_limit
order by l.tenant_id, h.queued_at, h.id
