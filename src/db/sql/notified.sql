-- How a try to send went; the next is a row of its own, if there is one. A receiver that wants nothing ever again gets
-- nothing of what waits for it either.
with tried as (
    update webhook_deliveries
    set response_status = $2, error_message = $3, next_retry_at = null
    where id = $1 and next_retry_at is not null
    returning *
),
next as (
    insert into webhook_deliveries (id, tenant_id, webhook_config_id, build_id, direction, delivery_id, event_type, payload,
        attempt_number, next_retry_at)
    select $4, tenant_id, webhook_config_id, build_id, direction, delivery_id, event_type, payload,
        attempt_number + 1, now() + make_interval(secs => $5::float8)
    from tried
    where $5::float8 is not null
    on conflict on constraint webhook_deliveries_delivery_key do nothing
),
dropped as (
    update webhook_deliveries d
    set error_message = 'the receiver wants nothing ever again', next_retry_at = null
    from tried
    where $6 and d.webhook_config_id = tried.webhook_config_id and d.direction = 'outbound' and d.next_retry_at is not null
      and d.id <> tried.id and d.event_type <> 'commit_status'
)
update webhook_configs c
set last_delivery_at = now(),
    last_delivery_status = case when $3::text is null then 'sent' when $5::float8 is null then 'failed' else c.last_delivery_status end,
    notify_disabled_at = case when $6 then now() else c.notify_disabled_at end
from tried
-- What is told of commits goes elsewhere.
where c.id = tried.webhook_config_id and tried.event_type <> 'commit_status'
