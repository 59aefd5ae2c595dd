-- A slot of a schedule is a row, so that it makes at most one build however many operators look at the clock.

create table schedule_slots (
    id uuid not null,
    tenant_id uuid not null,
    schedule_id uuid not null,
    slot timestamptz not null,
    build_name text not null,
    build_id uuid,
    created_at timestamptz not null default now(),
    constraint schedule_slots_pkey primary key (id),
    constraint schedule_slots_schedule_id_slot_key unique (schedule_id, slot),
    constraint schedule_slots_tenant_id_schedule_id_fkey foreign key (tenant_id, schedule_id) references build_schedules (tenant_id, id),
    constraint schedule_slots_tenant_id_build_id_fkey foreign key (tenant_id, build_id) references builds (tenant_id, id)
);

comment on table schedule_slots is 'The slots of each schedule that were taken.';
comment on column schedule_slots.id is 'Slot identity, UUID version 7.';
comment on column schedule_slots.tenant_id is 'The tenant of the schedule, so that build_id can name only a build of the same tenant.';
comment on column schedule_slots.schedule_id is 'The schedule.';
comment on column schedule_slots.slot is 'The time the expression names, to the minute.';
comment on column schedule_slots.build_name is 'metadata.name of the Build made for it: the schedule''s name and the slot in minutes since 1970.';
comment on column schedule_slots.build_id is 'The first build of that Build. Null until it is queued.';
comment on column schedule_slots.created_at is 'When the slot was taken.';
