-- Live Builds of webhooks with `supersede` for which a newer delivery of the same branch has a Build, made or to be made.
-- Most tenants have no such webhook, and then nothing of theirs is looked at. The first attempt of a run and its delivery
-- are looked up one by one: joined, all builds and deliveries would be read.
with webhooks as materialized (
    select id, tenant_id from webhook_configs where is_active and (spec ->> 'supersede')::boolean
),
live as materialized (
    select b.resource_uid,
           (select f.id from builds f where f.resource_uid = b.resource_uid and f.run = b.run and f.attempt = 1) as first
    from builds b
    where b.status in ('queued', 'in_progress')
      and b.cancel_requested_at is null
      and b.tenant_id in (select tenant_id from webhooks)
)
select distinct on (live.resource_uid) live.resource_uid, newer.delivery_id as "delivery_id!", newer.build_name as "build_name!"
from live
cross join lateral (
    select w.id, w.webhook_config_id, w.build_name, w.event ->> 'branch' as branch
    from webhook_deliveries w
    where w.build_id = live.first and w.direction = 'inbound' and w.webhook_config_id in (select id from webhooks)
    offset 0
) d
cross join lateral (
    select n.id, n.delivery_id, n.build_name
    from webhook_deliveries n
    where n.webhook_config_id = d.webhook_config_id
      and n.direction = 'inbound'
      and n.id > d.id
      and n.build_name is not null
      and n.build_name <> d.build_name
      and not n.redelivered
      and n.event ->> 'branch' = d.branch
    order by n.id desc
    limit 1
) newer
order by live.resource_uid, newer.id desc
