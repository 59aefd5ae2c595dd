-- The status of a build and its lines after $2, at most $4, and no more of them than make $3 bytes, but at least one:
-- of one moment.
select b.status, l.line_number as "line_number?", l.log_content as "log_content?", l.log_level as "log_level?",
       l.logged_at as "logged_at?"
from builds b
left join (
    select *, sum(octet_length(log_content)) over (order by line_number) - octet_length(log_content) as before
    from (
        select line_number, log_content, log_level, logged_at
        from build_logs
        where build_id = $1 and line_number > $2
        order by line_number
        limit $4
    ) next
) l on l.before < $3
where b.id = $1
order by l.line_number
