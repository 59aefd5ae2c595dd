-- How each declared webhook is, with its newest delivery.
select c.resource_uid as "uid!",
       c.is_verified as "verified!",
       c.notify_disabled_at is not null as "is_disabled!",
       d.created_at as "at?",
       d.delivery_id as "delivery_id?",
       d.event_type as "event_type?",
       d.build_name as "build_name?",
       d.error_message as "error_message?",
       d.next_retry_at as "next_retry_at?",
       p.ended_at as "polled_at?",
       p.error_message as "poll_error?"
from webhook_configs c
left join webhook_polls p on p.webhook_config_id = c.id
left join lateral (
    select * from webhook_deliveries d
    where d.webhook_config_id = c.id and d.direction = 'inbound'
    order by d.id desc
    limit 1
) d on true
where c.resource_uid = any($1)
