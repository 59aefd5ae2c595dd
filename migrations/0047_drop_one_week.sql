-- One week a call, and its partition last: from the drop to the end of the transaction nobody reads or writes a log, and
-- the cursors of a week may be many.
create or replace function drop_build_logs(before date) returns int
language plpgsql
-- A long reader must not hold up everyone who waits behind this: it is tried again another time.
set lock_timeout = '2s'
as $$
declare
    week date;
begin
    select to_date(right(c.relname, 10), 'YYYY_MM_DD') as of_partition into week
    from pg_inherits i
    join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'build_logs'::regclass
        and c.relname ~ '^build_logs_[0-9]{4}_[0-9]{2}_[0-9]{2}$'
        and to_date(right(c.relname, 10), 'YYYY_MM_DD') + 7 <= before
        -- A build that was queued so long ago and has not ended keeps its week.
        and not exists (
            select from builds
            where status in ('queued', 'in_progress')
                and id >= uuid_v7_floor(to_date(right(c.relname, 10), 'YYYY_MM_DD')::timestamp at time zone 'UTC')
                and id < uuid_v7_floor((to_date(right(c.relname, 10), 'YYYY_MM_DD') + 7)::timestamp at time zone 'UTC')
        )
    order by of_partition
    limit 1;
    if week is null then
        return 0;
    end if;
    -- The cursors say what is stored.
    update build_log_cursors set line_number = 0
    where line_number > 0
        and build_id >= uuid_v7_floor(week::timestamp at time zone 'UTC')
        and build_id < uuid_v7_floor((week + 7)::timestamp at time zone 'UTC');
    execute format('drop table %I', 'build_logs_' || to_char(week, 'YYYY_MM_DD'));
    return 1;
end
$$;

comment on function drop_build_logs(date) is 'Drops the oldest weekly partition of build_logs that ends before this day, and returns how many it dropped: 1, or 0 where there is none left. The builds keep everything but their lines. Leaves a week of which a build has not ended.';
