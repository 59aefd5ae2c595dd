-- A tenant's attempts with one status, newest first:
-- where tenant_id = $1 and status = $2 and id < $3 order by id desc limit $4. Without it, the few that run, or have
-- failed, are looked for among all that ever were.
create index builds_by_status_idx on builds (tenant_id, status, id);
