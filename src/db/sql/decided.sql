-- What was decided of deliveries: the Build to make, or why none is. What was delivered has verified its webhook.
with decided as (
    update webhook_deliveries d
    set build_name = v.build_name,
        error_message = v.cause,
        next_retry_at = case when v.build_name is not null then now() end
    from unnest($1::uuid[], $2::text[], $3::text[]) as v (id, build_name, cause)
    where d.id = v.id
    returning d.id, d.webhook_config_id, d.created_at, d.build_name, d.polled
),
newest as (
    select distinct on (webhook_config_id) webhook_config_id, created_at, build_name,
        bool_or(not polled) over (partition by webhook_config_id) as is_signed
    from decided
    order by webhook_config_id, id desc
)
update webhook_configs c
set is_verified = c.is_verified or newest.is_signed,
    last_delivery_at = newest.created_at,
    last_delivery_status = case when newest.build_name is null then 'none' else 'received' end
from newest
where c.id = newest.webhook_config_id
