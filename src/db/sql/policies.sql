-- The declared policies, no more and no less; a message only where a row has changed.
with declared as (
    select t.id as tenant_id, d.new_id, d.max_concurrent_builds
    from unnest($1::uuid[], $2::text[], $3::int[]) as d (new_id, tenant_uid, max_concurrent_builds)
    join tenants t on t.uid = d.tenant_uid
),
removed as (
    delete from build_concurrency_policies p
    where p.tenant_id not in (select tenant_id from declared)
    returning p.tenant_id
),
changed as (
    insert into build_concurrency_policies (id, tenant_id, max_concurrent_builds)
    select new_id, tenant_id, max_concurrent_builds from declared
    on conflict on constraint build_concurrency_policies_tenant_id_key do update
    set max_concurrent_builds = excluded.max_concurrent_builds
    where build_concurrency_policies.max_concurrent_builds is distinct from excluded.max_concurrent_builds
    returning tenant_id
)
select case when exists (select from removed) or exists (select from changed)
            then pg_notify('image_factory_status', '')::text end as notified
