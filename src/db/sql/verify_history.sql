-- The history of every build is one legal path, a row a transition, that ends where the build stands
-- and has the build's own times.
with steps as (
    select build_id, sequence, from_status, to_status, changed_at,
           row_number() over in_order as place,
           lag(to_status) over in_order as previous,
           lag(changed_at) over in_order as previous_at
    from build_status_history
    window in_order as (partition by build_id order by sequence)
),
ends as (
    select distinct on (build_id) build_id, to_status, changed_at
    from build_status_history
    order by build_id, sequence desc
),
claims as (
    -- The last one, unless it was taken back.
    select distinct on (build_id) build_id, case to_status when 'in_progress' then changed_at end as changed_at
    from build_status_history
    where to_status = 'in_progress' or from_status = 'in_progress' and to_status = 'queued'
    order by build_id, sequence desc
),
examined as (
    select count(*) as number from build_status_history
),
broken as (
    select build_id::text as subject, format('its transition %s has number %s', place, sequence) as problem
    from steps
    where sequence <> place
    union all
    select build_id::text, format('transition %s leaves %s, where the build was %s', place,
                                  coalesce(from_status, 'null'), coalesce(previous, 'null'))
    from steps
    where from_status is distinct from previous
    union all
    select build_id::text, format('transition %s is not legal: %s → %s', place, coalesce(from_status, 'null'), to_status)
    from steps
    where (coalesce(from_status, 'null'), to_status) not in (
        ('null', 'queued'),
        ('queued', 'in_progress'), ('queued', 'cancelled'), ('queued', 'failed'),
        ('in_progress', 'success'), ('in_progress', 'failed'), ('in_progress', 'cancelled'), ('in_progress', 'queued')
    )
    union all
    select build_id::text, format('transition %s is older than the one before it', place)
    from steps
    where changed_at < previous_at
    union all
    select b.id::text, format('is %s, and its history ends with %s', b.status, coalesce(e.to_status, 'nothing'))
    from builds b left join ends e on e.build_id = b.id
    where b.status is distinct from e.to_status
    union all
    select b.id::text, format('completed at %s, by its history at %s', b.completed_at, e.changed_at)
    from builds b join ends e on e.build_id = b.id
    where b.completed_at <> e.changed_at
    union all
    select b.id::text, format('started at %s, by its history at %s', coalesce(b.started_at::text, 'no time'),
                              coalesce(c.changed_at::text, 'no time'))
    from builds b left join claims c on c.build_id = b.id
    where b.status <> 'queued' and b.started_at is distinct from c.changed_at
)
select examined.number as "examined!", broken.subject as "subject?", broken.problem as "problem?"
from examined left join broken on true
order by broken.subject
