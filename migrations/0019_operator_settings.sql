-- The operator's defaults where SQL can see them: build_queue tells which limit holds a build back.

create table operator_settings (
    singleton boolean not null default true,
    max_concurrent_builds int not null,
    max_queued_wait_minutes int,
    priority_dispatch_enabled boolean not null default false,
    updated_at timestamptz not null default now(),
    constraint operator_settings_pkey primary key (singleton),
    constraint operator_settings_singleton_check check (singleton),
    constraint operator_settings_max_concurrent_builds_check check (max_concurrent_builds >= 0),
    constraint operator_settings_max_queued_wait_minutes_check check (max_queued_wait_minutes > 0)
);

comment on table operator_settings is 'At most one row, written by the operator when it starts: the limits of a tenant without a policy of its own.';
comment on column operator_settings.singleton is 'Always true: there is one row.';
comment on column operator_settings.max_concurrent_builds is 'Builds of a tenant at once, where its policy does not say.';
comment on column operator_settings.max_queued_wait_minutes is 'After how many minutes in the queue a build fails, where its policy does not say. Null for never.';
comment on column operator_settings.priority_dispatch_enabled is 'Whether priority goes before time in the queue of a tenant without a policy.';
comment on column operator_settings.updated_at is 'When the operator last wrote it.';
