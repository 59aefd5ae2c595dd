-- Runs of a Build are numbered from 1, and so are the attempts of a run, a row each; a run that was
-- overtaken has been asked to stop.
with examined as (
    select count(*) as number from builds
),
broken as (
    select max(resource_namespace) || '/' || max(resource_name) as subject,
           format('run %s has %s rows for attempts 1 to %s', run, count(*), max(attempt)) as problem
    from builds
    group by resource_uid, run
    having count(*) <> max(attempt) or count(distinct attempt) <> count(*)
    union all
    select max(resource_namespace) || '/' || max(resource_name),
           format('has rows of %s runs, and its newest is run %s', count(distinct run), max(run))
    from builds
    group by resource_uid
    having count(distinct run) <> max(run)
    union all
    select b.id::text, format('run %s is %s though a newer run exists, and was not asked to stop', b.run, b.status)
    from builds b
    where b.status in ('queued', 'in_progress')
      and b.cancel_requested_at is null
      and exists (select from builds n where n.resource_uid = b.resource_uid and n.run > b.run)
)
select examined.number as "examined!", broken.subject as "subject?", broken.problem as "problem?"
from examined left join broken on true
order by broken.subject
