-- What decides the end of a running attempt.
select
    c.build_method,
    c.spec,
    b.attempt,
    b.cancel_reason,
    case when b.pod_given_up_at is not null then b.pod_waiting_reason end as given_up_reason,
    case when b.pod_given_up_at is not null then b.pod_waiting_message end as given_up_message,
    b.resource_namespace,
    b.resource_name,
    b.resource_uid,
    array(
        select tail.log_content
        from (
            select l.log_content, l.line_number
            from build_logs l
            where l.build_id = b.id
            order by l.line_number desc
            limit $2
        ) tail
        order by tail.line_number
    ) as "tail!"
from builds b
join build_configs c on c.build_id = b.id
where b.id = $1 and b.status = 'in_progress'
