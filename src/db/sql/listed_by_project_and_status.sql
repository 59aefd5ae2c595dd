-- Attempts of a tenant's project with this status, newest first.
select id from builds
where project_id = (
        select p.id from projects p join tenants t on t.id = p.tenant_id where t.uid = $1 and p.name = $4
    )
    and status = $5
    and id < coalesce($2::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
order by id desc limit $3
