-- Claimed attempts without a Job, with what their Jobs are made of.
select b.id,
       b.resource_namespace,
       b.resource_name,
       b.resource_uid,
       p.name as project,
       w.worker_name,
       w.status = 'offline' as "worker_offline!",
       w.node_selector as "node_selector: Json<BTreeMap<String, String>>",
       w.tolerations as "tolerations: Json<Vec<Toleration>>",
       c.build_method,
       c.spec,
       b.cancel_reason,
       -- Not those whose worker went offline: `db::launches::put_back` says it like this.
       (select count(*) from build_status_history h
        where h.build_id = b.id and h.sequence > 1 and h.to_status = 'queued'
          and h.reason like 'the Job was refused: %') as "returns!"
from builds b
join projects p on p.id = b.project_id
join build_workers w on w.id = b.worker_id
join build_configs c on c.build_id = b.id
where b.status = 'in_progress' and b.job_created_at is null
order by b.started_at
