-- Deliveries of which nobody has said yet whether they make a Build, oldest first; and whether the same event has made
-- one within a day, in another delivery.
select d.id,
       d.webhook_config_id,
       d.event as "event!",
       d.redelivered,
       c.webhook_name,
       c.is_active,
       c.spec as "spec?",
       exists (
           select from webhook_deliveries other
           where other.webhook_config_id = d.webhook_config_id
             and other.direction = 'inbound'
             and other.event ->> 'commit' = d.event ->> 'commit'
             and other.event_type = d.event_type
             and other.event ->> 'git_ref' is not distinct from d.event ->> 'git_ref'
             and other.delivery_id <> d.delivery_id
             and other.created_at > d.created_at - interval '24 hours'
             and case
                 -- What was seen to have moved has moved.
                 when d.polled and other.polled then false
                 -- What somebody delivers counts, whatever becomes of it; this one was found just before it came.
                 when d.polled then other.created_at > d.created_at - interval '1 minute'
                 -- Found before it was delivered; unless the branch has been somewhere else since.
                 when other.polled then other.build_name is not null and not exists (
                     select from webhook_deliveries since
                     where since.webhook_config_id = d.webhook_config_id
                       and since.direction = 'inbound'
                       and since.id > other.id and since.id < d.id
                       and since.event ->> 'git_ref' = d.event ->> 'git_ref'
                       and since.event ->> 'commit' <> d.event ->> 'commit'
                 )
                 else other.build_name is not null
                   and other.event ->> 'before' is not distinct from d.event ->> 'before'
             end
       ) as "is_repeated!",
       -- It came late: the push after it has come before, and is not undone by this one.
       exists (
           select from webhook_deliveries next
           where next.webhook_config_id = d.webhook_config_id
             and next.direction = 'inbound'
             and next.id < d.id
             and next.created_at > d.created_at - interval '24 hours'
             and next.build_name is not null
             and not next.polled and not d.polled
             and next.event ->> 'git_ref' = d.event ->> 'git_ref'
             and next.event ->> 'before' = d.event ->> 'commit'
             and d.event ->> 'before' is distinct from next.event ->> 'commit'
       ) as "is_outdated!"
from webhook_deliveries d
join webhook_configs c on c.id = d.webhook_config_id
where d.next_retry_at is not null
  and d.direction = 'inbound'
  and d.build_name is null
order by d.id
limit $1
