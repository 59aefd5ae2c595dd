-- What holds a queued build back, apart from its place: the reason of one build costs the same however long the queue
-- is, and a place is worked out only where it is asked for.

create view waiting_builds as
with running as (
    select tenant_id, project_id, build_method, worker_id, count(*) as builds
    from builds
    where status = 'in_progress'
    group by tenant_id, project_id, build_method, worker_id
),
workers as materialized (
    select w.*, (w.status <> 'offline' and not w.cordoned) as takes, coalesce(r.running, 0) as running
    from build_workers w
    left join (select worker_id, sum(builds)::bigint as running from running group by worker_id) r on r.worker_id = w.id
    where w.declared or (w.tenant_id is null and w.worker_name = 'cluster')
),
judged as (
    select
        b.id, b.tenant_id, b.project_id, b.build_method, b.placement, b.priority, b.queued_at, b.not_before, b.error_message,
        b.resource_name,
        t.name as tenant_name, j.name as project_name,
        older.run as older_run, older.attempt as older_attempt, fit.*,
        in_tenant.builds as tenant_running,
        in_project.builds as project_running,
        of_method.builds as method_running,
        l.*,
        case
            when older.run is not null then 'PreviousRun'
            when b.not_before > now() then 'BackingOff'
            when fit.workers is null then 'NoMatchingWorker'
            when fit.taking = 0 then 'WorkersOffline'
            when in_tenant.builds >= l.tenant_limit then 'TenantLimit'
            when in_project.builds >= l.project_limit then 'ProjectLimit'
            when of_method.builds >= l.method_limit then 'MethodLimit'
            when not fit.has_room then 'WorkersBusy'
        end as waiting_for
    from builds b
    join tenants t on t.id = b.tenant_id
    join projects j on j.id = b.project_id
    left join build_concurrency_policies p on p.tenant_id = b.tenant_id
    left join operator_settings s on s.singleton
    cross join lateral (
        select
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
            coalesce(p.priority_dispatch_enabled, s.priority_dispatch_enabled, false) as by_priority
    ) l
    left join lateral (
        select o.run, o.attempt
        from builds o
        where o.resource_uid = b.resource_uid and (o.run, o.attempt) < (b.run, b.attempt) and o.status = 'in_progress'
        order by o.run desc, o.attempt desc
        limit 1
    ) older on true
    cross join lateral (
        select coalesce(sum(r.builds), 0) as builds from running r where r.tenant_id = b.tenant_id
    ) in_tenant
    cross join lateral (
        select coalesce(sum(r.builds), 0) as builds from running r where r.tenant_id = b.tenant_id and r.project_id = b.project_id
    ) in_project
    cross join lateral (
        select coalesce(sum(r.builds), 0) as builds from running r where r.tenant_id = b.tenant_id and r.build_method = b.build_method
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
        where (w.tenant_id is null or w.tenant_id = b.tenant_id)
            and (w.methods = '{}' or b.build_method = any (w.methods))
            and (b.placement ->> 'name' is null or w.worker_name = b.placement ->> 'name')
            and (b.placement ->> 'zone' is null or w.zone = b.placement ->> 'zone')
            -- A label may be a boolean or a number in JSON; a selector is text. Compared as text.
            and not exists (
                select from jsonb_each_text(coalesce(b.placement -> 'selector', '{}')) wanted
                where w.labels ->> wanted.key is distinct from wanted.value
            )
        group by w.declared
        order by w.declared desc
        limit 1
    ) fit on true
    where b.status = 'queued'
)
select
    id as build_id,
    tenant_id,
    by_priority,
    waiting_for,
    case waiting_for
        when 'PreviousRun' then format('run %s, attempt %s of %s has not ended', older_run, older_attempt, resource_name)
        when 'BackingOff' then format('not before %s%s', to_char(not_before at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), ': ' || error_message)
        when 'NoMatchingWorker' then format('no worker takes builds of method %s%s', build_method, ' that ask for ' || placement::text)
        when 'WorkersOffline' then format('of the workers that fit none takes builds: %s', away)
        when 'TenantLimit' then format('tenant %s runs %s of %s builds', tenant_name, tenant_running, tenant_limit)
        when 'ProjectLimit' then format('project %s runs %s of %s builds', project_name, project_running, project_limit)
        when 'MethodLimit' then format('tenant %s runs %s of %s builds of method %s', tenant_name, method_running, method_limit, build_method)
        when 'WorkersBusy' then format('workers that fit run %s of %s builds', worker_builds, worker_limit)
        else 'ready to be claimed'
    end as message,
    -- What of it may run at once, where that is what it waits for.
    case
        when waiting_for in ('TenantLimit', 'ProjectLimit', 'MethodLimit', 'WorkersBusy')
        then nullif(least(tenant_limit, project_limit, method_limit, worker_limit), 0)
    end as at_once
from judged;

comment on view waiting_builds is 'Each queued build with what holds it back, without its place: build_queue has that, too.';
comment on column waiting_builds.build_id is 'The build: an attempt whose status is queued.';
comment on column waiting_builds.tenant_id is 'Its tenant.';
comment on column waiting_builds.by_priority is 'Whether its tenant''s queue is ordered by priority before time.';
comment on column waiting_builds.waiting_for is 'As in build_queue.';
comment on column waiting_builds.message is 'As in build_queue: the same as one sentence, with its numbers.';
comment on column waiting_builds.at_once is 'How many builds may run at once by the tightest limit on it. Null where no limit holds it back.';

create or replace view build_queue as
with running_by_tenant as (
    select tenant_id, count(*) as running from builds where status = 'in_progress' group by tenant_id
),
placed as not materialized (
    select
        b.id, b.tenant_id, b.project_id, b.build_method, b.priority, b.queued_at, b.not_before,
        coalesce(r.running, 0) as running,
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
)
select
    q.id as build_id,
    q.tenant_id,
    q.project_id,
    q.build_method,
    q.priority,
    q.queued_at,
    q.position,
    overall.overall_position,
    w.waiting_for,
    w.message,
    case
        when w.waiting_for = 'BackingOff' then q.not_before
        when w.waiting_for is null then now()
        when w.at_once is not null then (
            -- As many at once as may; as long each as the tenant's last twenty. Each wave of them takes one mean.
            select now() + ceil(q.position::numeric / w.at_once)::float8 * avg(recent.completed_at - recent.started_at)
            from (
                select b.completed_at, b.started_at
                from builds b
                where b.tenant_id = q.tenant_id and b.completed_at is not null and b.started_at is not null
                order by b.completed_at desc
                limit 20
            ) recent
        )
    end as estimated_start
from placed q
join waiting_builds w on w.build_id = q.id and w.tenant_id = q.tenant_id
left join overall on overall.id = q.id;

comment on column builds.error_message is 'Why it failed or was cancelled, as one sentence; why it waits again, where it was put back or the attempt before it failed. Null otherwise.';
comment on column operator_settings.max_queued_wait_minutes is 'After how many minutes in the queue a build of a tenant whose policy does not say fails. Null: it waits for as long as it takes.';
