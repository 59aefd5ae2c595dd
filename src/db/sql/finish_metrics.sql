-- What an attempt that ran cost. A layer is reused that is the base image's, or that was used before this build.
insert into build_metrics (id, build_id, total_duration_seconds, docker_build_duration_seconds,
    docker_push_duration_seconds, peak_memory_usage_mb, cpu_usage_percent, disk_read_bytes, disk_write_bytes,
    total_layers, reused_layers, new_layers, final_image_size_bytes, compression_ratio)
select $2,
       b.id,
       round(greatest(0, extract(epoch from b.completed_at - b.started_at)))::int,
       $3,
       $4,
       $5,
       round($6::float8::numeric, 2),
       $7,
       $8,
       held.layers,
       case when held.is_known then held.reused end,
       case when held.is_known then held.layers - held.reused end,
       $9,
       round($10::float8::numeric, 4)
from builds b
cross join lateral (
    select sum(i.layer_count)::int as layers,
           sum(of_image.reused)::int as reused,
           bool_and(i.base_layer_count is not null and cardinality(i.layer_digests) = i.layer_count) as is_known
    from build_images i
    cross join lateral (
        select count(*) filter (where layer.place <= i.base_layer_count or l.used_in_builds_count > 1) as reused
        from unnest(i.layer_digests) with ordinality as layer (digest, place)
        join layers l on l.tenant_id = b.tenant_id and l.layer_digest = layer.digest
    ) of_image
    where i.build_id = b.id
) held
where b.id = $1
