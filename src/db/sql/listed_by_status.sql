-- Attempts of a tenant with this status, of any project or of one, newest first.
select b.id from builds b
where b.tenant_id = (select id from tenants where uid = $1)
    and b.status = $4
    and ($5::text is null or b.project_id = (select p.id from projects p where p.tenant_id = b.tenant_id and p.name = $5))
    and b.id < coalesce($2::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
order by b.id desc limit $3
