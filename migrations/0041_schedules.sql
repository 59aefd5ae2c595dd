-- Schedules act. What of a BuildSchedule its row is about, and what became of each slot.

alter table build_schedules
    add column resource_uid text,
    add column observed_generation bigint not null default 0,
    add column run_now_asked text,
    add column run_now_taken text,
    add column last_build_name text;

comment on column build_schedules.resource_uid is 'metadata.uid of the BuildSchedule the row was last brought in line with. Null once that is deleted.';
comment on column build_schedules.observed_generation is 'metadata.generation of that BuildSchedule: an older one never replaces a newer.';
comment on column build_schedules.run_now_asked is 'Its annotation imagefactory.dev/run-now. Null where it has none.';
comment on column build_schedules.run_now_taken is 'The last value of that annotation for which a slot was taken. Null before the first.';
comment on column build_schedules.last_build_name is 'metadata.name of the last Build made. Null before the first.';
comment on column build_schedules.last_triggered_at is 'When it last made a Build. Null before the first.';

-- Of which object a row is: where resource_uid = $1.
create index build_schedules_resource_uid_idx on build_schedules (resource_uid) where resource_uid is not null;
-- Which schedules were asked to run now: where run_now_asked is distinct from run_now_taken.
create index build_schedules_run_now_idx on build_schedules (id)
    where run_now_asked is not null and run_now_asked is distinct from run_now_taken;

alter table schedule_slots
    add column run_now text,
    add column outcome text,
    add column message text,
    add column tries int not null default 0,
    add column retry_at timestamptz,
    add constraint schedule_slots_outcome_check check (outcome in ('made', 'skipped', 'failed')),
    add constraint schedule_slots_message_check check (outcome is null or outcome = 'made' or message is not null),
    add constraint schedule_slots_tries_check check (tries >= 0);

comment on column schedule_slots.slot is 'The time the expression names, to the minute. Of a Build that was asked for by imagefactory.dev/run-now: the newest minute without a slot.';
comment on column schedule_slots.run_now is 'Value of the annotation that asked for it. Null for a time of the expression.';
comment on column schedule_slots.outcome is 'made (its Build was), skipped (by concurrencyPolicy or startingDeadlineSeconds) or failed (its Build could not be made). Null until then.';
comment on column schedule_slots.message is 'Why it was skipped or failed, or why its Build is not made yet. Null otherwise.';
comment on column schedule_slots.tries is 'How many times its Build was refused.';
comment on column schedule_slots.retry_at is 'When it is to be tried again. Null for at once.';

-- Slots without an outcome: where outcome is null, and retry_at is over.
create index schedule_slots_pending_idx on schedule_slots (schedule_id, slot) where outcome is null;
-- Made, and not queued yet: where outcome = 'made' and build_id is null.
create index schedule_slots_unqueued_idx on schedule_slots (schedule_id) where outcome = 'made' and build_id is null;
-- Of which slot a build is: where build_id = $1.
create index schedule_slots_build_id_idx on schedule_slots (build_id) where build_id is not null;
