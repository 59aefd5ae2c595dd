-- Attempts as people read them, newest first: columns under their own names, and the names of what
-- ids point to. Times are in UTC, as every connection of the pool is.
select jsonb_build_object(
    'id', b.id,
    'namespace', b.resource_namespace,
    'name', b.resource_name,
    'project', p.name,
    'build_number', b.build_number,
    'run', b.run,
    'attempt', b.attempt,
    'build_method', c.build_method,
    'status', b.status,
    'error_message', b.error_message,
    'failure_reason', r.failure_reason,
    'failure_stage', r.failure_stage,
    'exit_code', r.exit_code,
    'priority', b.priority,
    'trigger_type', t.trigger_type,
    'trigger_source', t.trigger_source,
    'queued_at', b.queued_at,
    'started_at', b.started_at,
    'completed_at', b.completed_at,
    'worker', w.worker_name,
    'git_commit', b.git_commit,
    'git_branch', b.git_branch,
    'git_author', b.git_author,
    'git_message', b.git_message,
    'image', i.repository || ':' || i.tag,
    'output_image_url', r.output_image_url,
    'output_image_digest', r.output_image_digest
) as "build!"
from builds b
join projects p on p.id = b.project_id
join build_configs c on c.build_id = b.id
join build_triggers t on t.build_id = b.id
left join build_results r on r.build_id = b.id
left join build_workers w on w.id = b.worker_id
left join images i on i.id = b.image_id
where b.id = any($1)
order by b.id desc
