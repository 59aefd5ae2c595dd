-- Each image that was pushed has the layers of this push, and no others. $3 has an id for each row.
with pushed as (
    select i.id as image_id
    from builds b
    join images own on own.id = b.image_id
    join images i on i.project_id = own.project_id and i.repository = own.repository and i.tag = any($2::text[])
    where b.id = $1
),
layer as (
    select row_number() over (order by held.platform_number, of_image.place) as number,
           of_image.digest,
           of_image.size_bytes,
           of_image.place <= held.base_layer_count as is_base,
           held.base_image_name,
           held.base_image_tag,
           l.used_in_builds_count,
           l.last_used_in_build_at
    from build_images held
    join builds b on b.id = held.build_id
    cross join unnest(held.layer_digests, held.layer_sizes_bytes) with ordinality as of_image (digest, size_bytes, place)
    join layers l on l.tenant_id = b.tenant_id and l.layer_digest = of_image.digest
    where held.build_id = $1
),
gone as (
    delete from image_layers
    where image_id in (select image_id from pushed) and layer_number > (select count(*) from layer)
)
insert into image_layers (id, image_id, layer_number, layer_digest, layer_size_bytes, is_base_layer, base_image_name,
    base_image_tag, used_in_builds_count, last_used_in_build_at)
select ($3::uuid[])[row_number() over (order by pushed.image_id, layer.number)],
       pushed.image_id,
       layer.number,
       layer.digest,
       layer.size_bytes,
       layer.is_base,
       case when layer.is_base then layer.base_image_name end,
       case when layer.is_base then layer.base_image_tag end,
       layer.used_in_builds_count,
       layer.last_used_in_build_at
from pushed
cross join layer
on conflict on constraint image_layers_image_id_layer_number_key do update
set layer_digest = excluded.layer_digest,
    layer_size_bytes = excluded.layer_size_bytes,
    is_base_layer = excluded.is_base_layer,
    base_image_name = excluded.base_image_name,
    base_image_tag = excluded.base_image_tag,
    used_in_builds_count = excluded.used_in_builds_count,
    last_used_in_build_at = excluded.last_used_in_build_at
