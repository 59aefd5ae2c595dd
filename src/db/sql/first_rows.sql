-- The trigger and the first status of a new attempt, and the message that wakes the dispatcher; it names no Build, whose
-- controller makes this row and looks at it again.
with triggered as (
    insert into build_triggers (id, build_id, trigger_type, trigger_source, created_by_user_id, created_at)
    values ($2, $1, $3, $4, $5, now())
),
recorded as (
    insert into build_status_history
        (id, build_id, sequence, from_status, to_status, reason, changed_by_user_id, changed_by_system, changed_at)
    values ($6, $1, 1, null, 'queued', $7, $5, $5::uuid is null, now())
)
select pg_notify('image_factory_status', '')::text as notified
