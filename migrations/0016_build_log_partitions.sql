-- Partitions of build_logs: a week each, found by the time inside the build's id. Old logs are dropped by dropping
-- a week, and a query for one build touches one partition.

create function uuid_v7_floor(instant timestamptz) returns uuid
language sql immutable strict parallel safe
return (
    lpad(to_hex(floor(extract(epoch from instant) * 1000)::bigint), 12, '0') || '70008000000000000000'
)::uuid;

comment on function uuid_v7_floor(timestamptz) is 'The smallest UUID version 7 of that millisecond: ids made before it are less, ids made from it on are not.';

create table build_logs_default partition of build_logs default;

comment on table build_logs_default is 'Log lines of builds for whose week no partition was made in time.';

create function ensure_build_log_partitions(first date, last date) returns int
language plpgsql
as $$
declare
    week date := date_trunc('week', first)::date;
    partition_name text;
    created int := 0;
begin
    -- Operators that start together take turns, and the second finds everything done.
    perform pg_advisory_xact_lock(hashtext('ensure_build_log_partitions'));
    while week <= last loop
        partition_name := 'build_logs_' || to_char(week, 'YYYY_MM_DD');
        if to_regclass(partition_name) is null then
            begin
                -- Made apart and then attached: `partition of` would lock out every reader and writer of build_logs.
                execute format('create table %I (like build_logs including defaults including constraints)', partition_name);
                execute format(
                    'alter table build_logs attach partition %I for values from (%L) to (%L)',
                    partition_name,
                    uuid_v7_floor(week::timestamp at time zone 'UTC'),
                    uuid_v7_floor((week + 7)::timestamp at time zone 'UTC')
                );
                execute format('comment on table %I is %L', partition_name, 'Log lines of builds queued in the week from ' || week || ', UTC.');
                created := created + 1;
            exception when check_violation then
                -- Undoes the create too. Those lines stay where they are; readers do not notice.
                raise notice 'build_logs_default already holds lines of the week from %, no partition made', week;
            end;
        end if;
        week := week + 7;
    end loop;
    return created;
end
$$;

comment on function ensure_build_log_partitions(date, date) is 'Makes the weekly partitions of build_logs (build_logs_YYYY_MM_DD, named after the Monday) from the week of the first day to that of the last, where missing, and returns how many it made. Can be called again, and by several at once. Skips a week of which build_logs_default already holds lines.';

-- So that the first builds after the migration need not wait for the operator to look ahead.
select ensure_build_log_partitions((now() at time zone 'UTC')::date, (now() at time zone 'UTC')::date + 21);
