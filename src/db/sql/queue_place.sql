-- The place of a queued attempt. It is looked up among those of its tenant alone, and kept apart: joined with the
-- rest, the whole queue would be worked out, and so it would for overall_position.
select jsonb_build_object('position', q.position, 'waiting_for', q.waiting_for, 'message', q.message) as "place!"
from builds b
cross join lateral (
    select v.position, v.waiting_for, v.message
    from build_queue v
    where b.status = 'queued' and v.tenant_id = b.tenant_id and v.build_id = b.id
    offset 0
) q
where b.id = $1
