-- Deliveries whose Build is to be made now, of each webhook the oldest, if no Build of it is queued, running, or made and
-- not queued yet. What a try before this one had made may be there already: its rows are of the same delivery and name the
-- same Build.
with due as materialized (
    select d.*
    from webhook_deliveries d
    where d.next_retry_at <= now()
      and d.direction = 'inbound'
      and d.build_name is not null
),
-- One whose Build was deleted before it was queued holds up the others for a moment only.
busy as materialized (
    select m.webhook_config_id, m.build_name
    from webhook_deliveries m
    where m.made_at > now() - interval '2 minutes' and m.build_id is null
      and m.webhook_config_id in (select webhook_config_id from due)
      -- Its Build may belong to a try before this one.
      and not exists (
          select from webhook_deliveries o
          where o.webhook_config_id = m.webhook_config_id and o.direction = 'inbound'
            and o.delivery_id = m.delivery_id and o.build_name = m.build_name and o.build_id is not null
      )
    union
    select m.webhook_config_id, m.build_name
    from builds live
    join builds first on first.resource_uid = live.resource_uid and first.run = 1 and first.attempt = 1
    join webhook_deliveries m on m.build_id = first.id and m.direction = 'inbound'
    where live.status in ('queued', 'in_progress')
      and live.tenant_id in (select tenant_id from due)
),
ready as (
    select distinct on (d.webhook_config_id) d.*
    from due d
    where not exists (
        select from busy b where b.webhook_config_id = d.webhook_config_id and b.build_name <> d.build_name
    )
    order by d.webhook_config_id, d.id
)
select d.id,
       d.build_name as "build_name!",
       d.delivery_id,
       d.attempt_number,
       d.event as "event!",
       t.name as namespace,
       c.webhook_name,
       c.resource_uid as "resource_uid!",
       c.spec as "spec!",
       tries.ids as "origins!",
       tries.is_made as "is_made!",
       -- It could not be made for a while, and a newer commit was; or that is to take its place.
       not d.redelivered and not tries.is_made and exists (
           select from webhook_deliveries newer
           where newer.webhook_config_id = d.webhook_config_id
             and newer.direction = 'inbound'
             and newer.id > tries.ids[1]
             and newer.build_name <> d.build_name
             and not newer.redelivered
             and (newer.made_at is not null or (c.spec ->> 'supersede')::boolean and newer.next_retry_at is not null)
             and newer.event ->> 'git_ref' = d.event ->> 'git_ref'
       ) as "is_outdated!"
from ready d
join webhook_configs c on c.id = d.webhook_config_id
join tenants t on t.id = c.tenant_id
cross join lateral (
    select array_agg(o.id order by o.attempt_number) as ids, bool_or(o.build_id is not null) as is_made
    from webhook_deliveries o
    where o.webhook_config_id = d.webhook_config_id and o.direction = 'inbound'
      and o.delivery_id = d.delivery_id and o.build_name = d.build_name
) tries
-- What was made by a try before is there, whatever became of its webhook.
where c.is_active or tries.is_made
order by d.next_retry_at
limit $1
