comment on table users is 'Who asks for builds, where an admission policy tells. A name as the cluster knows it; no account, no secret.';
comment on column users.username is 'The user name as the API server has authenticated it: a person, or the service account of a tool.';
comment on column build_triggers.created_by_user_id is 'Who asked for it. Null for schedules, webhooks and polls, and where the cluster does not tell users.';
