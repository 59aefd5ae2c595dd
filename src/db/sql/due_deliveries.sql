-- Deliveries whose Build is to be made now, oldest first. What a try before this one had made may be there already: its
-- rows are of the same delivery and name the same Build.
select d.id,
       d.build_name as "build_name!",
       d.delivery_id,
       d.attempt_number,
       d.event as "event!",
       t.name as namespace,
       c.webhook_name,
       c.resource_uid as "resource_uid!",
       c.spec as "spec!",
       array(
           select o.id from webhook_deliveries o
           where o.webhook_config_id = d.webhook_config_id and o.direction = 'inbound'
             and o.delivery_id = d.delivery_id and o.build_name = d.build_name
       ) as "origins!",
       exists (
           select from webhook_deliveries o
           where o.webhook_config_id = d.webhook_config_id and o.direction = 'inbound'
             and o.delivery_id = d.delivery_id and o.build_name = d.build_name and o.build_id is not null
       ) as "is_made!"
from webhook_deliveries d
join webhook_configs c on c.id = d.webhook_config_id
join tenants t on t.id = c.tenant_id
where d.next_retry_at <= now()
  and d.direction = 'inbound'
  and d.build_name is not null
order by d.next_retry_at
limit $1
