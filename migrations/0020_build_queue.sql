-- The queue as people see it: every queued build with its place and with what holds it back. Only for reading; the
-- dispatcher decides by its own query.

create view build_queue as
with running_by_tenant as (
    select tenant_id, count(*) as running from builds where status = 'in_progress' group by tenant_id
),
running_by_worker as (
    select worker_id, count(*) as running from builds where status = 'in_progress' group by worker_id
),
workers as materialized (
    select w.*, coalesce(r.running, 0) as running
    from build_workers w left join running_by_worker r on r.worker_id = w.id
),
placed as not materialized (
    select
        b.id, b.tenant_id, b.project_id, b.priority, b.queued_at, b.not_before, b.error_message, b.resource_uid, b.resource_name, b.run, b.attempt,
        coalesce(r.running, 0) as running,
        coalesce(p.max_concurrent_builds, s.max_concurrent_builds) as tenant_limit,
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
        q.*, overall.overall_position, t.name as tenant_name, c.build_method, c.spec -> 'worker' as placement,
        older.run as older_run, older.attempt as older_attempt, fit.*,
        case
            when older.run is not null then 'PreviousRun'
            when q.not_before > now() then 'BackingOff'
            when fit.workers = 0 then 'NoMatchingWorker'
            when fit.online = 0 then 'WorkersOffline'
            when q.running >= q.tenant_limit then 'TenantLimit'
            when not fit.has_room then 'WorkersBusy'
        end as waiting_for
    from placed q
    join tenants t on t.id = q.tenant_id
    join build_configs c on c.build_id = q.id
    left join overall on overall.id = q.id
    left join lateral (
        select o.run, o.attempt
        from builds o
        where o.resource_uid = q.resource_uid and (o.run, o.attempt) < (q.run, q.attempt) and o.status = 'in_progress'
        order by o.run desc, o.attempt desc
        limit 1
    ) older on true
    cross join lateral (
        select
            count(*) as workers,
            count(*) filter (where w.status <> 'offline') as online,
            coalesce(bool_or(w.running < w.concurrent_builds_limit) filter (where w.status <> 'offline'), false) as has_room,
            sum(w.running) filter (where w.status <> 'offline') as worker_builds,
            sum(w.concurrent_builds_limit) filter (where w.status <> 'offline') as worker_limit
        from workers w
        where (w.tenant_id is null or w.tenant_id = q.tenant_id)
            and (c.spec #>> '{worker,name}' is null or w.worker_name = c.spec #>> '{worker,name}')
            and (c.spec #>> '{worker,zone}' is null or w.zone = c.spec #>> '{worker,zone}')
            -- A label may be a boolean or a number in JSON; a selector is text. Compared as text.
            and not exists (
                select from jsonb_each_text(coalesce(nullif(c.spec #> '{worker,selector}', 'null'), '{}')) wanted
                where w.labels ->> wanted.key is distinct from wanted.value
            )
    ) fit
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
        when 'NoMatchingWorker' then format('no worker fits %s', coalesce(placement::text, 'the build'))
        when 'WorkersOffline' then format('every worker that fits is offline (%s)', workers)
        when 'TenantLimit' then format('tenant %s runs %s of %s builds', tenant_name, running, tenant_limit)
        when 'WorkersBusy' then format('workers that fit run %s of %s builds', worker_builds, worker_limit)
        else 'ready to be claimed'
    end as message,
    case when waiting_for = 'BackingOff' then not_before end as estimated_start
from judged;

comment on view build_queue is 'Every queued build with its place and with what holds it back, as of the moment of reading.';
comment on column build_queue.build_id is 'The build.';
comment on column build_queue.tenant_id is 'Its tenant.';
comment on column build_queue.project_id is 'Its project.';
comment on column build_queue.build_method is 'Its method.';
comment on column build_queue.priority is 'Its priority; heeded where the policy says so.';
comment on column build_queue.queued_at is 'When it joined the queue.';
comment on column build_queue.position is 'Its place among the queued builds of its tenant, from 1.';
comment on column build_queue.overall_position is 'Its place among all queued builds, from 1: in turns between tenants, fewest running builds per weight first.';
comment on column build_queue.waiting_for is 'PreviousRun, BackingOff, NoMatchingWorker, WorkersOffline, TenantLimit or WorkersBusy: the first that holds it back. Null where nothing does.';
comment on column build_queue.message is 'The same as a sentence, with the numbers.';
comment on column build_queue.estimated_start is 'When it is expected to start. Null where that is not known.';

grant select on build_queue to public;
