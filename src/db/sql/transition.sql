-- Moves attempts from one status to another, each with its history row and a notification, and
-- leaves alone those that have moved on meanwhile. The only statement that changes builds.status.
-- A claim may have waited for its turn since its transaction began: the time is the statement's own.
with asked as (
    select id, worker_id, reason, message, history_id, delay_seconds
    from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::uuid[], $8::float8[])
        as asked (id, worker_id, reason, message, history_id, delay_seconds)
),
changed as (
    update builds
    set status = $7,
        worker_id = case $7 when 'in_progress' then asked.worker_id when 'queued' then null else builds.worker_id end,
        started_at = case $7 when 'in_progress' then statement_timestamp() when 'queued' then null else builds.started_at end,
        completed_at = case when $7 in ('success', 'failed', 'cancelled') then statement_timestamp() end,
        -- Without a delay the time it has waited goes on.
        not_before = case when $7 = 'queued' and asked.delay_seconds > 0
                          then statement_timestamp() + make_interval(secs => asked.delay_seconds)
                          else builds.not_before end,
        -- What held a build back is no fault of one that succeeded.
        error_message = case when $7 <> 'success' then coalesce(asked.message, builds.error_message) end
    from asked
    where builds.id = asked.id
      -- So few are asked for: found by the key, whatever the statistics say of a table that has just grown.
      and builds.id = any($1::uuid[])
      and builds.status = $6
      -- One that shall stop does not wait again: whoever would launch it ends it.
      and ($7 <> 'queued' or (builds.job_created_at is null and builds.cancel_requested_at is null))
    returning builds.id, builds.image_id, asked.reason, asked.history_id, builds.resource_namespace, builds.resource_name
),
recorded as (
    insert into build_status_history (id, build_id, sequence, from_status, to_status, reason, changed_by_system, changed_at)
    select history_id,
           id,
           (select coalesce(max(sequence), 0) + 1 from build_status_history where build_id = changed.id),
           $6,
           $7,
           reason,
           true,
           statement_timestamp()
    from changed
)
select changed.id as "id!",
       pg_notify('image_factory_status', $7 || ' ' || resource_namespace || '/' || resource_name)::text as notified,
       -- Builds that pushed to one repository end one after the other: whatever tags they share, the rows of its
       -- images are written by one at a time. The turn is taken in this statement, since the next one (finish.sql)
       -- has to see what the turn before has written, and lasts to the end of the transaction.
       case $7 when 'success' then (
           select pg_advisory_xact_lock(hashtextextended('image-factory push ' || i.project_id || i.repository, 0))::text
           from images i
           where i.id = changed.image_id
       ) end as its_turn
from changed
