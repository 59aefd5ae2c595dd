-- The first builds of every group with room, as many as a fair share of $1 places twice over, each with what
-- limits it. A build whose older run still runs, or that is not due yet, is no head. The cost
-- follows what runs and the groups of tenants with room, not the backlog: tenants that wait and
-- their groups are found by skipping through the queue's index.
with recursive waiting (tenant_id) as (
    (select tenant_id from builds where status = 'queued' order by tenant_id limit 1)
    union all
    select (select b.tenant_id from builds b where b.status = 'queued' and b.tenant_id > w.tenant_id
            order by b.tenant_id limit 1)
    from waiting w
    where w.tenant_id is not null
),
running as materialized (
    select tenant_id, project_id, build_method, count(*)::int as builds
    from builds
    where status = 'in_progress'
    group by tenant_id, project_id, build_method
),
-- Asked with `not in`, which is hashed once: an anti-join is planned by statistics that lag behind a burst.
busy as materialized (
    select resource_uid from builds where status = 'in_progress'
),
of_tenant as materialized (
    select tenant_id, sum(builds)::int as builds from running group by tenant_id
),
of_project as materialized (
    select tenant_id, project_id, sum(builds)::int as builds from running group by tenant_id, project_id
),
of_method as materialized (
    select tenant_id, build_method, sum(builds)::int as builds from running group by tenant_id, build_method
),
tenants as materialized (
    select w.tenant_id,
           coalesce(r.builds, 0) as running,
           coalesce(p.max_concurrent_builds, s.max_concurrent_builds) as most,
           coalesce(p.weight, 1) as weight,
           coalesce(p.priority_dispatch_enabled, s.priority_dispatch_enabled) as by_priority,
           p.max_concurrent_per_project as most_per_project,
           p.kaniko_max_concurrent, p.buildx_max_concurrent, p.container_max_concurrent,
           p.packer_max_concurrent, p.paketo_max_concurrent
    from waiting w
    cross join operator_settings s
    left join of_tenant r on r.tenant_id = w.tenant_id
    left join build_concurrency_policies p on p.tenant_id = w.tenant_id
    where w.tenant_id is not null
),
groups (tenant_id, queue_group) as (
    select t.tenant_id,
           (select b.queue_group from builds b where b.tenant_id = t.tenant_id and b.status = 'queued'
            order by b.queue_group limit 1)
    from tenants t
    where t.running < t.most
    union all
    select g.tenant_id,
           (select b.queue_group from builds b
            where b.tenant_id = g.tenant_id and b.status = 'queued' and b.queue_group > g.queue_group
            order by b.queue_group limit 1)
    from groups g
    where g.queue_group is not null
),
limited as materialized (
    select g.tenant_id, g.queue_group, t.weight, t.by_priority, t.running, t.most, t.most_per_project,
           a.project_id, a.build_method, a.placement,
           coalesce(p.builds, 0) as project_running,
           coalesce(m.builds, 0) as method_running,
           case a.build_method
               when 'kaniko' then t.kaniko_max_concurrent
               when 'buildx' then t.buildx_max_concurrent
               when 'container' then t.container_max_concurrent
               when 'packer' then t.packer_max_concurrent
               when 'paketo' then t.paketo_max_concurrent
           end as most_of_method,
           -- Enough for a plan that gives each group its turns.
           greatest(2, ceil(2.0 * $1::int / count(*) over ()))::int as share
    from groups g
    join tenants t on t.tenant_id = g.tenant_id
    -- All builds of a group are alike in this.
    cross join lateral (
        select b.project_id, b.build_method, b.placement
        from builds b
        where b.tenant_id = g.tenant_id and b.queue_group = g.queue_group and b.status = 'queued'
        limit 1
    ) a
    left join of_project p on p.tenant_id = g.tenant_id and p.project_id = a.project_id
    left join of_method m on m.tenant_id = g.tenant_id and m.build_method = a.build_method
    where g.queue_group is not null
)
select g.tenant_id as "tenant_id!",
       g.running as "running!",
       g.most as "most!",
       g.weight as "weight!",
       g.by_priority as "by_priority!",
       g.project_id as "project_id!",
       g.project_running as "project_running!",
       g.most_per_project,
       g.build_method as "build_method!",
       g.method_running as "method_running!",
       g.most_of_method,
       g.queue_group as "queue_group!",
       g.placement,
       g.share as "share!",
       h.id as "id!",
       h.priority as "priority!",
       h.queued_at as "queued_at!",
       -- Where the image's cache is warm.
       (select w.worker_id from builds w where w.image_id = h.image_id and w.status = 'success'
        order by w.completed_at desc limit 1) as warm,
       -- Where the attempt before failed.
       case when h.attempt > 1 then
           (select f.worker_id from builds f
            where f.resource_uid = h.resource_uid and f.run = h.run and f.attempt = h.attempt - 1)
       end as avoid
from limited g
cross join lateral (
    (select b.id, b.priority, b.queued_at, b.image_id, b.resource_uid, b.run, b.attempt
     from builds b
     where g.by_priority and b.tenant_id = g.tenant_id and b.queue_group = g.queue_group and b.status = 'queued'
       and (b.not_before is null or b.not_before <= now())
       and b.resource_uid not in (select resource_uid from busy)
     order by b.priority desc, b.queued_at, b.id
     limit g.share)
    union all
    (select b.id, b.priority, b.queued_at, b.image_id, b.resource_uid, b.run, b.attempt
     from builds b
     where not g.by_priority and b.tenant_id = g.tenant_id and b.queue_group = g.queue_group and b.status = 'queued'
       and (b.not_before is null or b.not_before <= now())
       and b.resource_uid not in (select resource_uid from busy)
     order by b.queued_at, b.id
     limit g.share)
) h
where (g.most_per_project is null or g.project_running < g.most_per_project)
  and (g.most_of_method is null or g.method_running < g.most_of_method)
order by g.tenant_id, g.queue_group
