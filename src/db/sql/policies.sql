-- The declared policies, no more and no less; a message only where a row has changed.
with declared as (
    select t.id as tenant_id, d.*
    from unnest($1::uuid[], $2::text[], $3::int[], $4::int[], $5::int[], $6::int[], $7::int[], $8::int[], $9::int[], $10::boolean[], $11::int[], $12::int[])
        as d (new_id, tenant_uid, builds, per_project, kaniko, buildx, container, packer, paketo, priority_dispatch, wait_minutes, weight)
    join tenants t on t.uid = d.tenant_uid
),
removed as (
    delete from build_concurrency_policies p
    where p.tenant_id not in (select tenant_id from declared)
    returning p.tenant_id
),
changed as (
    insert into build_concurrency_policies as p (id, tenant_id, max_concurrent_builds, max_concurrent_per_project,
        kaniko_max_concurrent, buildx_max_concurrent, container_max_concurrent, packer_max_concurrent,
        paketo_max_concurrent, priority_dispatch_enabled, max_queued_wait_minutes, weight)
    select new_id, tenant_id, builds, per_project, kaniko, buildx, container, packer, paketo, priority_dispatch,
           wait_minutes, weight
    from declared
    on conflict on constraint build_concurrency_policies_tenant_id_key do update
    set max_concurrent_builds = excluded.max_concurrent_builds,
        max_concurrent_per_project = excluded.max_concurrent_per_project,
        kaniko_max_concurrent = excluded.kaniko_max_concurrent,
        buildx_max_concurrent = excluded.buildx_max_concurrent,
        container_max_concurrent = excluded.container_max_concurrent,
        packer_max_concurrent = excluded.packer_max_concurrent,
        paketo_max_concurrent = excluded.paketo_max_concurrent,
        priority_dispatch_enabled = excluded.priority_dispatch_enabled,
        max_queued_wait_minutes = excluded.max_queued_wait_minutes,
        weight = excluded.weight
    where (p.max_concurrent_builds, p.max_concurrent_per_project, p.kaniko_max_concurrent, p.buildx_max_concurrent,
           p.container_max_concurrent, p.packer_max_concurrent, p.paketo_max_concurrent, p.priority_dispatch_enabled,
           p.max_queued_wait_minutes, p.weight)
        is distinct from
          (excluded.max_concurrent_builds, excluded.max_concurrent_per_project, excluded.kaniko_max_concurrent,
           excluded.buildx_max_concurrent, excluded.container_max_concurrent, excluded.packer_max_concurrent,
           excluded.paketo_max_concurrent, excluded.priority_dispatch_enabled, excluded.max_queued_wait_minutes,
           excluded.weight)
    returning tenant_id
)
select case when exists (select from removed) or exists (select from changed)
            then pg_notify('image_factory_status', '')::text end as notified
