-- Lines of a build are numbered from 1 without gap or double, and the cursors stand at the last; the
-- log of a build that had a Job was concluded before its end: from then on, what is missing of it
-- stands in it as a row.
with lines as (
    select build_id, count(*) as number, count(distinct line_number) as numbers,
           min(line_number) as first, max(line_number) as last
    from build_logs
    group by build_id
),
cursors as (
    select build_id, max(line_number) as last, bool_or(container = 'build' and finished) as concluded
    from build_log_cursors
    group by build_id
),
examined as (
    select coalesce(sum(number), 0)::bigint as number from lines
),
broken as (
    select build_id::text as subject,
           format('has %s lines with %s numbers from %s to %s', number, numbers, first, last) as problem
    from lines
    where number <> numbers or first <> 1 or last <> number
    union all
    select coalesce(c.build_id, l.build_id)::text,
           format('its cursor stands at line %s, its last line is %s', coalesce(c.last, 0), coalesce(l.last, 0))
    from cursors c full join lines l on l.build_id = c.build_id
    where coalesce(c.last, 0) <> coalesce(l.last, 0)
    union all
    select b.id::text, 'ended with its Job made and its log not concluded'
    from builds b left join cursors c on c.build_id = b.id
    where b.completed_at is not null and b.job_created_at is not null and c.concluded is not true
)
select examined.number as "examined!", broken.subject as "subject?", broken.problem as "problem?"
from examined left join broken on true
order by broken.subject
