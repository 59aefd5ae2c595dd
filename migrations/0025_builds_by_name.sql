-- The attempts of a Build by its name, newest first, also when the Build is gone:
-- where tenant_id = $1 and resource_name = $2 order by id desc.
create index builds_by_name_idx on builds (tenant_id, resource_name, id);
