-- Attempts of a tenant, newest first. Said as a range in the order of the index (tenant_id, id): with an equation the
-- planner may read the newest of all tenants instead, which is all that ever were where this one has none of them.
select id from builds
where tenant_id >= (select id from tenants where uid = $1)
    and (tenant_id, id)
        < ((select id from tenants where uid = $1), coalesce($2::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
order by tenant_id desc, id desc limit $3
