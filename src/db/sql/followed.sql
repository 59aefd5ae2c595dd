-- Attempts to follow, and how far the log of each of their containers is stored.
select b.id as "id!", b.status as "status!", b.resource_namespace as "resource_namespace!",
       b.resource_name as "resource_name!", b.build_method as "build_method!",
       b.pod_waiting_reason is not null as "pod_waits!",
       c.container as "container?", c.last_timestamp as "last_timestamp?",
       c.lines_at_timestamp as "lines_at_timestamp?", c.line_number as "line_number?",
       c.finished as "finished?", c.bytes as "bytes?", c.capped as "capped?"
from builds b
left join build_log_cursors c on c.build_id = b.id
where b.id = any($1)
