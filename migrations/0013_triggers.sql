-- Why builds start: the trigger of each, the webhooks and schedules that make them, and what webhooks brought.

create table build_triggers (
    id uuid not null,
    build_id uuid not null,
    trigger_type text not null,
    trigger_source text not null,
    created_by_user_id uuid,
    created_at timestamptz not null default now(),
    constraint build_triggers_pkey primary key (id),
    constraint build_triggers_build_id_key unique (build_id),
    constraint build_triggers_build_id_fkey foreign key (build_id) references builds (id),
    constraint build_triggers_created_by_user_id_fkey foreign key (created_by_user_id) references users (id),
    constraint build_triggers_trigger_type_check check (trigger_type in ('manual', 'webhook', 'schedule', 'git_event'))
);

comment on table build_triggers is 'Why each build started: one row per build.';
comment on column build_triggers.id is 'Trigger identity, UUID version 7.';
comment on column build_triggers.build_id is 'The build that was started.';
comment on column build_triggers.trigger_type is 'manual, webhook, schedule or git_event (a new head found by polling). A retry has the type of the first attempt.';
comment on column build_triggers.trigger_source is 'manual: the user or field manager; webhook: config and delivery id; schedule: schedule and slot; git_event: branch and commit. Of a retry: builds.id of the first attempt.';
comment on column build_triggers.created_by_user_id is 'Who started it. Null where no person did, or none is known.';
comment on column build_triggers.created_at is 'When it was triggered.';

create table webhook_configs (
    id uuid not null,
    tenant_id uuid not null,
    project_id uuid not null,
    webhook_name text not null,
    webhook_url text,
    webhook_secret text,
    event_types jsonb not null default '[]',
    branch_patterns jsonb not null default '[]',
    auto_build_enabled boolean not null default true,
    build_method text,
    build_config_preset jsonb,
    is_active boolean not null default true,
    is_verified boolean not null default false,
    last_delivery_at timestamptz,
    last_delivery_status text,
    constraint webhook_configs_pkey primary key (id),
    constraint webhook_configs_tenant_id_id_key unique (tenant_id, id),
    constraint webhook_configs_tenant_id_webhook_name_key unique (tenant_id, webhook_name),
    constraint webhook_configs_tenant_id_project_id_fkey foreign key (tenant_id, project_id) references projects (tenant_id, id),
    constraint webhook_configs_build_method_check check (build_method in ('kaniko', 'buildx', 'container', 'paketo', 'packer')),
    constraint webhook_configs_event_types_check check (jsonb_typeof(event_types) = 'array'),
    constraint webhook_configs_branch_patterns_check check (jsonb_typeof(branch_patterns) = 'array'),
    constraint webhook_configs_build_config_preset_check check (jsonb_typeof(build_config_preset) = 'object')
);

comment on table webhook_configs is 'The WebhookConfigs of each tenant. The row of a deleted one stays, inactive, and is taken up again by name.';
comment on column webhook_configs.id is 'Webhook identity, UUID version 7.';
comment on column webhook_configs.tenant_id is 'The tenant.';
comment on column webhook_configs.project_id is 'The project of its builds, of the same tenant.';
comment on column webhook_configs.webhook_name is 'metadata.name of the WebhookConfig.';
comment on column webhook_configs.webhook_url is 'Where events are sent, else the URL where the Git host delivers. Null where neither is known.';
comment on column webhook_configs.webhook_secret is 'Reference to the secret, name/key; never its value. Null where there is none.';
comment on column webhook_configs.event_types is 'Events it heeds, an array of push, tag, pull_request, release.';
comment on column webhook_configs.branch_patterns is 'Branches it heeds, an array of globs; empty for all.';
comment on column webhook_configs.auto_build_enabled is 'Whether a delivery starts a build.';
comment on column webhook_configs.build_method is 'Method of its builds. Null where it starts none.';
comment on column webhook_configs.build_config_preset is 'Template of its builds, an object. Null where it starts none.';
comment on column webhook_configs.is_active is 'False while suspended, and once deleted.';
comment on column webhook_configs.is_verified is 'Whether a delivery with a good signature has come in.';
comment on column webhook_configs.last_delivery_at is 'When the last delivery was taken or sent. Null before the first.';
comment on column webhook_configs.last_delivery_status is 'How that one went, as a word. Null before the first.';

create table webhook_deliveries (
    id uuid not null,
    tenant_id uuid not null,
    webhook_config_id uuid not null,
    build_id uuid,
    direction text not null,
    delivery_id text not null,
    event_type text not null,
    payload jsonb not null,
    response_status int,
    error_message text,
    attempt_number int not null default 1,
    next_retry_at timestamptz,
    created_at timestamptz not null default now(),
    constraint webhook_deliveries_pkey primary key (id),
    constraint webhook_deliveries_delivery_key unique (webhook_config_id, direction, delivery_id, attempt_number),
    constraint webhook_deliveries_tenant_id_webhook_config_id_fkey foreign key (tenant_id, webhook_config_id) references webhook_configs (tenant_id, id),
    constraint webhook_deliveries_tenant_id_build_id_fkey foreign key (tenant_id, build_id) references builds (tenant_id, id),
    constraint webhook_deliveries_direction_check check (direction in ('inbound', 'outbound')),
    constraint webhook_deliveries_attempt_number_check check (attempt_number > 0),
    constraint webhook_deliveries_response_status_check check (response_status between 100 and 599)
);

-- What is to be sent again: where next_retry_at < $1 order by next_retry_at.
create index webhook_deliveries_to_retry_idx on webhook_deliveries (next_retry_at) where next_retry_at is not null;

comment on table webhook_deliveries is 'Every delivery taken in and every try to send one out.';
comment on column webhook_deliveries.id is 'Row identity, UUID version 7.';
comment on column webhook_deliveries.tenant_id is 'The tenant of the webhook, so that build_id can name only a build of the same tenant.';
comment on column webhook_deliveries.webhook_config_id is 'The webhook.';
comment on column webhook_deliveries.build_id is 'Inbound: the build it started; outbound: the build it tells of. Null where it started none.';
comment on column webhook_deliveries.direction is 'inbound (from the Git host) or outbound (a notification of ours).';
comment on column webhook_deliveries.delivery_id is 'The sender''s id of the delivery: the same on every try.';
comment on column webhook_deliveries.event_type is 'push, tag, pull_request or release; outbound: build.queued and the like.';
comment on column webhook_deliveries.payload is 'The body as received or sent.';
comment on column webhook_deliveries.response_status is 'HTTP status answered by us or to us. Null where no answer came.';
comment on column webhook_deliveries.error_message is 'Why it failed or started no build. Null otherwise.';
comment on column webhook_deliveries.attempt_number is 'Which try, from 1.';
comment on column webhook_deliveries.next_retry_at is 'When it is to be tried again. Null where it is not.';
comment on column webhook_deliveries.created_at is 'When it was received, or when the try was made.';

create table build_schedules (
    id uuid not null,
    tenant_id uuid not null,
    project_id uuid not null,
    schedule_name text not null,
    cron_expression text not null,
    timezone text not null default 'UTC',
    build_method text not null,
    build_config_preset jsonb not null,
    git_branch text,
    is_active boolean not null default true,
    last_triggered_at timestamptz,
    next_trigger_at timestamptz,
    constraint build_schedules_pkey primary key (id),
    constraint build_schedules_tenant_id_id_key unique (tenant_id, id),
    constraint build_schedules_tenant_id_schedule_name_key unique (tenant_id, schedule_name),
    constraint build_schedules_tenant_id_project_id_fkey foreign key (tenant_id, project_id) references projects (tenant_id, id),
    constraint build_schedules_build_method_check check (build_method in ('kaniko', 'buildx', 'container', 'paketo', 'packer')),
    constraint build_schedules_build_config_preset_check check (jsonb_typeof(build_config_preset) = 'object')
);

-- Which schedules are due: where is_active and next_trigger_at <= $1 order by next_trigger_at.
create index build_schedules_due_idx on build_schedules (next_trigger_at) where is_active;

comment on table build_schedules is 'The BuildSchedules of each tenant. The row of a deleted one stays, inactive, and is taken up again by name.';
comment on column build_schedules.id is 'Schedule identity, UUID version 7.';
comment on column build_schedules.tenant_id is 'The tenant.';
comment on column build_schedules.project_id is 'The project of its builds, of the same tenant.';
comment on column build_schedules.schedule_name is 'metadata.name of the BuildSchedule.';
comment on column build_schedules.cron_expression is 'When it runs: five fields of cron.';
comment on column build_schedules.timezone is 'IANA name of the time zone of the expression.';
comment on column build_schedules.build_method is 'Method of its builds.';
comment on column build_schedules.build_config_preset is 'Template of its builds, an object.';
comment on column build_schedules.git_branch is 'Branch to build. Null for the revision of the template.';
comment on column build_schedules.is_active is 'False while suspended, and once deleted.';
comment on column build_schedules.last_triggered_at is 'When it last started a build. Null before the first.';
comment on column build_schedules.next_trigger_at is 'When it runs next. Null while suspended, or where the expression has no next time.';
