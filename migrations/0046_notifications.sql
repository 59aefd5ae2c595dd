-- What webhooks send: a row for every transition that one wants to hear of, made by the transition's own transaction.

alter table webhook_configs add column notify_disabled_at timestamptz;

comment on column webhook_configs.notify_disabled_at is 'When the receiver said that it wants nothing ever again (410); until spec.notify changes, nothing is sent. Null otherwise.';
comment on column webhook_configs.last_delivery_status is 'How that one went: received, built, none (no Build is made for it), failed (its Build could not be made, or a notification was given up) or sent. Null before the first.';

-- Which webhooks of a tenant send: where tenant_id = $1 and is_active and notify_disabled_at is null and spec ? 'notify'.
create index webhook_configs_notifying_idx on webhook_configs (tenant_id)
    where is_active and notify_disabled_at is null and spec ? 'notify';

comment on column webhook_deliveries.event_type is 'Inbound: push, tag, pull_request, release, ping or other; outbound: build.queued and the like, or commit_status.';

-- Whether a newer state of a commit is to be told: where webhook_config_id = $1 and payload ->> 'commit' = $2.
create index webhook_deliveries_states_idx on webhook_deliveries (webhook_config_id, (payload ->> 'commit'))
    where event_type = 'commit_status';

create function notify_of_transitions() returns trigger
language plpgsql
as $$
declare
    made int;
begin
    insert into webhook_deliveries (id, tenant_id, webhook_config_id, build_id, direction, delivery_id, event_type, payload,
        next_retry_at)
    select (left(uuid_v7_floor(clock_timestamp())::text, 15) || substr(gen_random_uuid()::text, 16))::uuid,
           c.tenant_id,
           c.id,
           b.id,
           'outbound',
           -- The same on every try, and for a build that is started a second time.
           'msg_' || left(encode(sha256(convert_to(b.id || ' ' || event.type || ' ' || c.id || ' ' || (c.spec #>> '{notify,url}'), 'UTF8')), 'hex'), 32),
           event.type,
           jsonb_build_object(
               'type', event.type,
               'timestamp', to_char(t.changed_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
               'data', jsonb_strip_nulls(jsonb_build_object(
                   'buildId', b.id,
                   'namespace', b.resource_namespace,
                   'name', b.resource_name,
                   'project', p.name,
                   'buildNumber', b.build_number,
                   'run', b.run,
                   'attempt', b.attempt,
                   'method', b.build_method,
                   'image', i.repository || ':' || i.tag,
                   'status', t.to_status,
                   'gitCommit', b.git_commit,
                   'gitBranch', b.git_branch,
                   'message', t.reason
               ))
           ),
           now()
    from transitions t
    join builds b on b.id = t.build_id
    cross join lateral (select case t.to_status
        when 'in_progress' then 'build.started'
        when 'success' then 'build.succeeded'
        else 'build.' || t.to_status
    end as type) event
    join webhook_configs c on c.tenant_id = b.tenant_id and c.is_active and c.notify_disabled_at is null and c.spec ? 'notify'
    join projects p on p.id = b.project_id
    left join images i on i.id = b.image_id
    where coalesce(jsonb_array_length(c.spec #> '{notify,events}'), 0) = 0 or c.spec #> '{notify,events}' ? event.type
    on conflict on constraint webhook_deliveries_delivery_key do nothing;
    get diagnostics made = row_count;
    -- The Git host is told of the Builds that its own deliveries made.
    insert into webhook_deliveries (id, tenant_id, webhook_config_id, build_id, direction, delivery_id, event_type, payload,
        next_retry_at)
    select (left(uuid_v7_floor(clock_timestamp())::text, 15) || substr(gen_random_uuid()::text, 16))::uuid,
           c.tenant_id,
           c.id,
           b.id,
           'outbound',
           'status_' || left(encode(sha256(convert_to(b.id || ' ' || t.to_status, 'UTF8')), 'hex'), 32),
           'commit_status',
           jsonb_build_object(
               'at', to_char(t.changed_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
               'commit', b.git_commit,
               'status', t.to_status,
               'description', t.reason
           ),
           now()
    from transitions t
    join builds b on b.id = t.build_id and b.triggered_by_git_event is not null and b.git_commit is not null
    join builds first on first.resource_uid = b.resource_uid and first.run = b.run and first.attempt = 1
    join webhook_deliveries d on d.build_id = first.id and d.direction = 'inbound'
    join webhook_configs c on c.id = d.webhook_config_id and c.is_active and c.spec ? 'commitStatus'
    on conflict on constraint webhook_deliveries_delivery_key do nothing;
    if found or made > 0 then
        perform pg_notify('image_factory_deliveries', 'outbound');
    end if;
    return null;
end
$$;

comment on function notify_of_transitions() is 'Makes the notifications and commit states of new rows of build_status_history, for the webhooks of their tenants that want them.';

create trigger build_status_history_notify
after insert on build_status_history
referencing new table as transitions
for each statement execute function notify_of_transitions();
