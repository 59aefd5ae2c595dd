-- Who builds what: tenants, projects, images, users, and the build itself with its log.
--
-- Conventions of the whole schema. Ids are UUID version 7 made by the operator, so that they sort by time and no
-- column needs a default. Enumerations are text with a check. Every constraint is named. A table that names both
-- a build and something else of its tenant carries the tenant or project itself, so that a composite foreign key
-- can refuse a row that reaches into another tenant.

create table tenants (
    id uuid not null,
    uid text not null,
    name text not null,
    created_at timestamptz not null default now(),
    constraint tenants_pkey primary key (id),
    constraint tenants_uid_key unique (uid)
);

comment on table tenants is 'One row per namespace that ever had a build. A namespace deleted and made again under the same name is another tenant.';
comment on column tenants.id is 'Tenant identity, UUID version 7.';
comment on column tenants.uid is 'metadata.uid of the namespace: what makes it this tenant.';
comment on column tenants.name is 'metadata.name of the namespace. Not unique: a name can be used again.';
comment on column tenants.created_at is 'When the tenant was first seen.';

create table projects (
    id uuid not null,
    tenant_id uuid not null,
    name text not null,
    next_build_number int not null default 1,
    created_at timestamptz not null default now(),
    constraint projects_pkey primary key (id),
    constraint projects_tenant_id_id_key unique (tenant_id, id),
    constraint projects_tenant_id_name_key unique (tenant_id, name),
    constraint projects_tenant_id_fkey foreign key (tenant_id) references tenants (id),
    constraint projects_next_build_number_check check (next_build_number > 0)
);

comment on table projects is 'A named group of builds in a tenant (spec.project), which numbers them.';
comment on column projects.id is 'Project identity, UUID version 7.';
comment on column projects.tenant_id is 'The tenant the project belongs to.';
comment on column projects.name is 'spec.project of the builds.';
comment on column projects.next_build_number is 'The build_number that the next build of the project takes. Taken and raised by one update in the transaction that inserts the build.';
comment on column projects.created_at is 'When the project was first seen.';

create table images (
    id uuid not null,
    project_id uuid not null,
    repository text not null,
    tag text not null,
    created_at timestamptz not null default now(),
    constraint images_pkey primary key (id),
    constraint images_project_id_id_key unique (project_id, id),
    constraint images_project_id_repository_tag_key unique (project_id, repository, tag),
    constraint images_project_id_fkey foreign key (project_id) references projects (id)
);

comment on table images is 'An image name that builds of a project push to. What was last pushed there stands in image_metadata and image_layers; what one build pushed, in build_results.';
comment on column images.id is 'Image identity, UUID version 7.';
comment on column images.project_id is 'The project whose builds push this image.';
comment on column images.repository is 'Registry host and path, without tag: registry.example.com/shop/web.';
comment on column images.tag is 'The tag.';
comment on column images.created_at is 'When the first build for it was queued.';

create table users (
    id uuid not null,
    username text not null,
    created_at timestamptz not null default now(),
    constraint users_pkey primary key (id),
    constraint users_username_key unique (username)
);

comment on table users is 'Who starts and stops builds. A name as the cluster knows it; no account, no secret.';
comment on column users.id is 'User identity, UUID version 7.';
comment on column users.username is 'The user name in the cluster, or the field manager where the user is not known.';
comment on column users.created_at is 'When the user was first seen.';

create table builds (
    id uuid not null,
    tenant_id uuid not null,
    project_id uuid not null,
    image_id uuid,
    build_number int not null,
    triggered_by_user_id uuid,
    triggered_by_git_event text,
    git_commit text,
    git_branch text,
    git_author text,
    git_message text,
    started_at timestamptz,
    completed_at timestamptz,
    status text not null,
    error_message text,
    cleanup_at timestamptz,
    cleanup_due_at timestamptz,
    resource_namespace text not null,
    resource_name text not null,
    resource_uid text not null,
    run int not null,
    attempt int not null,
    inputs_hash text not null,
    observed_rerun text,
    observed_generation bigint not null,
    priority int not null default 0,
    queued_at timestamptz not null default now(),
    not_before timestamptz,
    worker_id uuid,
    cancel_requested_at timestamptz,
    cancel_reason text,
    job_created_at timestamptz,
    constraint builds_pkey primary key (id),
    -- Serves the foreign keys of other tables, and "the builds of a tenant, newest first".
    constraint builds_tenant_id_id_key unique (tenant_id, id),
    -- Serves the foreign keys of other tables, and "the builds of a project, newest first".
    constraint builds_project_id_id_key unique (project_id, id),
    constraint builds_project_id_build_number_key unique (project_id, build_number),
    -- Also serves, read backwards, "the newest attempt of the newest run of this Build":
    -- where resource_uid = $1 order by run desc, attempt desc limit 1.
    constraint builds_resource_uid_run_attempt_key unique (resource_uid, run, attempt),
    constraint builds_tenant_id_project_id_fkey foreign key (tenant_id, project_id) references projects (tenant_id, id),
    constraint builds_project_id_image_id_fkey foreign key (project_id, image_id) references images (project_id, id),
    constraint builds_triggered_by_user_id_fkey foreign key (triggered_by_user_id) references users (id),
    constraint builds_status_check check (status in ('queued', 'in_progress', 'success', 'failed', 'cancelled')),
    constraint builds_build_number_check check (build_number > 0),
    constraint builds_run_check check (run > 0),
    constraint builds_attempt_check check (attempt > 0),
    constraint builds_priority_check check (priority between -1000 and 1000),
    -- A build put back in the queue has given up its worker and its start; it never had a Job.
    constraint builds_queued_check check (status <> 'queued' or (started_at is null and worker_id is null and job_created_at is null)),
    constraint builds_in_progress_check check (status <> 'in_progress' or (started_at is not null and worker_id is not null)),
    constraint builds_completed_at_check check ((completed_at is not null) = (status in ('success', 'failed', 'cancelled'))),
    constraint builds_cleanup_at_check check (cleanup_at is null or completed_at is not null),
    constraint builds_cancel_reason_check check (cancel_reason is null or cancel_requested_at is not null)
);

-- The head of a tenant's queue where its policy heeds priority:
-- where tenant_id = $1 and status = 'queued' order by priority desc, queued_at, id limit $2.
create index builds_queue_priority_idx on builds (tenant_id, priority desc, queued_at, id) where status = 'queued';

-- The same where priority is not heeded (the default): order by queued_at, id.
create index builds_queue_fifo_idx on builds (tenant_id, queued_at, id) where status = 'queued';

-- How many builds a tenant runs: where tenant_id = $1 and status = 'in_progress'.
create index builds_running_by_tenant_idx on builds (tenant_id) where status = 'in_progress';

-- How many builds a worker runs, and which: where worker_id = $1 and status = 'in_progress'.
create index builds_running_by_worker_idx on builds (worker_id) where status = 'in_progress';

-- What of a Build is live: where resource_uid = $1 and status in ('queued', 'in_progress'); and all that is, for the sweep.
create index builds_live_idx on builds (resource_uid) where status in ('queued', 'in_progress');
-- What the cleaner takes next: where cleanup_at is null and cleanup_due_at <= now() order by cleanup_due_at.
create index builds_to_clean_idx on builds (cleanup_due_at) where cleanup_at is null and cleanup_due_at is not null;

comment on table builds is 'One row per attempt of a run of a Build. The rows with status queued are the queue.';
comment on column builds.id is 'Build identity, UUID version 7. The Job is named from it.';
comment on column builds.tenant_id is 'The tenant: the namespace of the Build.';
comment on column builds.project_id is 'The project of the same tenant.';
comment on column builds.image_id is 'The image it pushes to, of the same project. Null where the method makes no image or the reference could not be read.';
comment on column builds.build_number is 'Sequential in the project, from 1. Every attempt has its own.';
comment on column builds.triggered_by_user_id is 'Who started it. Null where no person did, or none is known.';
comment on column builds.triggered_by_git_event is 'The Git event behind it: push, tag, pull_request, release. Null where no Git event is.';
comment on column builds.git_commit is 'Full commit id of the source. Null for an inline source, and until the source was fetched.';
comment on column builds.git_branch is 'Branch or tag of the source. Null like git_commit, and for a detached commit.';
comment on column builds.git_author is 'Author of the commit, name and address. Null like git_commit.';
comment on column builds.git_message is 'Message of the commit. Null like git_commit.';
comment on column builds.started_at is 'When the dispatcher claimed it. Null while queued, and for a build that ended in the queue.';
comment on column builds.completed_at is 'When it ended. Null until then.';
comment on column builds.status is 'queued, in_progress, success, failed or cancelled; the last three are final.';
comment on column builds.error_message is 'Why it failed or was cancelled, as one sentence. Null otherwise.';
comment on column builds.cleanup_at is 'When its Job was removed after its end. Null until then.';
comment on column builds.cleanup_due_at is 'When the Job may be deleted: its end plus spec.retention.jobTtl. Null until the attempt has ended, and for one that never had a Job.';
comment on column builds.resource_namespace is 'metadata.namespace of the Build.';
comment on column builds.resource_name is 'metadata.name of the Build.';
comment on column builds.resource_uid is 'metadata.uid of the Build.';
comment on column builds.run is 'Which run of the Build, from 1: one per change of its inputs or of its rerun annotation.';
comment on column builds.attempt is 'Which attempt of the run, from 1.';
comment on column builds.inputs_hash is 'Hash of the canonical form of the inputs of the run, with the version of that form.';
comment on column builds.observed_rerun is 'Value of the annotation imagefactory.dev/rerun when the run was made. Null where there was none.';
comment on column builds.observed_generation is 'metadata.generation of the Build when the run was made.';
comment on column builds.priority is 'spec.priority, from -1000 to 1000, higher first. Heeded only where the tenant''s policy says so.';
comment on column builds.queued_at is 'When it joined the queue. Kept when it is put back.';
comment on column builds.not_before is 'It is not claimed before this time: the backoff of a retry. Null where it may start at once.';
comment on column builds.worker_id is 'The worker that runs or ran it: of the same tenant or shared. Null while queued, and for a build that ended in the queue.';
comment on column builds.cancel_requested_at is 'When it was asked to stop. Null where it was not.';
comment on column builds.cancel_reason is 'Why it was asked to stop: Cancelled, Superseded, Deleted. Null where it was not.';
comment on column builds.job_created_at is 'Since when its Job is known to exist. Null before; from then on it is never put back in the queue.';

create table build_logs (
    id uuid not null,
    build_id uuid not null,
    line_number bigint not null,
    log_content text not null,
    log_level text not null,
    logged_at timestamptz not null,
    -- A partitioned table needs its partition key in every unique key, so the line is the key and id is a column.
    constraint build_logs_pkey primary key (build_id, line_number),
    constraint build_logs_build_id_fkey foreign key (build_id) references builds (id),
    constraint build_logs_line_number_check check (line_number > 0),
    constraint build_logs_log_level_check check (log_level in ('INFO', 'WARN', 'ERROR', 'DEBUG'))
) partition by range (build_id);

comment on table build_logs is 'The log of each build, a row per line, partitioned by the time inside the build''s id.';
comment on column build_logs.id is 'Log line identity, UUID version 7.';
comment on column build_logs.build_id is 'The build.';
comment on column build_logs.line_number is 'Place in the build''s log, from 1, without gaps. Lines that were lost are said by one WARN row.';
comment on column build_logs.log_content is 'The line without its line end, with its ANSI sequences. NUL and invalid UTF-8 are U+FFFD.';
comment on column build_logs.log_level is 'INFO, WARN, ERROR or DEBUG.';
comment on column build_logs.logged_at is 'When the container wrote it, by the clock of its node.';
