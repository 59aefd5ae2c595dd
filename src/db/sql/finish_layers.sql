-- Each layer of the build's images is used once more, whatever the number of images that have it; locked in the order
-- of their digests.
insert into layers (tenant_id, layer_digest, layer_size_bytes, first_build_id)
select distinct on (layer.digest) b.tenant_id, layer.digest, layer.size_bytes, b.id
from builds b
join build_images i on i.build_id = b.id
cross join unnest(i.layer_digests, i.layer_sizes_bytes) as layer (digest, size_bytes)
where b.id = $1
order by layer.digest
on conflict on constraint layers_pkey do update
set used_in_builds_count = layers.used_in_builds_count + 1,
    last_used_in_build_at = now()
