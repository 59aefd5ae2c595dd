-- Marks the live attempts of a Build, of the runs before $3 where it is given, as to be stopped, and tells it.
update builds set cancel_requested_at = now(), cancel_reason = $2
where resource_uid = $1
  and status in ('queued', 'in_progress')
  and cancel_requested_at is null
  and ($3::int is null or run < $3)
returning id,
          status,
          pg_notify('image_factory_status', 'stop_asked ' || resource_namespace || '/' || resource_name)::text as notified
