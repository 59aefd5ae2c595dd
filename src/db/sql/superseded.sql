-- Live Builds of webhooks with `supersede` for which a newer delivery of the same branch has a Build, made or to be made.
select distinct on (live.resource_uid) live.resource_uid, newer.delivery_id, newer.build_name as "build_name!"
from builds live
join builds first
  on first.resource_uid = live.resource_uid and first.run = live.run and first.attempt = 1
join webhook_deliveries d on d.build_id = first.id
join webhook_configs c on c.id = d.webhook_config_id and c.is_active and (c.spec ->> 'supersede')::boolean
join webhook_deliveries newer
  on newer.webhook_config_id = d.webhook_config_id
 and newer.direction = 'inbound'
 and newer.id > d.id
 and newer.build_name is not null
 and newer.build_name <> d.build_name
 and not newer.redelivered
 and newer.event ->> 'branch' = d.event ->> 'branch'
-- Most have none, and then nothing of this is looked at.
where exists (select from webhook_configs where is_active and (spec ->> 'supersede')::boolean)
  and live.status in ('queued', 'in_progress')
  and live.cancel_requested_at is null
order by live.resource_uid, newer.id desc
