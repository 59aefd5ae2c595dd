-- A delivery again, as a row of its own: it is decided anew, and makes a Build of its own. It takes the place of a try that
-- is yet to come.
with again as (
    insert into webhook_deliveries (id, tenant_id, webhook_config_id, direction, delivery_id, event_type, payload,
        response_status, attempt_number, next_retry_at, event, redelivered, polled)
    select $1, d.tenant_id, d.webhook_config_id, d.direction, d.delivery_id, d.event_type, d.payload,
        d.response_status, d.attempt_number + 1, now(), d.event, true, d.polled
    from webhook_deliveries d
    join webhook_configs c on c.id = d.webhook_config_id and c.is_active
    join tenants t on t.id = c.tenant_id and t.name = $2
    where c.webhook_name = $3 and d.direction = 'inbound' and d.delivery_id = $4
    order by d.attempt_number desc
    limit 1
    returning webhook_config_id, delivery_id
),
replaced as (
    update webhook_deliveries d
    set next_retry_at = null, error_message = 'it was delivered again before it was built'
    from again
    where d.webhook_config_id = again.webhook_config_id and d.direction = 'inbound'
      and d.delivery_id = again.delivery_id and d.next_retry_at is not null
)
select pg_notify('image_factory_deliveries', '')::text as notified
from again
