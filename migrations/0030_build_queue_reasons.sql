-- The queue's view with every limit of a policy, the built-in worker as the last resort, and an estimate of the start.

create or replace view build_queue as
with running as (
    select tenant_id, project_id, build_method, worker_id, count(*) as builds
    from builds
    where status = 'in_progress'
    group by tenant_id, project_id, build_method, worker_id
),
running_by_tenant as (
    select tenant_id, sum(builds)::bigint as running from running group by tenant_id
),
workers as materialized (
    select w.*, (w.status <> 'offline' and not w.cordoned) as takes, coalesce(r.running, 0) as running
    from build_workers w
    left join (select worker_id, sum(builds)::bigint as running from running group by worker_id) r on r.worker_id = w.id
    where w.declared or (w.tenant_id is null and w.worker_name = 'cluster')
),
placed as not materialized (
    select
        b.id, b.tenant_id, b.project_id, b.build_method, b.placement, b.priority, b.queued_at, b.not_before, b.error_message,
        b.resource_uid, b.resource_name, b.run, b.attempt,
        coalesce(r.running, 0) as running,
        coalesce(p.max_concurrent_builds, s.max_concurrent_builds) as tenant_limit,
        p.max_concurrent_per_project as project_limit,
        case b.build_method
            when 'kaniko' then p.kaniko_max_concurrent
            when 'buildx' then p.buildx_max_concurrent
            when 'container' then p.container_max_concurrent
            when 'packer' then p.packer_max_concurrent
            when 'paketo' then p.paketo_max_concurrent
        end as method_limit,
        coalesce(p.weight, 1) as weight,
        row_number() over (
            partition by b.tenant_id
            order by
                case when coalesce(p.priority_dispatch_enabled, s.priority_dispatch_enabled) then b.priority end desc nulls last,
                b.queued_at, b.id
        ) as position
    from builds b
    left join build_concurrency_policies p on p.tenant_id = b.tenant_id
    left join operator_settings s on s.singleton
    left join running_by_tenant r on r.tenant_id = b.tenant_id
    where b.status = 'queued'
),
-- Serving the tenant that runs fewest per weight, again and again, is this order: the n-th waiting build of a tenant
-- has its turn when the tenant runs n - 1 more. Grouped only so that the planner sees one row per build: it then
-- drops this part for a reader who does not ask for overall_position, and reads one tenant's queue where one is named.
overall as (
    select id, min(place) as overall_position
    from (select id, row_number() over (order by (running + position - 1)::numeric / weight, queued_at, id) as place from placed) ranked
    group by id
),
-- The places stand above; what follows is worked out only for the rows a reader asks for.
judged as (
    select
        q.*, overall.overall_position, t.name as tenant_name, j.name as project_name,
        older.run as older_run, older.attempt as older_attempt, fit.*,
        case
            when older.run is not null then 'PreviousRun'
            when q.not_before > now() then 'BackingOff'
            when fit.workers is null then 'NoMatchingWorker'
            when fit.taking = 0 then 'WorkersOffline'
            when q.running >= q.tenant_limit then 'TenantLimit'
            when in_project.builds >= q.project_limit then 'ProjectLimit'
            when of_method.builds >= q.method_limit then 'MethodLimit'
            when not fit.has_room then 'WorkersBusy'
        end as waiting_for,
        in_project.builds as project_running,
        of_method.builds as method_running
    from placed q
    join tenants t on t.id = q.tenant_id
    join projects j on j.id = q.project_id
    left join overall on overall.id = q.id
    left join lateral (
        select o.run, o.attempt
        from builds o
        where o.resource_uid = q.resource_uid and (o.run, o.attempt) < (q.run, q.attempt) and o.status = 'in_progress'
        order by o.run desc, o.attempt desc
        limit 1
    ) older on true
    cross join lateral (
        select coalesce(sum(r.builds), 0) as builds from running r where r.tenant_id = q.tenant_id and r.project_id = q.project_id
    ) in_project
    cross join lateral (
        select coalesce(sum(r.builds), 0) as builds from running r where r.tenant_id = q.tenant_id and r.build_method = q.build_method
    ) of_method
    -- The built-in worker takes what no declared worker fits: the declared ones are one row, it is another.
    left join lateral (
        select
            count(*) as workers,
            string_agg(w.worker_name || case when w.status = 'offline' then ' is offline' else ' is cordoned' end, ', ' order by w.worker_name)
                filter (where not w.takes) as away,
            count(*) filter (where w.takes) as taking,
            coalesce(bool_or(w.running < w.concurrent_builds_limit) filter (where w.takes), false) as has_room,
            sum(w.running) filter (where w.takes) as worker_builds,
            sum(w.concurrent_builds_limit) filter (where w.takes) as worker_limit
        from workers w
        where (w.tenant_id is null or w.tenant_id = q.tenant_id)
            and (w.methods = '{}' or q.build_method = any (w.methods))
            and (q.placement ->> 'name' is null or w.worker_name = q.placement ->> 'name')
            and (q.placement ->> 'zone' is null or w.zone = q.placement ->> 'zone')
            -- A label may be a boolean or a number in JSON; a selector is text. Compared as text.
            and not exists (
                select from jsonb_each_text(coalesce(q.placement -> 'selector', '{}')) wanted
                where w.labels ->> wanted.key is distinct from wanted.value
            )
        group by w.declared
        order by w.declared desc
        limit 1
    ) fit on true
)
select
    id as build_id,
    tenant_id,
    project_id,
    build_method,
    priority,
    queued_at,
    position,
    overall_position,
    waiting_for,
    case waiting_for
        when 'PreviousRun' then format('run %s, attempt %s of %s has not ended', older_run, older_attempt, resource_name)
        when 'BackingOff' then format('not before %s%s', to_char(not_before at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), ': ' || error_message)
        when 'NoMatchingWorker' then format('no worker takes builds of method %s%s', build_method, ' that ask for ' || placement::text)
        when 'WorkersOffline' then format('of the workers that fit none takes builds: %s', away)
        when 'TenantLimit' then format('tenant %s runs %s of %s builds', tenant_name, running, tenant_limit)
        when 'ProjectLimit' then format('project %s runs %s of %s builds', project_name, project_running, project_limit)
        when 'MethodLimit' then format('tenant %s runs %s of %s builds of method %s', tenant_name, method_running, method_limit, build_method)
        when 'WorkersBusy' then format('workers that fit run %s of %s builds', worker_builds, worker_limit)
        else 'ready to be claimed'
    end as message,
    case
        when waiting_for = 'BackingOff' then not_before
        when waiting_for is null then now()
        when waiting_for in ('TenantLimit', 'ProjectLimit', 'MethodLimit', 'WorkersBusy') then (
            -- As many at once as may; as long each as the tenant's last twenty. Each wave of them takes one mean.
            select now() + ceil(position::numeric / nullif(least(tenant_limit, project_limit, method_limit, worker_limit), 0))::float8
                * avg(recent.completed_at - recent.started_at)
            from (
                select b.completed_at, b.started_at
                from builds b
                where b.tenant_id = judged.tenant_id and b.completed_at is not null and b.started_at is not null
                order by b.completed_at desc
                limit 20
            ) recent
        )
    end as estimated_start
from judged;

comment on column build_queue.waiting_for is 'PreviousRun, BackingOff, NoMatchingWorker, WorkersOffline (or cordoned), TenantLimit, ProjectLimit, MethodLimit or WorkersBusy: the first that holds it back. Null where nothing does.';
comment on column build_queue.estimated_start is 'When it is expected to start: the end of its backoff; or one mean duration of the tenant''s last twenty builds for each wave of as many builds as may run at once, up to its own place. Null where that is not known.';
