-- How far the log of each container has been stored. Moves in the transaction that stores the lines.

create table build_log_cursors (
    build_id uuid not null,
    container text not null,
    last_timestamp timestamptz,
    lines_at_timestamp int not null default 0,
    line_number bigint not null default 0,
    finished boolean not null default false,
    bytes bigint not null default 0,
    capped boolean not null default false,
    constraint build_log_cursors_pkey primary key (build_id, container),
    constraint build_log_cursors_build_id_fkey foreign key (build_id) references builds (id),
    constraint build_log_cursors_lines_at_timestamp_check check (lines_at_timestamp >= 0),
    constraint build_log_cursors_line_number_check check (line_number >= 0),
    constraint build_log_cursors_bytes_check check (bytes >= 0)
);

comment on table build_log_cursors is 'How far the log of each container of a build is stored, so that following it can go on after a restart.';
comment on column build_log_cursors.build_id is 'The build.';
comment on column build_log_cursors.container is 'The container: prepare, build or inspect.';
comment on column build_log_cursors.last_timestamp is 'Timestamp of the last line stored. Null before the first.';
comment on column build_log_cursors.lines_at_timestamp is 'How many lines with that very timestamp are stored: following again skips as many.';
comment on column build_log_cursors.line_number is 'build_logs.line_number of the last line stored of this container; 0 before the first.';
comment on column build_log_cursors.finished is 'Whether the container has ended and its log has been read to the end.';
comment on column build_log_cursors.bytes is 'Bytes stored of this container''s log, a newline for each line. Their sum over the build is held under the operator''s cap.';
comment on column build_log_cursors.capped is 'Whether lines of this container were read and, the cap being reached, not stored. From then on no line of the build is stored.';
