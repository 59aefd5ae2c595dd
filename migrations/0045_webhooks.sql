-- What receiving needs of a WebhookConfig, and of a delivery what a Build can come of.

alter table declared_sets drop constraint declared_sets_kind_check;
alter table declared_sets add constraint declared_sets_kind_check check (kind in ('policies', 'workers', 'schedules', 'webhooks'));

comment on column declared_sets.kind is 'policies (build_concurrency_policies), workers (build_workers), schedules (build_schedules) or webhooks (webhook_configs).';

alter table webhook_configs
    add column provider text,
    add column resource_uid text,
    add column spec jsonb,
    add constraint webhook_configs_provider_check check (provider in ('github', 'gitlab', 'gitea', 'forgejo', 'bitbucket', 'generic')),
    add constraint webhook_configs_spec_check check (jsonb_typeof(spec) = 'object');

-- Which webhook a delivery is for: where is_active and webhook_name = $1 and the tenant has this name.
create index webhook_configs_by_name_idx on webhook_configs (webhook_name) where is_active;

comment on column webhook_configs.provider is 'Who delivers: github, gitlab, gitea, forgejo, bitbucket or generic. Null where it only sends.';
comment on column webhook_configs.resource_uid is 'metadata.uid of the WebhookConfig, the owner of its Builds.';
comment on column webhook_configs.spec is 'Specification of the WebhookConfig, an object: references to secrets, never their values.';
comment on column webhook_configs.last_delivery_status is 'How that one went: received, built, none (no Build is made for it) or failed (its Build could not be made). Null before the first.';

alter table webhook_deliveries
    add column event jsonb,
    add column redelivered boolean not null default false,
    add constraint webhook_deliveries_event_check check (jsonb_typeof(event) = 'object');

-- Which delivery a build was made for: where build_id = $1.
create index webhook_deliveries_by_build_idx on webhook_deliveries (build_id) where build_id is not null;
-- Whether the same event has made a Build: where webhook_config_id = $1 and event ->> 'commit' = $2 and build_name is not null.
create index webhook_deliveries_by_commit_idx on webhook_deliveries (webhook_config_id, (event ->> 'commit')) where build_name is not null;
-- The newest delivery of a webhook: where webhook_config_id = $1 and direction = 'inbound' order by id desc limit 1.
create index webhook_deliveries_newest_idx on webhook_deliveries (webhook_config_id, id) where direction = 'inbound';

comment on column webhook_deliveries.event is 'Inbound: what was read of the payload, an object: kind, git_ref, branch, tag, before, commit, author, message, paths, repository and the like. Null where it is outbound.';
comment on column webhook_deliveries.redelivered is 'Whether a person had it delivered again, so that it makes a Build though the same made one before.';
comment on column webhook_deliveries.event_type is 'Inbound: push, tag, pull_request, release, ping or other; outbound: build.queued and the like.';
comment on column webhook_deliveries.attempt_number is 'Which try, from 1. Inbound: to make its Build.';

comment on column builds.git_commit is 'Full commit id of the source; of a Build that a webhook made, the one delivered. Otherwise null for an inline source, and until the source was fetched.';
comment on column builds.git_branch is 'Branch or tag of the source. Null like git_commit, and for a detached commit that no delivery names a branch of.';
