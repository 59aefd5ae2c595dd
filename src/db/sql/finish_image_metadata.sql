-- Each image that was pushed is described by this push. Rows are locked in the order of their ids, so that two builds
-- that end at once wait for each other and never both.
insert into image_metadata (id, image_id, docker_config_digest, docker_manifest_digest, total_layer_count,
    compressed_size_bytes, uncompressed_size_bytes, entrypoint, cmd, env_vars, working_dir)
select pushed.id,
       i.id,
       sole.config_digest,
       $4,
       held.layers,
       $5,
       $6,
       sole.entrypoint,
       sole.cmd,
       sole.env_vars,
       sole.working_dir
from builds b
join images own on own.id = b.image_id
cross join unnest($2::uuid[], $3::text[]) as pushed (id, tag)
join images i on i.project_id = own.project_id and i.repository = own.repository and i.tag = pushed.tag
cross join (
    select count(*) as platforms, coalesce(sum(layer_count), 0)::int as layers from build_images where build_id = $1
) held
left join build_images sole on sole.build_id = b.id and held.platforms = 1
where b.id = $1
order by i.id
on conflict on constraint image_metadata_image_id_key do update
set docker_config_digest = excluded.docker_config_digest,
    docker_manifest_digest = excluded.docker_manifest_digest,
    total_layer_count = excluded.total_layer_count,
    compressed_size_bytes = excluded.compressed_size_bytes,
    uncompressed_size_bytes = excluded.uncompressed_size_bytes,
    entrypoint = excluded.entrypoint,
    cmd = excluded.cmd,
    env_vars = excluded.env_vars,
    working_dir = excluded.working_dir,
    -- What was found in another image says nothing of this one.
    packages_count = case when image_metadata.docker_manifest_digest = excluded.docker_manifest_digest then image_metadata.packages_count end,
    vulnerabilities_high = case when image_metadata.docker_manifest_digest = excluded.docker_manifest_digest then image_metadata.vulnerabilities_high end,
    vulnerabilities_medium = case when image_metadata.docker_manifest_digest = excluded.docker_manifest_digest then image_metadata.vulnerabilities_medium end,
    vulnerabilities_low = case when image_metadata.docker_manifest_digest = excluded.docker_manifest_digest then image_metadata.vulnerabilities_low end,
    last_scanned_at = case when image_metadata.docker_manifest_digest = excluded.docker_manifest_digest then image_metadata.last_scanned_at end,
    scan_tool = case when image_metadata.docker_manifest_digest = excluded.docker_manifest_digest then image_metadata.scan_tool end
