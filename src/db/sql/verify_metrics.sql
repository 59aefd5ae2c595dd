-- A build that ran and has ended has exactly one row of metrics; any other has none.
with counted as (
    select b.id, b.status, b.completed_at is not null and b.started_at is not null as ran, count(m.id) as metrics
    from builds b left join build_metrics m on m.build_id = b.id
    group by b.id
),
examined as (
    select count(*) as number from counted where ran
),
broken as (
    select id::text as subject, format('is %s and has %s rows of metrics', status, metrics) as problem
    from counted
    where metrics <> ran::int
)
select examined.number as "examined!", broken.subject as "subject?", broken.problem as "problem?"
from examined left join broken on true
order by broken.subject
