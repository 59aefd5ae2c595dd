-- Heads that have moved, as deliveries, but for those that somebody has delivered since they were where they were.
with stored as (
    insert into webhook_deliveries (id, tenant_id, webhook_config_id, direction, delivery_id, event_type, payload, event,
        next_retry_at, polled)
    select m.id, c.tenant_id, c.id, 'inbound', m.delivery_id, 'push', m.payload, m.event, now(), true
    from unnest($3::uuid[], $4::text[], $5::jsonb[], $6::jsonb[]) as m (id, delivery_id, payload, event)
    join webhook_configs c on c.id = $1
    where not exists (
        select from webhook_deliveries other
        where other.webhook_config_id = $1
          and other.direction = 'inbound'
          and not other.polled
          and other.event ->> 'commit' = m.event ->> 'commit'
          and other.event ->> 'git_ref' = m.event ->> 'git_ref'
          and other.created_at >= $2
    )
    on conflict on constraint webhook_deliveries_delivery_key do nothing
    returning id
),
counted as (select count(*) as number from stored)
select number as "number!",
    case when number > 0 then pg_notify('image_factory_deliveries', '')::text end as notified
from counted
