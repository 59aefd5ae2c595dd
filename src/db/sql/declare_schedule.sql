-- The row of a BuildSchedule as that is now, unless the row has become another since it was read: the scheduler has moved
-- it on, or another operator knows a newer BuildSchedule.
with declared as (
    insert into build_schedules as c (id, tenant_id, project_id, schedule_name, cron_expression, timezone, build_method,
        build_config_preset, git_branch, is_active, next_trigger_at, resource_uid, observed_generation, run_now_asked)
    select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14
    on conflict on constraint build_schedules_tenant_id_schedule_name_key do update
    set project_id = excluded.project_id,
        cron_expression = excluded.cron_expression,
        timezone = excluded.timezone,
        build_method = excluded.build_method,
        build_config_preset = excluded.build_config_preset,
        git_branch = excluded.git_branch,
        is_active = excluded.is_active,
        next_trigger_at = excluded.next_trigger_at,
        resource_uid = excluded.resource_uid,
        observed_generation = excluded.observed_generation,
        run_now_asked = excluded.run_now_asked
    where $15
        and c.resource_uid is not distinct from $16
        and c.observed_generation = $17
        and c.next_trigger_at is not distinct from $18
        and (c.resource_uid is distinct from excluded.resource_uid or c.observed_generation <= excluded.observed_generation)
    returning c.tenant_id, c.schedule_name
)
select pg_notify('image_factory_schedules', t.name || '/' || d.schedule_name)::text as notified
from declared d
join tenants t on t.id = d.tenant_id
