-- A Build that the operator made for a slot or a delivery names that row in its annotation imagefactory.dev/origin. The
-- row names the Build: so the annotation, which anyone may write, gives only what was meant for this very Build.

alter table webhook_deliveries add column build_name text;

comment on column webhook_deliveries.build_name is 'Inbound: metadata.name of the Build made for it. Null where it makes none.';
comment on column webhook_deliveries.id is 'Row identity, UUID version 7. Inbound: also the origin that the Build made for it names.';
comment on column schedule_slots.id is 'Slot identity, UUID version 7; also the origin that the Build made for it names.';
