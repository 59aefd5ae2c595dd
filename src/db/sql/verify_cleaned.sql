-- Finished builds are cleaned up when they are due, and both tables say so.
with finished as (
    select b.id, b.cleanup_at, b.cleanup_due_at, r.cleanup_status
    from builds b left join build_results r on r.build_id = b.id
    where b.completed_at is not null
),
examined as (
    select count(*) as number from finished
),
broken as (
    select id::text as subject, format('was to be cleaned up at %s', cleanup_due_at) as problem
    from finished
    where cleanup_at is null and cleanup_due_at < now() - interval '1 minute'
    union all
    select id::text, 'has no time to be cleaned up at'
    from finished
    where cleanup_at is null and cleanup_due_at is null
    union all
    select id::text, format('cleaned up: %s, by its result: %s', cleanup_at is not null, cleanup_status)
    from finished
    where (cleanup_at is not null) <> (cleanup_status = 'completed')
)
select examined.number as "examined!", broken.subject as "subject?", broken.problem as "problem?"
from examined left join broken on true
order by broken.subject
