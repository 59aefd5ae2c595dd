-- Marks the live attempts of a Build, of the runs before $3 and of no newer generation than $4 where they are given, as to be stopped, and tells it.
update builds set cancel_requested_at = now(), cancel_reason = $2
where resource_uid = $1
  and status in ('queued', 'in_progress')
  and cancel_requested_at is null
  and ($3::int is null or run < $3)
  and ($4::bigint is null or observed_generation <= $4)
returning id,
          status,
          pg_notify('image_factory_status', 'stop_asked ' || resource_namespace || '/' || resource_name)::text as notified
