-- Every transaction that stores lines of a build moves a row of build_log_cursors, whose foreign key it is that asks
-- for the build: once a batch. The same question once a line was three fifths of what storing it cost.
alter table build_logs drop constraint build_logs_build_id_fkey;

comment on column build_logs.build_id is 'The build. No foreign key of its own: lines are stored together with their container''s row of build_log_cursors, which has one.';
