-- A finished build has exactly one result, which says the same; one that has not finished has none.
with counted as (
    select b.id, b.status, b.completed_at is not null as finished, count(r.id) as results,
           min(r.status) as result, min(r.output_image_digest) as digest
    from builds b left join build_results r on r.build_id = b.id
    group by b.id
),
examined as (
    select count(*) as number from counted where finished
),
broken as (
    select id::text as subject, format('is %s and has %s results', status, results) as problem
    from counted
    where results <> finished::int
    union all
    select id::text, format('is %s, and its result says %s', status, result)
    from counted
    where finished and result <> status and (status, result) <> ('failed', 'timeout')
    union all
    select id::text, 'is a success without the digest of an image'
    from counted
    where status = 'success' and results > 0 and digest is null
)
select examined.number as "examined!", broken.subject as "subject?", broken.problem as "problem?"
from examined left join broken on true
order by broken.subject
