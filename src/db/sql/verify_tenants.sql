-- What a build refers to is of its own tenant, or a shared worker. Foreign keys refuse most of it;
-- here it is looked at whatever they say.
with examined as (
    select count(*) as number from builds
),
broken as (
    select b.id::text as subject, 'is in a project of another tenant' as problem
    from builds b join projects p on p.id = b.project_id
    where p.tenant_id <> b.tenant_id
    union all
    select b.id::text, 'pushes an image of another project'
    from builds b join images i on i.id = b.image_id
    where i.project_id <> b.project_id
    union all
    select b.id::text, format('runs on worker %s of another tenant', w.worker_name)
    from builds b join build_workers w on w.id = b.worker_id
    where w.tenant_id <> b.tenant_id
    union all
    select b.id::text, 'has a result in another project'
    from build_results r
    join builds b on b.id = r.build_id
    left join images i on i.id = r.output_image_id
    where r.project_id <> b.project_id or i.project_id <> b.project_id
    union all
    select b.id::text, format('has artifact %s in another project', a.artifact_name)
    from build_artifacts a
    join builds b on b.id = a.build_id
    left join images i on i.id = a.image_id
    where a.project_id <> b.project_id or i.project_id <> b.project_id
    union all
    select b.id::text, 'was made by a webhook of another tenant'
    from webhook_deliveries d
    join webhook_configs w on w.id = d.webhook_config_id
    join builds b on b.id = d.build_id
    where d.tenant_id <> b.tenant_id or w.tenant_id <> b.tenant_id
    union all
    select b.id::text, 'was made by a schedule of another tenant'
    from schedule_slots s
    join build_schedules c on c.id = s.schedule_id
    join builds b on b.id = s.build_id
    where s.tenant_id <> b.tenant_id or c.tenant_id <> b.tenant_id
    union all
    select max(resource_namespace) || '/' || max(resource_name), 'has runs in several tenants'
    from builds
    group by resource_uid
    having count(distinct tenant_id) > 1
)
select examined.number as "examined!", broken.subject as "subject?", broken.problem as "problem?"
from examined left join broken on true
order by broken.subject
