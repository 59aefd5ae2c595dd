-- The groups of each tenant with room, with what limits them and what runs: all of a tenant that has up to $1. What a
-- group is users say freely, and so is how many there are: of a tenant with more it is those of its $1 oldest builds,
-- the first $1, and as many from wherever the lot falls, so that each has its turn. The cost follows what runs and
-- the tenants that wait, with at most a multiple of $1 for each, not the backlog: tenants and groups are found by
-- skipping through the queue's index.
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
first_groups (tenant_id, queue_group, place) as (
    select t.tenant_id,
           (select b.queue_group from builds b where b.tenant_id = t.tenant_id and b.status = 'queued'
            order by b.queue_group limit 1),
           1
    from tenants t
    where t.running < t.most
    union all
    select g.tenant_id,
           (select b.queue_group from builds b
            where b.tenant_id = g.tenant_id and b.status = 'queued' and b.queue_group > g.queue_group
            order by b.queue_group limit 1),
           g.place + 1
    from first_groups g
    where g.queue_group is not null and g.place <= $1::int
),
-- A group is a hash: the lot falls on each alike.
with_more as materialized (
    select tenant_id, gen_random_uuid() as lot from first_groups where place > $1::int and queue_group is not null
),
more_groups (tenant_id, queue_group, place) as (
    select m.tenant_id,
           (select b.queue_group from builds b
            where b.tenant_id = m.tenant_id and b.status = 'queued' and b.queue_group >= m.lot
            order by b.queue_group limit 1),
           1
    from with_more m
    union all
    select g.tenant_id,
           (select b.queue_group from builds b
            where b.tenant_id = g.tenant_id and b.status = 'queued' and b.queue_group > g.queue_group
            order by b.queue_group limit 1),
           g.place + 1
    from more_groups g
    where g.queue_group is not null and g.place < $1::int
),
groups as (
    select tenant_id, queue_group from first_groups where queue_group is not null
    union
    select tenant_id, queue_group from more_groups where queue_group is not null
    union
    select m.tenant_id, (select b.queue_group from builds b where b.id = oldest.id)
    from with_more m
    -- No more than the index has: whatever the planner thinks of this tenant, it is read in the index's order.
    cross join lateral (
        select b.id
        from builds b
        where b.tenant_id = m.tenant_id and b.status = 'queued'
        order by b.queued_at, b.id
        limit $1::int
    ) oldest
)
select g.tenant_id as "tenant_id!",
       t.running as "running!",
       t.most as "most!",
       t.weight as "weight!",
       t.by_priority as "by_priority!",
       w.tenant_id is not null as "has_more!",
       a.project_id as "project_id!",
       coalesce(p.builds, 0) as "project_running!",
       t.most_per_project,
       a.build_method as "build_method!",
       coalesce(m.builds, 0) as "method_running!",
       case a.build_method
           when 'kaniko' then t.kaniko_max_concurrent
           when 'buildx' then t.buildx_max_concurrent
           when 'container' then t.container_max_concurrent
           when 'packer' then t.packer_max_concurrent
           when 'paketo' then t.paketo_max_concurrent
       end as most_of_method,
       g.queue_group as "queue_group!",
       a.placement
from groups g
join tenants t on t.tenant_id = g.tenant_id
left join with_more w on w.tenant_id = g.tenant_id
-- All builds of a group are alike in this.
cross join lateral (
    select b.project_id, b.build_method, b.placement
    from builds b
    where b.tenant_id = g.tenant_id and b.queue_group = g.queue_group and b.status = 'queued'
    limit 1
) a
left join of_project p on p.tenant_id = g.tenant_id and p.project_id = a.project_id
left join of_method m on m.tenant_id = g.tenant_id and m.build_method = a.build_method
order by g.tenant_id, g.queue_group
