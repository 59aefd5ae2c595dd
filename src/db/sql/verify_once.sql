-- A slot of a schedule, and a delivery of a webhook, is there once and makes at most one build.
with examined as (
    select (select count(*) from schedule_slots) + (select count(*) from webhook_deliveries) as number
),
broken as (
    select min(s.build_name) as subject, format('slot %s is there %s times', s.slot, count(*)) as problem
    from schedule_slots s
    group by s.schedule_id, s.slot
    having count(*) > 1
    union all
    select build_name, format('was made for slot %s, which was %s', slot, outcome)
    from schedule_slots
    where build_id is not null and outcome in ('skipped', 'failed')
    union all
    select build_id::text, format('is the build of %s slots', count(*))
    from schedule_slots
    where build_id is not null
    group by build_id
    having count(*) > 1
    union all
    select delivery_id, format('%s delivery, attempt %s, is there %s times', direction, attempt_number, count(*))
    from webhook_deliveries
    group by webhook_config_id, direction, delivery_id, attempt_number
    having count(*) > 1
    union all
    select build_id::text, format('is the build of %s deliveries', count(distinct delivery_id))
    from webhook_deliveries
    where direction = 'inbound' and build_id is not null
    group by build_id
    having count(distinct delivery_id) > 1
)
select examined.number as "examined!", broken.subject as "subject?", broken.problem as "problem?"
from examined left join broken on true
order by broken.subject
