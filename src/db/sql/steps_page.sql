-- Steps of a build after $2 in their order: one at least where there is one, at most $3, and no more than make $4
-- bytes but for the last. How much a step printed is known without reading it; it is read only where it is given.
select next.step_number, to_jsonb(r) - 'id' - 'build_id' as "row!", next.remaining as "remaining!"
from (
    select id,
           step_number,
           row_number() over (order by step_number) as place,
           sum(size) over (order by step_number) - size as before,
           count(*) over () as remaining
    from (
        select id,
               step_number,
               octet_length(step_name) + coalesce(octet_length(stdout), 0) + coalesce(octet_length(stderr), 0)
                   + coalesce(octet_length(error_message), 0) as size
        from build_steps
        where build_id = $1 and step_number > $2
        order by step_number
        limit $3::bigint + 1
    ) measured
) next
join build_steps r on r.id = next.id
where next.place <= $3 and next.before < $4::bigint
order by next.step_number
