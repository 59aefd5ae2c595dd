-- The first line that was printed at $2 or later. Lines have all numbers from 1 on, in the order in which the runtime
-- read them, so what was printed since is found by halving what is left; times of neighbours may be the other way
-- round, so a thousand lines before are looked at too. Where a node's clock was set back in between, it is one of the
-- places where that time was passed. The cost is that of two thousand lines, however long the log.
with recursive search (low, high) as (
    (select 0::bigint, line_number + 1 from build_logs where build_id = $1 order by line_number desc limit 1)
    union all
    select case when half.is_before then half.line_number else s.low end,
           case when half.is_before then s.high else half.line_number end
    from search s
    cross join lateral (
        select l.line_number, l.logged_at < $2 as is_before
        from build_logs l
        where l.build_id = $1 and l.line_number = (s.low + s.high) / 2
    ) half
    where s.high - s.low > 1000
)
select l.line_number
from (select low, high from search order by high - low limit 1) found
cross join lateral (
    select line_number
    from build_logs
    where build_id = $1 and line_number > found.low - 1000 and line_number <= found.high and logged_at >= $2
    order by line_number
    limit 1
) l
