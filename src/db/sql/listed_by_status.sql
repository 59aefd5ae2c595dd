-- Attempts of a tenant with this status, newest first.
select id from builds
where tenant_id = (select id from tenants where uid = $1)
    and status = $4
    and id < coalesce($2::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
order by id desc limit $3
