-- A layer of a tenant is counted once for each of the tenant's builds whose image has it.
with held as (
    select b.tenant_id, layer.digest, count(distinct b.id) as builds
    from build_images i
    join builds b on b.id = i.build_id
    cross join unnest(i.layer_digests) as layer (digest)
    group by b.tenant_id, layer.digest
),
examined as (
    select count(*) as number from layers
),
broken as (
    select coalesce(l.layer_digest, h.digest) as subject,
           format('is counted %s times and in the images of %s builds', coalesce(l.used_in_builds_count, 0), coalesce(h.builds, 0)) as problem
    from layers l
    full join held h on h.tenant_id = l.tenant_id and h.digest = l.layer_digest
    where l.used_in_builds_count is distinct from h.builds
)
select examined.number as "examined!", broken.subject as "subject?", broken.problem as "problem?"
from examined left join broken on true
order by broken.subject
