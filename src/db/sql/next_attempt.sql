-- The attempt after one that has just failed: the same run with the same inputs, with its own number, configuration,
-- trigger and first status. None where the run was asked to stop meanwhile.
with failed as (
    select b.*,
           (select f.id from builds f where f.resource_uid = b.resource_uid and f.run = b.run and f.attempt = 1) as first_attempt
    from builds b
    where b.id = $1 and b.status = 'failed' and b.cancel_requested_at is null
),
numbered as (
    update projects
    set next_build_number = next_build_number + 1
    from failed
    where projects.id = failed.project_id
    returning next_build_number - 1 as number
),
next as (
    insert into builds (id, tenant_id, project_id, image_id, build_number, triggered_by_user_id, triggered_by_git_event,
        git_commit, git_branch, git_author, git_message, status, error_message, resource_namespace, resource_name, resource_uid, run, attempt, inputs_hash, observed_rerun,
        observed_generation, priority, build_method, placement, queued_at, not_before)
    select $2,
           failed.tenant_id,
           failed.project_id,
           failed.image_id,
           numbered.number,
           failed.triggered_by_user_id,
           failed.triggered_by_git_event,
           -- A commit that was asked for by its id stays the same; another's is known when it was fetched.
           case when failed.triggered_by_git_event is not null then failed.git_commit end,
           case when failed.triggered_by_git_event is not null then failed.git_branch end,
           case when failed.triggered_by_git_event is not null then failed.git_author end,
           case when failed.triggered_by_git_event is not null then failed.git_message end,
           'queued',
           -- The queue tells it: not before then, for this reason.
           format('attempt %s failed (%s): %s', failed.attempt, $4::text, failed.error_message),
           failed.resource_namespace,
           failed.resource_name,
           failed.resource_uid,
           failed.run,
           failed.attempt + 1,
           failed.inputs_hash,
           failed.observed_rerun,
           failed.observed_generation,
           failed.priority,
           failed.build_method,
           failed.placement,
           failed.completed_at,
           failed.completed_at + make_interval(secs => $3::float8)
    from failed
    cross join numbered
    returning id, run, attempt, queued_at, triggered_by_user_id, resource_namespace, resource_name
),
config as (
    insert into build_configs
    select copy.*
    from next
    join build_configs c on c.build_id = $1
    -- The rest is as it was, whatever columns there are.
    cross join lateral jsonb_populate_record(c, jsonb_build_object('id', $5::uuid, 'build_id', next.id)) copy
),
triggered as (
    insert into build_triggers (id, build_id, trigger_type, trigger_source, created_by_user_id, created_at)
    select $6, next.id, t.trigger_type, failed.first_attempt::text, t.created_by_user_id, next.queued_at
    from next
    cross join failed
    join build_triggers t on t.build_id = failed.id
),
recorded as (
    insert into build_status_history
        (id, build_id, sequence, from_status, to_status, reason, changed_by_user_id, changed_by_system, changed_at)
    select $7,
           next.id,
           1,
           null,
           'queued',
           format('attempt %s of run %s was made: attempt %s failed (%s)', next.attempt, next.run, next.attempt - 1, $4::text),
           null,
           true,
           next.queued_at
    from next
)
select pg_notify('image_factory_status', 'queued ' || resource_namespace || '/' || resource_name)::text as notified
from next
