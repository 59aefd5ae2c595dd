-- How far a container's log is stored: never back, and not on from its end.
insert into build_log_cursors as stored (build_id, container, last_timestamp, lines_at_timestamp, line_number,
    finished, bytes, capped)
values ($1, $2, $3, $4, $5, $6, $7, $8)
on conflict on constraint build_log_cursors_pkey do update
set last_timestamp = excluded.last_timestamp, lines_at_timestamp = excluded.lines_at_timestamp,
    line_number = excluded.line_number, finished = excluded.finished, bytes = excluded.bytes,
    capped = excluded.capped
where not stored.finished and stored.line_number <= excluded.line_number
