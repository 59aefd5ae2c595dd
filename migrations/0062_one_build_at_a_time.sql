-- Builds of a webhook push one tag: one at a time, in the order of their deliveries.

alter table webhook_deliveries add column made_at timestamptz;

comment on column webhook_deliveries.made_at is 'Inbound: when its Build was made. Null until then.';

-- Made and not queued yet: where made_at > $1 and build_id is null.
create index webhook_deliveries_made_idx on webhook_deliveries (made_at) where build_id is null and made_at is not null;
