-- The first builds of groups, so many of each as is asked for, each with where it would rather run. A build whose
-- older run still runs, or that is not due yet, is no head. The cost follows what runs and what is asked for, not the
-- backlog.
-- Asked with `not in`, which is hashed once: an anti-join is planned by statistics that lag behind a burst.
with busy as materialized (
    select resource_uid from builds where status = 'in_progress'
)
select g.place as "place!",
       h.id as "id!",
       h.priority as "priority!",
       h.queued_at as "queued_at!",
       -- Where the image's cache is warm.
       (select w.worker_id from builds w where w.image_id = h.image_id and w.status = 'success'
        order by w.completed_at desc limit 1) as warm,
       -- Where the attempt before failed.
       case when h.attempt > 1 then
           (select f.worker_id from builds f
            where f.resource_uid = h.resource_uid and f.run = h.run and f.attempt = h.attempt - 1)
       end as avoid
from unnest($1::uuid[], $2::uuid[], $3::bool[], $4::int[]) with ordinality
    as g (tenant_id, queue_group, by_priority, heads, place)
cross join lateral (
    (select b.id, b.priority, b.queued_at, b.image_id, b.resource_uid, b.run, b.attempt
     from builds b
     where g.by_priority and b.tenant_id = g.tenant_id and b.queue_group = g.queue_group and b.status = 'queued'
       and (b.not_before is null or b.not_before <= now())
       and b.resource_uid not in (select resource_uid from busy)
     order by b.priority desc, b.queued_at, b.id
     limit g.heads)
    union all
    (select b.id, b.priority, b.queued_at, b.image_id, b.resource_uid, b.run, b.attempt
     from builds b
     where not g.by_priority and b.tenant_id = g.tenant_id and b.queue_group = g.queue_group and b.status = 'queued'
       and (b.not_before is null or b.not_before <= now())
       and b.resource_uid not in (select resource_uid from busy)
     order by b.queued_at, b.id
     limit g.heads)
) h
