-- A day's numbers are read from the index alone: what ended on it lies together there, and the table, in which builds of
-- all tenants alternate, is visited only for rows that no vacuum has seen yet.
drop index builds_ended_idx;
create index builds_ended_idx on builds (tenant_id, completed_at)
include (id, status, build_method, queued_at, not_before, started_at)
where completed_at is not null;
