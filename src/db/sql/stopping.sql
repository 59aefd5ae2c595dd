-- Attempts that have a Job and shall stop.
select id, resource_namespace as namespace, resource_name as name
from builds
where status = 'in_progress'
  and job_created_at is not null
  and (cancel_requested_at is not null or pod_given_up_at is not null)
