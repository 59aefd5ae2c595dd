-- The questions people ask of the history, as views, so that each is written once and rightly; and how old logs and
-- artifacts go. The views are only for reading, the operator uses none of them. Each has a tenant and most a time to
-- filter by, which reach the tables beneath.

create view slow_builds as
select
    b.id as build_id,
    b.tenant_id,
    b.project_id,
    b.resource_namespace,
    b.resource_name,
    b.build_number,
    c.build_method,
    b.completed_at,
    r.queue_wait_milliseconds,
    r.build_execution_milliseconds,
    r.artifact_push_milliseconds,
    usual.build_execution_milliseconds as usual_execution_milliseconds,
    round((r.build_execution_milliseconds / nullif(usual.build_execution_milliseconds, 0))::numeric, 2) as times_usual,
    steps.steps,
    steps.cached_steps,
    slowest.step_name as slowest_step,
    slowest.duration_seconds as slowest_step_seconds
from builds b
join build_results r on r.build_id = b.id
join build_configs c on c.build_id = b.id
left join lateral (
    select percentile_cont(0.5) within group (order by before.build_execution_milliseconds) as build_execution_milliseconds
    from (
        select result.build_execution_milliseconds
        from builds older
        join build_results result on result.build_id = older.id
        where older.resource_uid = b.resource_uid and older.run < b.run and older.status = 'success'
        order by older.run desc, older.attempt desc
        limit 20
    ) before
) usual on true
left join lateral (
    select count(*)::int as steps, (count(*) filter (where cached))::int as cached_steps
    from build_steps
    where build_id = b.id
) steps on true
left join lateral (
    select step_name, duration_seconds
    from build_steps
    where build_id = b.id and duration_seconds is not null
    order by duration_seconds desc, step_number
    limit 1
) slowest on true
where b.status = 'success';

comment on view slow_builds is 'Every successful build with where its time went, and how that compares with the same Build before. Order by times_usual for what has become slow, by build_execution_milliseconds for what is.';
comment on column slow_builds.build_id is 'The build.';
comment on column slow_builds.tenant_id is 'Its tenant.';
comment on column slow_builds.project_id is 'Its project.';
comment on column slow_builds.resource_namespace is 'metadata.namespace of the Build.';
comment on column slow_builds.resource_name is 'metadata.name of the Build.';
comment on column slow_builds.build_number is 'Its number in the project.';
comment on column slow_builds.build_method is 'Its method.';
comment on column slow_builds.completed_at is 'When it ended.';
comment on column slow_builds.queue_wait_milliseconds is 'How long it waited, as in build_results.';
comment on column slow_builds.build_execution_milliseconds is 'How long it was built, as in build_results.';
comment on column slow_builds.artifact_push_milliseconds is 'How long it was pushed, as in build_results. Null where the builder does not tell it.';
comment on column slow_builds.usual_execution_milliseconds is 'Median build_execution_milliseconds of the up to 20 runs of the same Build that succeeded before it. Null for the first.';
comment on column slow_builds.times_usual is 'build_execution_milliseconds divided by the usual. Null for the first.';
comment on column slow_builds.steps is 'How many steps it had.';
comment on column slow_builds.cached_steps is 'How many of them came from a cache.';
comment on column slow_builds.slowest_step is 'The step that took longest, the first among equals. Null where no step has a time.';
comment on column slow_builds.slowest_step_seconds is 'How long that step took, in seconds. Null like slowest_step.';

create view failing_stages as
select
    b.tenant_id,
    b.project_id,
    c.build_method,
    (b.completed_at at time zone 'UTC')::date as date,
    r.failure_stage,
    r.failure_reason,
    count(*)::int as builds,
    (array_agg(b.id order by b.completed_at desc, b.id desc))[1] as last_build_id,
    (array_agg(b.error_message order by b.completed_at desc, b.id desc))[1] as last_message
from builds b
join build_results r on r.build_id = b.id
join build_configs c on c.build_id = b.id
where b.status = 'failed'
group by b.tenant_id, b.project_id, c.build_method, (b.completed_at at time zone 'UTC')::date, r.failure_stage, r.failure_reason;

comment on view failing_stages is 'Where builds fail: how many of a day (UTC) failed at each stage and for each reason.';
comment on column failing_stages.tenant_id is 'The tenant.';
comment on column failing_stages.project_id is 'The project.';
comment on column failing_stages.build_method is 'The method.';
comment on column failing_stages.date is 'The day they ended, UTC.';
comment on column failing_stages.failure_stage is 'The stage, as in build_results.';
comment on column failing_stages.failure_reason is 'The reason, as in build_results.';
comment on column failing_stages.builds is 'How many failed so.';
comment on column failing_stages.last_build_id is 'The last of them.';
comment on column failing_stages.last_message is 'Its error_message.';

create view failing_steps as
select
    b.tenant_id,
    b.project_id,
    b.resource_namespace,
    b.resource_name,
    (b.completed_at at time zone 'UTC')::date as date,
    s.step_name,
    s.instruction_type,
    count(*)::int as builds,
    (array_agg(b.id order by b.completed_at desc, b.id desc))[1] as last_build_id,
    (array_agg(s.error_code order by b.completed_at desc, b.id desc))[1] as last_error_code,
    (array_agg(s.error_message order by b.completed_at desc, b.id desc))[1] as last_error_message
from builds b
join build_steps s on s.build_id = b.id
where b.status = 'failed' and s.status = 'failed'
group by b.tenant_id, b.project_id, b.resource_namespace, b.resource_name, (b.completed_at at time zone 'UTC')::date, s.step_name, s.instruction_type;

comment on view failing_steps is 'Which steps fail: how many builds of a Build failed at each of its steps on a day (UTC).';
comment on column failing_steps.tenant_id is 'The tenant.';
comment on column failing_steps.project_id is 'The project.';
comment on column failing_steps.resource_namespace is 'metadata.namespace of the Build.';
comment on column failing_steps.resource_name is 'metadata.name of the Build.';
comment on column failing_steps.date is 'The day they ended, UTC.';
comment on column failing_steps.step_name is 'The step, as in build_steps.';
comment on column failing_steps.instruction_type is 'Its instruction, as in build_steps.';
comment on column failing_steps.builds is 'How many builds failed at it.';
comment on column failing_steps.last_build_id is 'The last of them.';
comment on column failing_steps.last_error_code is 'The exit code it failed with then. Null where none is known.';
comment on column failing_steps.last_error_message is 'Why it failed then. Null where it is not told.';

create view queue_waits as
select
    b.tenant_id,
    (b.started_at at time zone 'UTC')::date as date,
    c.build_method,
    count(*)::int as builds,
    percentile_disc(0.5) within group (order by r.queue_wait_milliseconds) as median_milliseconds,
    percentile_disc(0.95) within group (order by r.queue_wait_milliseconds) as p95_milliseconds,
    max(r.queue_wait_milliseconds) as longest_milliseconds,
    (array_agg(b.id order by r.queue_wait_milliseconds desc, b.id))[1] as longest_build_id
from builds b
join build_results r on r.build_id = b.id
join build_configs c on c.build_id = b.id
where b.started_at is not null
group by b.tenant_id, (b.started_at at time zone 'UTC')::date, c.build_method;

comment on view queue_waits is 'How long builds of a tenant waited in the queue, by the day (UTC) of their start, of those that have ended. What waits now is in build_queue.';
comment on column queue_waits.tenant_id is 'The tenant.';
comment on column queue_waits.date is 'The day they started, UTC.';
comment on column queue_waits.build_method is 'The method.';
comment on column queue_waits.builds is 'How many there were.';
comment on column queue_waits.median_milliseconds is 'Half of them waited no longer.';
comment on column queue_waits.p95_milliseconds is 'Nineteen of twenty waited no longer.';
comment on column queue_waits.longest_milliseconds is 'The longest wait.';
comment on column queue_waits.longest_build_id is 'The build that waited longest.';

create view worker_use as
select
    w.id as worker_id,
    w.tenant_id,
    w.worker_name,
    w.worker_type,
    w.zone,
    w.status,
    w.concurrent_builds_limit,
    day.date,
    count(*)::int as builds,
    (count(*) filter (where b.status = 'failed'))::int as failed,
    round(extract(epoch from sum(day.run)))::bigint as busy_seconds,
    round(extract(epoch from sum(day.run)) * 100 / nullif(extract(epoch from day.length) * w.concurrent_builds_limit, 0), 2) as use_percent
from builds b
join build_workers w on w.id = b.worker_id
cross join lateral (
    select
        days.date::date as date,
        least(days.date + interval '1 day', now() at time zone 'UTC') - days.date as length,
        greatest(interval '0', least(coalesce(b.completed_at, now()) at time zone 'UTC', days.date + interval '1 day') - greatest(b.started_at at time zone 'UTC', days.date)) as run
    from generate_series(date_trunc('day', b.started_at at time zone 'UTC'), coalesce(b.completed_at, now()) at time zone 'UTC', interval '1 day') as days (date)
) day
where b.started_at is not null
group by w.id, day.date, day.length;

comment on view worker_use is 'What each worker did on each day (UTC) on which it ran a build. A build over midnight counts on both days, with its time on each; one that runs, with its time so far.';
comment on column worker_use.worker_id is 'The worker.';
comment on column worker_use.tenant_id is 'The tenant it serves. Null for a worker that serves every tenant.';
comment on column worker_use.worker_name is 'Its name.';
comment on column worker_use.worker_type is 'Its type.';
comment on column worker_use.zone is 'Where it is. Null where not told.';
comment on column worker_use.status is 'How it is now.';
comment on column worker_use.concurrent_builds_limit is 'How many builds it may run at once now.';
comment on column worker_use.date is 'The day, UTC.';
comment on column worker_use.builds is 'Builds that ran on it.';
comment on column worker_use.failed is 'Of them, those that failed.';
comment on column worker_use.busy_seconds is 'Time that builds ran on it on that day, added up over builds, in seconds.';
comment on column worker_use.use_percent is 'busy_seconds of what its limit would allow on that day, today up to now, in percent. Null where its limit is 0.';

grant select on slow_builds, failing_stages, failing_steps, queue_waits, worker_use to public;

comment on column build_artifacts.is_available is 'False once its time is over: from then on nothing keeps it from being deleted where it is. The row stays.';
comment on column build_artifacts.expires_at is 'When its time is over, by retention_policy and the end of the build. Null for never.';

create function drop_build_logs(before date) returns int
language plpgsql
-- A long reader must not hold up everyone who waits behind this: it is tried again another time.
set lock_timeout = '2s'
as $$
declare
    week date;
    dropped int := 0;
begin
    for week in
        select to_date(right(c.relname, 10), 'YYYY_MM_DD')
        from pg_inherits i
        join pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'build_logs'::regclass and c.relname ~ '^build_logs_[0-9]{4}_[0-9]{2}_[0-9]{2}$'
        order by 1
    loop
        exit when week + 7 > before;
        -- A build that was queued so long ago and has not ended keeps its week.
        continue when exists (
            select from builds
            where status in ('queued', 'in_progress')
                and id >= uuid_v7_floor(week::timestamp at time zone 'UTC')
                and id < uuid_v7_floor((week + 7)::timestamp at time zone 'UTC')
        );
        execute format('drop table %I', 'build_logs_' || to_char(week, 'YYYY_MM_DD'));
        -- The cursors say what is stored.
        update build_log_cursors set line_number = 0
        where build_id >= uuid_v7_floor(week::timestamp at time zone 'UTC')
            and build_id < uuid_v7_floor((week + 7)::timestamp at time zone 'UTC');
        dropped := dropped + 1;
    end loop;
    return dropped;
end
$$;

comment on function drop_build_logs(date) is 'Drops the weekly partitions of build_logs that end before this day, and returns how many. The builds keep everything but their lines. Leaves a week of which a build has not ended.';
comment on column build_log_cursors.line_number is 'build_logs.line_number of the last line stored of this container; 0 before the first, and once the week of the log was dropped.';
