-- The whole queue, with what holds each build back.
select q.build_id as "build!", b.resource_uid, q.waiting_for, q.position as "position!"
from build_queue q
join builds b on b.id = q.build_id
