-- Where builds run, and how many at once.

create table build_workers (
    id uuid not null,
    tenant_id uuid,
    worker_name text not null,
    worker_type text not null,
    concurrent_builds_limit int not null,
    current_builds_count int not null default 0,
    status text not null,
    zone text,
    labels jsonb not null default '{}',
    last_heartbeat timestamptz,
    uptime_percent numeric(5, 2),
    constraint build_workers_pkey primary key (id),
    constraint build_workers_tenant_id_worker_name_key unique nulls not distinct (tenant_id, worker_name),
    constraint build_workers_tenant_id_fkey foreign key (tenant_id) references tenants (id),
    constraint build_workers_worker_type_check check (worker_type in ('docker', 'kubernetes', 'local')),
    constraint build_workers_status_check check (status in ('healthy', 'busy', 'degraded', 'offline')),
    constraint build_workers_concurrent_builds_limit_check check (concurrent_builds_limit >= 0),
    constraint build_workers_current_builds_count_check check (current_builds_count >= 0),
    constraint build_workers_labels_check check (jsonb_typeof(labels) = 'object'),
    constraint build_workers_uptime_percent_check check (uptime_percent between 0 and 100)
);

comment on table build_workers is 'Places where builds run. The row of a deleted worker stays, offline, and is taken up again by name.';
comment on column build_workers.id is 'Worker identity, UUID version 7.';
comment on column build_workers.tenant_id is 'The tenant it serves. Null for a worker that serves every tenant.';
comment on column build_workers.worker_name is 'metadata.name of the BuildWorker; cluster for the built-in one. Unique in its tenant, and among the shared ones.';
comment on column build_workers.worker_type is 'docker, kubernetes or local.';
comment on column build_workers.concurrent_builds_limit is 'How many builds it may run at once.';
comment on column build_workers.current_builds_count is 'How many it runs, for reading. Limits are kept by counting builds in progress, never by this number.';
comment on column build_workers.status is 'healthy, busy (at its limit), degraded or offline.';
comment on column build_workers.zone is 'Where it is. Null where not told.';
comment on column build_workers.labels is 'Labels that spec.worker.selector is matched against, an object.';
comment on column build_workers.last_heartbeat is 'When it was last seen well. Null before the first time.';
comment on column build_workers.uptime_percent is 'Share of the last 7 days it was not offline, in percent. Null until known.';

alter table builds add constraint builds_worker_id_fkey foreign key (worker_id) references build_workers (id);

create table build_concurrency_policies (
    id uuid not null,
    tenant_id uuid not null,
    max_concurrent_builds int,
    max_concurrent_per_project int,
    kaniko_max_concurrent int,
    buildx_max_concurrent int,
    container_max_concurrent int,
    packer_max_concurrent int,
    paketo_max_concurrent int,
    priority_dispatch_enabled boolean not null default false,
    max_queued_wait_minutes int,
    weight int not null default 1,
    constraint build_concurrency_policies_pkey primary key (id),
    constraint build_concurrency_policies_tenant_id_key unique (tenant_id),
    constraint build_concurrency_policies_tenant_id_fkey foreign key (tenant_id) references tenants (id),
    constraint build_concurrency_policies_max_concurrent_builds_check check (max_concurrent_builds >= 0),
    constraint build_concurrency_policies_max_concurrent_per_project_check check (max_concurrent_per_project >= 0),
    constraint build_concurrency_policies_kaniko_max_concurrent_check check (kaniko_max_concurrent >= 0),
    constraint build_concurrency_policies_buildx_max_concurrent_check check (buildx_max_concurrent >= 0),
    constraint build_concurrency_policies_container_max_concurrent_check check (container_max_concurrent >= 0),
    constraint build_concurrency_policies_packer_max_concurrent_check check (packer_max_concurrent >= 0),
    constraint build_concurrency_policies_paketo_max_concurrent_check check (paketo_max_concurrent >= 0),
    constraint build_concurrency_policies_max_queued_wait_minutes_check check (max_queued_wait_minutes > 0),
    constraint build_concurrency_policies_weight_check check (weight > 0)
);

comment on table build_concurrency_policies is 'Limits of a tenant. A tenant without a row has the operator''s defaults (operator_settings).';
comment on column build_concurrency_policies.id is 'Policy identity, UUID version 7.';
comment on column build_concurrency_policies.tenant_id is 'The tenant; one policy each.';
comment on column build_concurrency_policies.max_concurrent_builds is 'Builds of the tenant at once; 0 stops it. Null for the operator''s default.';
comment on column build_concurrency_policies.max_concurrent_per_project is 'Builds of one project at once. Null for no limit.';
comment on column build_concurrency_policies.kaniko_max_concurrent is 'kaniko builds of the tenant at once. Null for no limit.';
comment on column build_concurrency_policies.buildx_max_concurrent is 'buildx builds of the tenant at once. Null for no limit.';
comment on column build_concurrency_policies.container_max_concurrent is 'container builds of the tenant at once. Null for no limit.';
comment on column build_concurrency_policies.packer_max_concurrent is 'packer builds of the tenant at once. Null for no limit.';
comment on column build_concurrency_policies.paketo_max_concurrent is 'paketo builds of the tenant at once. Null for no limit.';
comment on column build_concurrency_policies.priority_dispatch_enabled is 'Whether priority goes before time in the tenant''s queue.';
comment on column build_concurrency_policies.max_queued_wait_minutes is 'After how many minutes in the queue a build fails. Null for the operator''s default.';
comment on column build_concurrency_policies.weight is 'Share between tenants: of two, the one that runs fewer builds per weight is served first.';
