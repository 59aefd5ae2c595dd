-- Takes notifications that are due, a few of each webhook so that a slow receiver keeps no other waiting, for a minute:
-- who is killed while it sends leaves them to the next. The states of one commit are told one after the other, so that the
-- newest is the last that its host hears. What is known only once a build has ended is added.
with due as (
    select id
    from (
        select id, next_retry_at, row_number() over (partition by webhook_config_id order by next_retry_at, id) as turn
        from webhook_deliveries
        where next_retry_at <= now() and direction = 'outbound' and webhook_config_id <> all($3::uuid[])
          and (event_type <> 'commit_status' or webhook_config_id || ' ' || (payload ->> 'commit') <> all($4::text[]))
    ) waiting
    where turn <= $2
    order by next_retry_at
    limit $1
),
taken as (
    update webhook_deliveries d
    set next_retry_at = now() + interval '1 minute',
        payload = case when d.event_type = 'commit_status' then d.payload else d.payload || jsonb_build_object('data', d.payload -> 'data' || coalesce((
            select jsonb_strip_nulls(jsonb_build_object('reason', r.failure_reason, 'stage', r.failure_stage,
                'digest', r.output_image_digest, 'durationMilliseconds', r.total_duration_milliseconds))
            from build_results r
            where r.build_id = d.build_id and d.event_type in ('build.succeeded', 'build.failed', 'build.cancelled')
        ), '{}')) end
    from due
    where d.id = due.id and d.next_retry_at <= now()
    returning d.*
)
select d.id,
       d.webhook_config_id,
       d.delivery_id,
       d.attempt_number,
       d.payload,
       d.event_type,
       d.build_id as "build_id!",
       t.name as namespace,
       c.webhook_name,
       c.resource_uid as "resource_uid!",
       c.spec as "spec!",
       c.is_active as "is_active!",
       c.notify_disabled_at is not null as "is_disabled!",
       -- What a commit is by now is told, not what it was: the state of its newest build, and of that the newest.
       d.event_type = 'commit_status' and exists (
           select from webhook_deliveries newer
           where newer.webhook_config_id = d.webhook_config_id
             and newer.event_type = 'commit_status'
             and newer.payload ->> 'commit' = d.payload ->> 'commit'
             and (newer.build_id, newer.payload ->> 'at') > (d.build_id, d.payload ->> 'at')
       ) as "is_outdated!"
from taken d
join webhook_configs c on c.id = d.webhook_config_id
join tenants t on t.id = c.tenant_id
