-- How many builds ran at once, at any instant of the history, against what may. Limits have no history
-- of their own: they are compared from $1 on, or, without it, with what runs now. That two attempts
-- of one Build never run at once is no setting, and is compared always.
with spans as (
    select b.tenant_id, b.project_id, b.resource_uid, b.resource_namespace || '/' || b.resource_name as build,
           b.tenant_id || ' ' || c.build_method as method,
           -- The row names the worker of its last claim only.
           case when n.to_status is distinct from 'queued' then b.worker_id end as worker_id,
           h.changed_at as began, n.changed_at as ended
    from build_status_history h
    join builds b on b.id = h.build_id
    join build_configs c on c.build_id = b.id
    left join build_status_history n on n.build_id = h.build_id and n.sequence = h.sequence + 1
    where h.to_status = 'in_progress'
),
events as (
    select g.kind, g.key, e.at, e.change
    from spans s
    cross join lateral (values
        ('tenant', s.tenant_id::text), ('project', s.project_id::text), ('method', s.method),
        ('worker', s.worker_id::text), ('build', s.resource_uid)
    ) as g (kind, key)
    cross join lateral (values (s.began, 1), (s.ended, -1)) as e (at, change)
    where g.key is not null and e.at is not null
),
-- What ends at an instant makes room for what begins at it.
running as (
    select kind, key, at,
           sum(change) over (partition by kind, key order by at, change rows unbounded preceding) as builds
    from events
),
peaks as (
    select kind, key, coalesce(max(builds) filter (where at >= $1), 0) as since, max(builds) as ever
    from running
    group by kind, key
),
now as (
    select g.kind, g.key, count(*) as builds
    from builds b
    join build_configs c on c.build_id = b.id
    cross join lateral (values
        ('tenant', b.tenant_id::text), ('project', b.project_id::text),
        ('method', b.tenant_id || ' ' || c.build_method), ('worker', b.worker_id::text)
    ) as g (kind, key)
    where b.status = 'in_progress'
    group by g.kind, g.key
),
limits as (
    select 'tenant' as kind, t.id::text as key, 'tenant ' || t.name as subject,
           coalesce(p.max_concurrent_builds, s.max_concurrent_builds) as most
    from tenants t
    left join build_concurrency_policies p on p.tenant_id = t.id
    left join operator_settings s on s.singleton
    union all
    select 'project', j.id::text, format('project %s of tenant %s', j.name, t.name), p.max_concurrent_per_project
    from projects j
    join tenants t on t.id = j.tenant_id
    join build_concurrency_policies p on p.tenant_id = t.id
    union all
    select 'method', p.tenant_id || ' ' || m.method, format('method %s of tenant %s', m.method, t.name), m.most
    from build_concurrency_policies p
    join tenants t on t.id = p.tenant_id
    cross join lateral (values
        ('kaniko', p.kaniko_max_concurrent), ('buildx', p.buildx_max_concurrent),
        ('container', p.container_max_concurrent), ('packer', p.packer_max_concurrent),
        ('paketo', p.paketo_max_concurrent)
    ) as m (method, most)
    union all
    select 'worker', w.id::text, 'worker ' || w.worker_name, w.concurrent_builds_limit
    from build_workers w
),
examined as (
    select count(*) as number from spans
),
broken as (
    select l.subject, format('ran %s builds at once since then, where %s may', p.since, l.most) as problem
    from limits l join peaks p using (kind, key)
    where $1::timestamptz is not null and p.since > l.most
    union all
    select l.subject, format('runs %s builds, where %s may (or may since a moment ago)', n.builds, l.most)
    from limits l join now n using (kind, key)
    where $1::timestamptz is null and n.builds > l.most
    union all
    select (select s.build from spans s where s.resource_uid = p.key limit 1),
           format('%s attempts of it ran at once', p.ever)
    from peaks p
    where p.kind = 'build' and p.ever > 1
)
select examined.number as "examined!", broken.subject as "subject?", broken.problem as "problem?"
from examined left join broken on true
order by broken.subject
