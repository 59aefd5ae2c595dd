-- What changed since the days were last computed: builds that ended and are not counted yet, each with the
-- days it touches; and the tenants that run builds, of which today's peak moves, and yesterday's with what
-- began just before midnight.
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
select null, tenant_id, greatest(min((started_at at time zone 'UTC')::date), today - 1), today
from builds
cross join (select (now() at time zone 'UTC')::date as today) clock
where status = 'in_progress'
group by tenant_id, today
