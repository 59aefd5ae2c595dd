-- Running attempts whose Job was made at least $1 seconds ago.
select id
from builds
where status = 'in_progress' and job_created_at < now() - make_interval(secs => $1)
