-- Old deliveries and tries. Not those of which something is to be done yet, whose Build was made and is not queued, or is
-- there still; nor the newest that a webhook received, which its status tells; nor what is newer than the heads that the
-- last look has seen, with which the next compares them.
delete from webhook_deliveries
where id in (
    select d.id
    from webhook_deliveries d
    where d.id < uuid_v7_floor(now() - make_interval(days => $1))
      and d.created_at < now() - make_interval(days => $1)
      and d.next_retry_at is null
      and d.id <> all($2::uuid[])
      and (d.build_name is null or d.build_id is not null or d.error_message is not null or exists (
          select from webhook_deliveries other
          where other.webhook_config_id = d.webhook_config_id and other.direction = 'inbound'
            and other.delivery_id = d.delivery_id and other.build_name = d.build_name and other.build_id is not null
      ))
      and (d.direction = 'outbound' or exists (
          select from webhook_deliveries newer
          where newer.webhook_config_id = d.webhook_config_id and newer.direction = 'inbound' and newer.id > d.id
      ))
      and not exists (
          select from webhook_polls p
          where p.webhook_config_id = d.webhook_config_id and p.seen_at <= d.created_at
      )
    order by d.id
    limit $3
)
