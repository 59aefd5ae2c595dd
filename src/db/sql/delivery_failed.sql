-- A try to make a Build failed; the next is a row of its own, if there is one.
with failed as (
    update webhook_deliveries
    set error_message = $2, next_retry_at = null
    where id = $1 and next_retry_at is not null
    returning *
),
next as (
    insert into webhook_deliveries (id, tenant_id, webhook_config_id, direction, delivery_id, event_type, payload,
        response_status, attempt_number, next_retry_at, build_name, event, redelivered, polled)
    select $3, tenant_id, webhook_config_id, direction, delivery_id, event_type, payload,
        response_status, attempt_number + 1, now() + make_interval(secs => $4::float8), build_name, event, redelivered, polled
    from failed
    where $4::float8 is not null
    on conflict on constraint webhook_deliveries_delivery_key do nothing
)
update webhook_configs c
set last_delivery_status = 'failed'
from failed
where c.id = failed.webhook_config_id and $4::float8 is null
