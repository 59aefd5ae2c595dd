-- Computes days of tenants anew, each from the builds that ended or ran on it: found by index, so that the
-- cost is that of those days, however long the history. The `offset 0` keeps the planner from reading a
-- whole table instead.
with days as (
    select id,
           tenant_id,
           date,
           date::timestamp at time zone 'UTC' as begins,
           (date + 1)::timestamp at time zone 'UTC' as ends
    from unnest($1::uuid[], $2::uuid[], $3::date[]) as days (id, tenant_id, date)
),
ended as (
    select d.id as day_id, d.begins, b.status, b.started_at, b.completed_at, b.build_method, b.seconds,
           -- As build_results.queue_wait_milliseconds (finish.sql), from the same times.
           case when b.seconds is not null then
               greatest(0, extract(epoch from b.started_at - greatest(b.queued_at, b.not_before)) * 1000)::bigint
           end as waited,
           case when b.status = 'failed' then (select failure_reason from build_results where build_id = b.id) end as failure_reason
    from days d
    cross join lateral (
        select id, status, build_method, queued_at, not_before, started_at, completed_at,
               case when started_at is not null then greatest(0, extract(epoch from completed_at - started_at)) end as seconds
        from builds
        where tenant_id = d.tenant_id and completed_at >= d.begins and completed_at < d.ends
        offset 0
    ) b
),
measured as (
    select day_id,
           count(*)::int as total,
           (count(*) filter (where status = 'success'))::int as successful,
           (count(*) filter (where status = 'failed'))::int as failed,
           (count(*) filter (where status = 'cancelled'))::int as cancelled,
           round(avg(seconds))::int as average_seconds,
           round((percentile_cont(0.5) within group (order by waited) / 1000)::numeric)::int as median_wait,
           100.0 * count(*) filter (where status = 'failed')
               / nullif(count(*) filter (where status in ('success', 'failed')), 0) as failure_rate,
           mode() within group (order by failure_reason collate "C") filter (where status = 'failed') as failure,
           (count(*) filter (where build_method = 'kaniko'))::int as kaniko,
           (count(*) filter (where build_method = 'buildx'))::int as buildx,
           (count(*) filter (where build_method = 'container'))::int as container,
           (count(*) filter (where build_method = 'packer'))::int as packer,
           (count(*) filter (where build_method = 'paketo'))::int as paketo
    from ended
    group by day_id
),
-- The part of each run that lies in the day, from its begin up to but not including its end.
ran as (
    select day_id, greatest(started_at, begins) as began, completed_at as ended
    from ended
    where started_at is not null
    union all
    select d.id, greatest(b.started_at, d.begins), least(b.completed_at, d.ends)
    from days d
    cross join lateral (
        select started_at, completed_at
        from builds
        where tenant_id = d.tenant_id and completed_at >= d.ends and started_at < d.ends
          and (started_at at time zone 'UTC')::date < (completed_at at time zone 'UTC')::date
        union all
        select started_at, null
        from builds
        where tenant_id = d.tenant_id and status = 'in_progress' and started_at < d.ends
    ) b
),
-- A sweep: at each moment at which one begins or ends, how many run. An end goes before a begin.
sweep as (
    select day_id, sum(change) over (partition by day_id order by at, change rows unbounded preceding) as running
    from ran
    cross join lateral (values (began, 1), (ended, -1)) as changes (at, change)
    where began < ended
),
peaks as (
    select day_id, max(running)::int as peak from sweep group by day_id
)
insert into build_performance_daily as known (id, tenant_id, date, total_builds, successful, failed, cancelled,
    average_duration_seconds, median_queue_wait_seconds, failure_rate_percent, most_common_failure,
    kaniko_count, buildx_count, container_count, packer_count, paketo_count, max_concurrent_at_peak)
select d.id, d.tenant_id, d.date, coalesce(m.total, 0), coalesce(m.successful, 0), coalesce(m.failed, 0),
       coalesce(m.cancelled, 0), m.average_seconds, m.median_wait, m.failure_rate, m.failure,
       coalesce(m.kaniko, 0), coalesce(m.buildx, 0), coalesce(m.container, 0), coalesce(m.packer, 0),
       coalesce(m.paketo, 0), coalesce(p.peak, 0)
from days d
left join measured m on m.day_id = d.id
left join peaks p on p.day_id = d.id
on conflict on constraint build_performance_daily_tenant_id_date_key do update
set total_builds = excluded.total_builds,
    successful = excluded.successful,
    failed = excluded.failed,
    cancelled = excluded.cancelled,
    average_duration_seconds = excluded.average_duration_seconds,
    median_queue_wait_seconds = excluded.median_queue_wait_seconds,
    failure_rate_percent = excluded.failure_rate_percent,
    most_common_failure = excluded.most_common_failure,
    kaniko_count = excluded.kaniko_count,
    buildx_count = excluded.buildx_count,
    container_count = excluded.container_count,
    packer_count = excluded.packer_count,
    paketo_count = excluded.paketo_count,
    max_concurrent_at_peak = excluded.max_concurrent_at_peak
-- A day that came out the same is not written again.
where (known.total_builds, known.successful, known.failed, known.cancelled, known.average_duration_seconds,
       known.median_queue_wait_seconds, known.most_common_failure, known.kaniko_count, known.buildx_count,
       known.container_count, known.packer_count, known.paketo_count, known.max_concurrent_at_peak)
    is distinct from
      (excluded.total_builds, excluded.successful, excluded.failed, excluded.cancelled,
       excluded.average_duration_seconds, excluded.median_queue_wait_seconds, excluded.most_common_failure,
       excluded.kaniko_count, excluded.buildx_count, excluded.container_count, excluded.packer_count,
       excluded.paketo_count, excluded.max_concurrent_at_peak)
