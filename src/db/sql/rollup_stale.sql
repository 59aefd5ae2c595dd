-- What changed since the days were last computed: builds that ended and are not counted yet, each with the
-- days it touches; and days whose peak is below what runs now. Until a build ends no other number of a day
-- changes, and no peak of it but by what begins: so a day is computed anew only where more run than it knows.
-- Today, and yesterday for what began just before midnight; days before are counted when their builds end.
(select r.build_id as "build_id?",
        b.tenant_id as "tenant_id!",
        least(b.began, b.ended) as "first!",
        b.ended as "last!"
 from build_results r
 cross join lateral (
     select tenant_id,
            (coalesce(started_at, completed_at) at time zone 'UTC')::date as began,
            (completed_at at time zone 'UTC')::date as ended
     from builds
     where id = r.build_id
     offset 0
 ) b
 where r.counted_at is null
 order by r.build_id
 limit $1)
union all
select null, running.tenant_id, running.date, running.date
from (
    select b.tenant_id, day.date, count(*) as builds
    from builds b
    cross join (select (now() at time zone 'UTC')::date as today) clock
    cross join lateral (values (today), (today - 1)) as day (date)
    where b.status = 'in_progress' and (b.started_at at time zone 'UTC')::date <= day.date
    group by b.tenant_id, day.date
) running
left join build_performance_daily known on known.tenant_id = running.tenant_id and known.date = running.date
where coalesce(known.max_concurrent_at_peak, 0) < running.builds
