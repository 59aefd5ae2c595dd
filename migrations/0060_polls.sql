-- Looks at the heads of branches, for deliveries that never came.

create table webhook_polls (
    webhook_config_id uuid not null,
    tenant_id uuid not null,
    source jsonb not null,
    poll_id uuid,
    started_at timestamptz not null,
    ended_at timestamptz,
    error_message text,
    heads jsonb,
    seen_at timestamptz,
    constraint webhook_polls_pkey primary key (webhook_config_id),
    constraint webhook_polls_tenant_id_webhook_config_id_fkey foreign key (tenant_id, webhook_config_id) references webhook_configs (tenant_id, id),
    constraint webhook_polls_source_check check (jsonb_typeof(source) = 'object'),
    constraint webhook_polls_heads_check check (jsonb_typeof(heads) = 'object'),
    constraint webhook_polls_seen_at_check check ((heads is null) = (seen_at is null))
);

comment on table webhook_polls is 'The last look at the branch heads of each webhook that polls. Gone where it polls no more, and begun anew where it looks at another repository or other branches.';
comment on column webhook_polls.webhook_config_id is 'The webhook.';
comment on column webhook_polls.tenant_id is 'Its tenant.';
comment on column webhook_polls.source is 'What is looked at, an object: uid of the WebhookConfig, url of the repository, branches as globs.';
comment on column webhook_polls.poll_id is 'The look that is under way, UUID version 7; its Job is named after it. Null where none is.';
comment on column webhook_polls.started_at is 'When the last look began.';
comment on column webhook_polls.ended_at is 'When the last look that has ended did so. Null before the first.';
comment on column webhook_polls.error_message is 'Why that one failed. Null where it did not.';
comment on column webhook_polls.heads is 'Branches and their commits as last seen, an object. Null before the first look that succeeded.';
comment on column webhook_polls.seen_at is 'When the look began that saw them. Null like heads.';

-- Which looks are under way: where poll_id is not null.
create unique index webhook_polls_poll_id_idx on webhook_polls (poll_id) where poll_id is not null;

alter table webhook_deliveries add column polled boolean not null default false;

comment on column webhook_deliveries.polled is 'Whether nobody delivered it: a look at the branch heads has found the commit.';

-- What else was delivered of a commit: where webhook_config_id = $1 and event ->> 'commit' = $2 and direction = 'inbound'.
create index webhook_deliveries_of_commit_idx on webhook_deliveries (webhook_config_id, (event ->> 'commit')) where direction = 'inbound';
drop index webhook_deliveries_by_commit_idx;
