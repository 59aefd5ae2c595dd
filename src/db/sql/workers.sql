-- The declared workers, no more and no less: the row of one that is no longer declared stays, offline. A message
-- for the dispatcher only where a row has changed.
with declared as (
    select d.id, t.id as tenant_id, d.name, d.concurrent_builds, d.zone, d.labels,
           array(select jsonb_array_elements_text(d.methods)) as methods,
           d.cordoned, d.node_selector, d.tolerations, d.message,
           case when d.health = 'healthy' and w.current_builds_count >= d.concurrent_builds then 'busy'
                else d.health end as status
    from jsonb_to_recordset($1) as d (
        id uuid, tenant_uid text, name text, concurrent_builds int, zone text, labels jsonb, methods jsonb,
        cordoned boolean, node_selector jsonb, tolerations jsonb, health text, message text
    )
    left join tenants t on t.uid = d.tenant_uid
    left join build_workers w on w.tenant_id is not distinct from t.id and w.worker_name = d.name
),
removed as (
    update build_workers w
    set declared = false, status = 'offline', message = 'its BuildWorker was deleted'
    where w.declared
      and not exists (select from declared d where d.tenant_id is not distinct from w.tenant_id and d.name = w.worker_name)
    returning w.id
),
changed as (
    insert into build_workers (id, tenant_id, worker_name, worker_type, declared, concurrent_builds_limit, zone, labels,
                               methods, cordoned, node_selector, tolerations, status, message)
    select id, tenant_id, name, 'kubernetes', true, concurrent_builds, zone, labels,
           methods, cordoned, node_selector, tolerations, status, message
    from declared
    on conflict on constraint build_workers_tenant_id_worker_name_key do update
    set declared = true,
        concurrent_builds_limit = excluded.concurrent_builds_limit,
        zone = excluded.zone,
        labels = excluded.labels,
        methods = excluded.methods,
        cordoned = excluded.cordoned,
        node_selector = excluded.node_selector,
        tolerations = excluded.tolerations,
        status = excluded.status,
        message = excluded.message
    where (build_workers.declared, build_workers.concurrent_builds_limit, build_workers.zone, build_workers.labels,
           build_workers.methods, build_workers.cordoned, build_workers.node_selector, build_workers.tolerations,
           build_workers.status, build_workers.message)
          is distinct from
          (true, excluded.concurrent_builds_limit, excluded.zone, excluded.labels,
           excluded.methods, excluded.cordoned, excluded.node_selector, excluded.tolerations,
           excluded.status, excluded.message)
    returning id
)
select case when exists (select from removed) or exists (select from changed)
            then pg_notify('image_factory_status', '')::text end as notified
