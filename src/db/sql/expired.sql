-- Attempts whose Job may go, at most $1.
select b.id, b.resource_namespace as namespace, b.resource_name as name
from builds b
where b.cleanup_at is null and b.cleanup_due_at <= now()
order by b.cleanup_due_at
limit $1
