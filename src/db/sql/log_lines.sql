-- Stored lines, to be read again: those of a build with $2 < number ≤ $3, at most $5, and no more of them than make $4
-- bytes, but at least one.
select line_number, logged_at, log_content
from (
    select *, sum(octet_length(log_content)) over (order by line_number) - octet_length(log_content) as before
    from (
        select line_number, logged_at, log_content
        from build_logs
        where build_id = $1 and line_number > $2 and line_number <= $3
        order by line_number
        limit $5
    ) next
) page
where before < $4
order by line_number
