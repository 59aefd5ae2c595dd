-- Ends the deliveries that wait for a webhook which was suspended or is no longer there, but for one whose Build a try
-- before has made.
with ended as (
    update webhook_deliveries d
    set next_retry_at = null, error_message = $1
    from webhook_configs c
    where c.id = d.webhook_config_id
      and not c.is_active
      and d.next_retry_at is not null
      and d.direction = 'inbound'
      and d.build_name is not null
      and not exists (
          select from webhook_deliveries o
          where o.webhook_config_id = d.webhook_config_id and o.direction = 'inbound'
            and o.delivery_id = d.delivery_id and o.build_name = d.build_name and o.build_id is not null
      )
    returning d.webhook_config_id
)
update webhook_configs
set last_delivery_status = 'none'
where id in (select webhook_config_id from ended)
