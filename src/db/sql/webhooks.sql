-- The declared webhooks, no more and no less: the row of one that is no longer declared stays, inactive.
with declared as (
    select t.id as tenant_id, d.*
    from jsonb_to_recordset($1) as d (
        id uuid, project_id uuid, tenant_uid text, name text, project text, uid text, url text, secret text, events jsonb,
        branches jsonb, auto_build boolean, method text, preset jsonb, active boolean, provider text, spec jsonb
    )
    join tenants t on t.uid = d.tenant_uid
),
project as (
    insert into projects (id, tenant_id, name)
    select distinct on (tenant_id, project) project_id, tenant_id, project
    from declared
    -- Nothing changes, but the row is given back.
    on conflict on constraint projects_tenant_id_name_key do update set name = excluded.name
    returning id, tenant_id, name
),
removed as (
    update webhook_configs w
    set is_active = false
    where w.is_active
      and not exists (select from declared d where d.tenant_id = w.tenant_id and d.name = w.webhook_name)
    returning w.id
),
changed as (
    insert into webhook_configs as w (id, tenant_id, project_id, webhook_name, webhook_url, webhook_secret, event_types,
        branch_patterns, auto_build_enabled, build_method, build_config_preset, is_active, provider, resource_uid, spec)
    select d.id, d.tenant_id, p.id, d.name, d.url, d.secret, d.events,
        d.branches, d.auto_build, d.method, d.preset, d.active, d.provider, d.uid, d.spec
    from declared d
    join project p on p.tenant_id = d.tenant_id and p.name = d.project
    on conflict on constraint webhook_configs_tenant_id_webhook_name_key do update
    set project_id = excluded.project_id,
        webhook_url = excluded.webhook_url,
        webhook_secret = excluded.webhook_secret,
        event_types = excluded.event_types,
        branch_patterns = excluded.branch_patterns,
        auto_build_enabled = excluded.auto_build_enabled,
        build_method = excluded.build_method,
        build_config_preset = excluded.build_config_preset,
        is_active = excluded.is_active,
        provider = excluded.provider,
        resource_uid = excluded.resource_uid,
        spec = excluded.spec,
        notify_disabled_at = case when w.spec -> 'notify' is not distinct from excluded.spec -> 'notify' then w.notify_disabled_at end,
        -- What another secret has signed says nothing of this one; nor what another object of this name received.
        is_verified = w.is_verified and w.webhook_secret is not distinct from excluded.webhook_secret
            and w.resource_uid is not distinct from excluded.resource_uid
    where (w.project_id, w.webhook_url, w.webhook_secret, w.event_types, w.branch_patterns, w.auto_build_enabled,
           w.build_method, w.build_config_preset, w.is_active, w.provider, w.resource_uid, w.spec)
        is distinct from
          (excluded.project_id, excluded.webhook_url, excluded.webhook_secret, excluded.event_types,
           excluded.branch_patterns, excluded.auto_build_enabled, excluded.build_method, excluded.build_config_preset,
           excluded.is_active, excluded.provider, excluded.resource_uid, excluded.spec)
    returning w.id
)
select (select count(*) from removed) as "removed!", (select count(*) from changed) as "changed!"
