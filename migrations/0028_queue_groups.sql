-- What the claim and the workers need to be fair: builds that wait for the same thing stand in one group, and a worker
-- knows which builds it takes and where its Jobs land.

alter table builds add column build_method text;
alter table builds add column placement jsonb;
update builds b
set build_method = c.build_method,
    placement = case when c.spec -> 'worker' not in ('null', '{}') then c.spec -> 'worker' end
from build_configs c
where c.build_id = b.id;
alter table builds alter column build_method set not null;
alter table builds add constraint builds_build_method_check check (build_method in ('kaniko', 'buildx', 'container', 'packer', 'paketo'));
-- The claim reads every head's placement: one that it could not read would stop all.
alter table builds add constraint builds_placement_check check (
    placement - array['name', 'zone', 'selector'] = '{}'
    and coalesce(jsonb_typeof(placement -> 'name'), 'string') = 'string'
    and coalesce(jsonb_typeof(placement -> 'zone'), 'string') = 'string'
    and coalesce(jsonb_typeof(placement -> 'selector'), 'object') = 'object'
    and not placement @? '$.selector.* ? (@.type() != "string")'
);
-- A selector is too long for a key of an index, and its hash is not.
alter table builds add column queue_group uuid not null
    generated always as (md5(project_id::text || ' ' || build_method || ' ' || coalesce(placement::text, ''))::uuid) stored;

comment on column builds.build_method is 'Its method, as in build_configs.build_method: limits are counted by it.';
comment on column builds.placement is 'spec.worker: which workers may take it. Null for any.';
comment on column builds.queue_group is 'Same for builds of a tenant that wait for the same room: one project, method and placement. A hash of the three.';

-- The heads of a group where its tenant's policy heeds priority:
-- where tenant_id = $1 and queue_group = $2 and status = 'queued' order by priority desc, queued_at, id limit $3.
-- Also the groups of a tenant, and the tenants that wait, by skipping from one to the next.
create index builds_group_priority_idx on builds (tenant_id, queue_group, priority desc, queued_at, id) where status = 'queued';
-- The same where priority is not heeded (the default).
create index builds_group_fifo_idx on builds (tenant_id, queue_group, queued_at, id) where status = 'queued';
drop index builds_queue_priority_idx;

-- What runs, counted by all that limits it: where status = 'in_progress' group by tenant_id, project_id, build_method, worker_id.
create index builds_running_idx on builds (tenant_id, project_id, build_method, worker_id) where status = 'in_progress';
drop index builds_running_by_tenant_idx;

-- The worker whose cache is warm for an image: where image_id = $1 and status = 'success' order by completed_at desc limit 1.
-- Also how long builds of an image take: the estimate of a start.
create index builds_image_last_success_idx on builds (image_id, completed_at desc) where status = 'success';

alter table build_workers add column methods text[] not null default '{}';
alter table build_workers add column cordoned boolean not null default false;
alter table build_workers add column node_selector jsonb not null default '{}';
alter table build_workers add column tolerations jsonb not null default '[]';
alter table build_workers add column declared boolean not null default false;
alter table build_workers add column message text;
alter table build_workers add column created_at timestamptz not null default now();
alter table build_workers add constraint build_workers_methods_check check (methods <@ array['kaniko', 'buildx', 'container', 'packer', 'paketo']);
alter table build_workers add constraint build_workers_node_selector_check check (jsonb_typeof(node_selector) = 'object');
alter table build_workers add constraint build_workers_tolerations_check check (jsonb_typeof(tolerations) = 'array');

comment on column build_workers.methods is 'Methods it takes. Empty for all.';
comment on column build_workers.cordoned is 'True takes no new builds; those that run go on.';
comment on column build_workers.node_selector is 'Labels of the nodes its Jobs land on, an object. Empty for any node.';
comment on column build_workers.tolerations is 'Tolerations of its Jobs, an array of Kubernetes'' Toleration.';
comment on column build_workers.declared is 'Whether a BuildWorker declares it now. False for one that was deleted, and for the built-in one, which takes what no declared worker fits.';
comment on column build_workers.message is 'Why it is degraded or offline, as one sentence. Null otherwise.';
comment on column build_workers.created_at is 'When it was first declared.';

-- When a worker was offline: what uptime_percent is reckoned from. The operator forgets outages that ended more than
-- 7 days ago.
create table build_worker_outages (
    worker_id uuid not null,
    began_at timestamptz not null,
    ended_at timestamptz,
    constraint build_worker_outages_pkey primary key (worker_id, began_at),
    constraint build_worker_outages_worker_id_fkey foreign key (worker_id) references build_workers (id),
    constraint build_worker_outages_ended_at_check check (ended_at >= began_at)
);

-- The outage that lasts: at most one a worker.
create unique index build_worker_outages_open_idx on build_worker_outages (worker_id) where ended_at is null;

comment on table build_worker_outages is 'When a worker was offline, for the last 7 days.';
comment on column build_worker_outages.worker_id is 'The worker.';
comment on column build_worker_outages.began_at is 'Since when.';
comment on column build_worker_outages.ended_at is 'Until when. Null while it lasts.';
