-- How builds ended, how they got there, and what a day looked like.

create table build_results (
    id uuid not null,
    build_id uuid not null,
    project_id uuid not null,
    status text not null,
    exit_code int,
    output_image_id uuid,
    output_image_url text,
    output_image_digest text,
    failure_reason text,
    failure_stage text,
    total_duration_milliseconds bigint not null,
    queue_wait_milliseconds bigint not null,
    build_execution_milliseconds bigint,
    artifact_push_milliseconds bigint,
    retry_count int not null default 0,
    is_retry boolean not null default false,
    original_build_id uuid,
    cleanup_status text not null default 'pending',
    constraint build_results_pkey primary key (id),
    constraint build_results_build_id_key unique (build_id),
    constraint build_results_project_id_build_id_fkey foreign key (project_id, build_id) references builds (project_id, id),
    constraint build_results_project_id_output_image_id_fkey foreign key (project_id, output_image_id) references images (project_id, id),
    constraint build_results_project_id_original_build_id_fkey foreign key (project_id, original_build_id) references builds (project_id, id),
    constraint build_results_status_check check (status in ('success', 'failed', 'cancelled', 'timeout')),
    constraint build_results_failure_stage_check check (failure_stage in ('compile', 'build', 'push', 'scan', 'verification')),
    constraint build_results_failure_check check (status <> 'success' or (failure_reason is null and failure_stage is null)),
    constraint build_results_cleanup_status_check check (cleanup_status in ('pending', 'completed', 'failed')),
    constraint build_results_is_retry_check check (is_retry = (original_build_id is not null) and is_retry = (retry_count > 0)),
    constraint build_results_total_duration_milliseconds_check check (total_duration_milliseconds >= 0),
    constraint build_results_queue_wait_milliseconds_check check (queue_wait_milliseconds >= 0),
    constraint build_results_build_execution_milliseconds_check check (build_execution_milliseconds >= 0),
    constraint build_results_artifact_push_milliseconds_check check (artifact_push_milliseconds >= 0),
    constraint build_results_retry_count_check check (retry_count >= 0)
);

-- Every attempt of a run that was retried: where original_build_id = $1.
create index build_results_original_build_id_idx on build_results (original_build_id) where original_build_id is not null;

comment on table build_results is 'How each build ended: exactly one row per finished build, none before.';
comment on column build_results.id is 'Result identity, UUID version 7.';
comment on column build_results.build_id is 'The build; one result each.';
comment on column build_results.project_id is 'The project of that build, so that the image and the first attempt can only be of the same project.';
comment on column build_results.status is 'success, failed, cancelled or timeout (builds.status is failed then).';
comment on column build_results.exit_code is 'Exit code of the builder. Null where it never ended by itself.';
comment on column build_results.output_image_id is 'The image that was pushed. Null where none was.';
comment on column build_results.output_image_url is 'Its reference with tag. Null where none was pushed.';
comment on column build_results.output_image_digest is 'Its digest as confirmed in the registry. Null where none was pushed.';
comment on column build_results.failure_reason is 'Why it did not succeed: a stable word such as BuildFailed, OutOfMemory, TimedOut. Null on success.';
comment on column build_results.failure_stage is 'compile (before the builder ran), build, push, scan or verification. Null on success, and where no stage was reached.';
comment on column build_results.total_duration_milliseconds is 'From joining the queue to the end, in milliseconds.';
comment on column build_results.queue_wait_milliseconds is 'From queued_at, or not_before where that is later, to the claim; to the end for a build that ended in the queue. In milliseconds.';
comment on column build_results.build_execution_milliseconds is 'Life of the build container, in milliseconds. Null where it never ran.';
comment on column build_results.artifact_push_milliseconds is 'The push, in milliseconds. Null where the builder does not tell it.';
comment on column build_results.retry_count is 'How many attempts of the run came before: 0 for the first.';
comment on column build_results.is_retry is 'Whether it is not the first attempt of its run.';
comment on column build_results.original_build_id is 'The first attempt of the run. Null on the first attempt itself.';
comment on column build_results.cleanup_status is 'pending, completed or failed: the removal of its Job, told by builds.cleanup_at.';

create table build_status_history (
    id uuid not null,
    build_id uuid not null,
    sequence int not null,
    from_status text,
    to_status text not null,
    reason text,
    changed_by_user_id uuid,
    changed_by_system boolean not null,
    changed_at timestamptz not null default now(),
    constraint build_status_history_pkey primary key (id),
    -- One row per transition; also serves "the history of a build in its order".
    constraint build_status_history_build_id_sequence_key unique (build_id, sequence),
    constraint build_status_history_build_id_fkey foreign key (build_id) references builds (id),
    constraint build_status_history_changed_by_user_id_fkey foreign key (changed_by_user_id) references users (id),
    constraint build_status_history_sequence_check check (sequence > 0 and (sequence = 1) = (from_status is null)),
    constraint build_status_history_transition_check check (
        case
            when from_status is null then to_status = 'queued'
            when from_status = 'queued' then to_status in ('in_progress', 'cancelled', 'failed')
            when from_status = 'in_progress' then to_status in ('queued', 'success', 'failed', 'cancelled')
            else false
        end
    )
);

comment on table build_status_history is 'Every change of builds.status, exactly one row each, written in the transaction of the change.';
comment on column build_status_history.id is 'History record identity, UUID version 7.';
comment on column build_status_history.build_id is 'The build.';
comment on column build_status_history.sequence is 'Which change of the build, from 1. The writer takes the highest so far plus one, after its guarded update has locked the build''s row.';
comment on column build_status_history.from_status is 'The status before. Null for the first row.';
comment on column build_status_history.to_status is 'The status after.';
comment on column build_status_history.reason is 'Why, as a stable word or one sentence. Null where it needs no telling.';
comment on column build_status_history.changed_by_user_id is 'Who brought it about. Null where no person did, or none is known.';
comment on column build_status_history.changed_by_system is 'True where the operator did it of itself.';
comment on column build_status_history.changed_at is 'When.';

create table build_performance_daily (
    id uuid not null,
    tenant_id uuid not null,
    date date not null,
    total_builds int not null default 0,
    successful int not null default 0,
    failed int not null default 0,
    cancelled int not null default 0,
    average_duration_seconds int,
    median_queue_wait_seconds int,
    failure_rate_percent numeric(5, 2),
    most_common_failure text,
    kaniko_count int not null default 0,
    buildx_count int not null default 0,
    container_count int not null default 0,
    packer_count int not null default 0,
    paketo_count int not null default 0,
    max_concurrent_at_peak int not null default 0,
    constraint build_performance_daily_pkey primary key (id),
    constraint build_performance_daily_tenant_id_date_key unique (tenant_id, date),
    constraint build_performance_daily_tenant_id_fkey foreign key (tenant_id) references tenants (id),
    constraint build_performance_daily_total_builds_check check (total_builds = successful + failed + cancelled),
    constraint build_performance_daily_methods_check check (total_builds = kaniko_count + buildx_count + container_count + packer_count + paketo_count),
    constraint build_performance_daily_counts_check check (
        least(successful, failed, cancelled, kaniko_count, buildx_count, container_count, packer_count, paketo_count, max_concurrent_at_peak) >= 0
    ),
    constraint build_performance_daily_average_duration_seconds_check check (average_duration_seconds >= 0),
    constraint build_performance_daily_median_queue_wait_seconds_check check (median_queue_wait_seconds >= 0),
    constraint build_performance_daily_failure_rate_percent_check check (failure_rate_percent between 0 and 100)
);

comment on table build_performance_daily is 'One row per tenant and day, over the builds that ended on it (UTC).';
comment on column build_performance_daily.id is 'Record identity, UUID version 7.';
comment on column build_performance_daily.tenant_id is 'The tenant.';
comment on column build_performance_daily.date is 'The day, UTC.';
comment on column build_performance_daily.total_builds is 'Builds that ended.';
comment on column build_performance_daily.successful is 'Of them, those that succeeded.';
comment on column build_performance_daily.failed is 'Of them, those that failed, timeouts included.';
comment on column build_performance_daily.cancelled is 'Of them, those that were cancelled.';
comment on column build_performance_daily.average_duration_seconds is 'Mean time from claim to end, in seconds, rounded half up. Null where none was claimed.';
comment on column build_performance_daily.median_queue_wait_seconds is 'Median wait in the queue, in seconds, rounded half up. Null where none was claimed.';
comment on column build_performance_daily.failure_rate_percent is 'failed / (successful + failed), in percent. Null where neither is.';
comment on column build_performance_daily.most_common_failure is 'The failure_reason most often met. Null where none failed.';
comment on column build_performance_daily.kaniko_count is 'Builds by kaniko.';
comment on column build_performance_daily.buildx_count is 'Builds by buildx.';
comment on column build_performance_daily.container_count is 'Builds by container.';
comment on column build_performance_daily.packer_count is 'Builds by packer.';
comment on column build_performance_daily.paketo_count is 'Builds by paketo.';
comment on column build_performance_daily.max_concurrent_at_peak is 'Most builds that ran at once on that day.';
