-- All that an attempt that ran leaves behind, in one statement: its result, its cost and, where it succeeded, what it
-- pushed. What earlier parts write is taken from what they return: the statement sees the tables as they were.
-- Durations come from the rows' own times: queued_at (or not_before) → started_at → completed_at. Rows that
-- other builds write too are locked in one order (images and image_metadata by the turn that the transition took,
-- layers by their digests), so that two builds that end at once wait for each other and never both.
with ended as (
    select b.id,
           b.tenant_id,
           b.project_id,
           b.image_id,
           greatest(b.queued_at, coalesce(b.not_before, b.queued_at)) as waiting_since,
           b.started_at,
           b.completed_at,
           coalesce(c.spec #>> '{retention,artifacts}', 'permanent') as retention_policy,
           b.completed_at + case c.spec #>> '{retention,artifacts}'
               when 'days_30' then interval '30 days'
               when 'days_90' then interval '90 days'
               when 'days_365' then interval '365 days'
               when 'delete_on_success' then interval '0'
           end as expires_at
    from builds b
    join build_configs c on c.build_id = b.id
    where b.id = $1
),
due as (
    update builds
    set cleanup_due_at = now() + make_interval(secs => coalesce($11::float8, 0)),
        -- A short build can end before its Job was recorded.
        job_created_at = coalesce(job_created_at, case when $11::float8 is not null then now() end),
        git_commit = $12,
        git_branch = $13,
        git_author = $14,
        git_message = $15
    where id = $1
),
-- Further tags that were pushed are images of the project, too.
tagged as (
    insert into images (id, project_id, repository, tag)
    select pushed.id, own.project_id, own.repository, pushed.tag
    from ended
    join images own on own.id = ended.image_id
    cross join unnest($16::uuid[], $17::text[]) as pushed (id, tag)
    order by pushed.tag
    on conflict on constraint images_project_id_repository_tag_key do update set tag = excluded.tag
    returning id, repository, tag
),
-- The image under each tag, for as long as spec.retention.artifacts says.
artifacts as (
    insert into build_artifacts (id, build_id, project_id, artifact_type, artifact_name, artifact_location,
        artifact_size_bytes, sha256_digest, image_id, retention_policy, expires_at)
    select pushed.id,
           ended.id,
           ended.project_id,
           'docker_image',
           tagged.repository || ':' || tagged.tag,
           tagged.repository || ':' || tagged.tag || '@' || $6,
           $18,
           $6,
           tagged.id,
           ended.retention_policy,
           ended.expires_at
    from ended
    cross join tagged
    join unnest($19::uuid[], $17::text[]) as pushed (id, tag) on pushed.tag = tagged.tag
),
held as materialized (
    select * from jsonb_populate_recordset(null::build_images, $20)
),
own_images as (
    insert into build_images select * from held
),
-- Each image that was pushed is described by this push.
described as (
    insert into image_metadata as known (id, image_id, docker_config_digest, docker_manifest_digest, total_layer_count,
        compressed_size_bytes, uncompressed_size_bytes, entrypoint, cmd, env_vars, working_dir)
    select pushed.id,
           tagged.id,
           sole.config_digest,
           $6,
           total.layers,
           $18,
           $21,
           sole.entrypoint,
           sole.cmd,
           sole.env_vars,
           sole.working_dir
    from tagged
    join unnest($22::uuid[], $17::text[]) as pushed (id, tag) on pushed.tag = tagged.tag
    cross join (select count(*) as platforms, coalesce(sum(layer_count), 0)::int as layers from held) total
    left join held sole on total.platforms = 1
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
        packages_count = case when known.docker_manifest_digest = excluded.docker_manifest_digest then known.packages_count end,
        vulnerabilities_high = case when known.docker_manifest_digest = excluded.docker_manifest_digest then known.vulnerabilities_high end,
        vulnerabilities_medium = case when known.docker_manifest_digest = excluded.docker_manifest_digest then known.vulnerabilities_medium end,
        vulnerabilities_low = case when known.docker_manifest_digest = excluded.docker_manifest_digest then known.vulnerabilities_low end,
        last_scanned_at = case when known.docker_manifest_digest = excluded.docker_manifest_digest then known.last_scanned_at end,
        scan_tool = case when known.docker_manifest_digest = excluded.docker_manifest_digest then known.scan_tool end
),
of_image as (
    select held.platform_number,
           layer.place,
           layer.digest,
           layer.size_bytes,
           layer.place <= held.base_layer_count as is_base,
           held.base_image_name,
           held.base_image_tag
    from held
    cross join unnest(held.layer_digests, held.layer_sizes_bytes) with ordinality as layer (digest, size_bytes, place)
),
-- Each layer of the build's images is used once more, whatever the number of images that have it.
used as (
    insert into layers (tenant_id, layer_digest, layer_size_bytes, first_build_id)
    select distinct on (of_image.digest) ended.tenant_id, of_image.digest, of_image.size_bytes, ended.id
    from ended
    cross join of_image
    order by of_image.digest
    on conflict on constraint layers_pkey do update
    set used_in_builds_count = layers.used_in_builds_count + 1,
        last_used_in_build_at = now()
    returning layer_digest, used_in_builds_count, last_used_in_build_at
),
stack as materialized (
    select row_number() over (order by of_image.platform_number, of_image.place) as number,
           of_image.*,
           used.used_in_builds_count,
           used.last_used_in_build_at
    from of_image
    join used on used.layer_digest = of_image.digest
),
-- Each image that was pushed has the layers of this push, and no others. $23 has an id for each row.
gone as (
    delete from image_layers
    where image_id in (select id from tagged) and layer_number > (select count(*) from stack)
),
stacked as (
    insert into image_layers (id, image_id, layer_number, layer_digest, layer_size_bytes, is_base_layer, base_image_name,
        base_image_tag, used_in_builds_count, last_used_in_build_at)
    select ($23::uuid[])[row_number() over (order by tagged.id, stack.number)],
           tagged.id,
           stack.number,
           stack.digest,
           stack.size_bytes,
           stack.is_base,
           case when stack.is_base then stack.base_image_name end,
           case when stack.is_base then stack.base_image_tag end,
           stack.used_in_builds_count,
           stack.last_used_in_build_at
    from tagged
    cross join stack
    on conflict on constraint image_layers_image_id_layer_number_key do update
    set layer_digest = excluded.layer_digest,
        layer_size_bytes = excluded.layer_size_bytes,
        is_base_layer = excluded.is_base_layer,
        base_image_name = excluded.base_image_name,
        base_image_tag = excluded.base_image_tag,
        used_in_builds_count = excluded.used_in_builds_count,
        last_used_in_build_at = excluded.last_used_in_build_at
),
-- A layer is reused that is the base image's, or that was used before this build.
measured as (
    insert into build_metrics (id, build_id, total_duration_seconds, docker_build_duration_seconds,
        docker_push_duration_seconds, peak_memory_usage_mb, cpu_usage_percent, disk_read_bytes, disk_write_bytes,
        total_layers, reused_layers, new_layers, final_image_size_bytes, compression_ratio)
    select $24,
           ended.id,
           round(greatest(0, extract(epoch from ended.completed_at - ended.started_at)))::int,
           $25,
           $26,
           $27,
           round($28::float8::numeric, 2),
           $29,
           $30,
           total.layers,
           case when total.is_known then reused.layers end,
           case when total.is_known then total.layers - reused.layers end,
           $18,
           round($31::float8::numeric, 4)
    from ended
    cross join (
        select sum(layer_count)::int as layers,
               bool_and(base_layer_count is not null and cardinality(layer_digests) = layer_count) as is_known
        from held
    ) total
    cross join (
        select (count(*) filter (where stack.is_base or stack.used_in_builds_count > 1))::int as layers from stack
    ) reused
)
insert into build_results (id, build_id, project_id, status, exit_code, output_image_id, output_image_url,
    output_image_digest, failure_reason, failure_stage, total_duration_milliseconds, queue_wait_milliseconds,
    build_execution_milliseconds, artifact_push_milliseconds)
select $2,
       id,
       project_id,
       $3,
       $4,
       case when $5::text is not null then image_id end,
       $5,
       $6,
       $7,
       $8,
       greatest(0, extract(epoch from completed_at - waiting_since) * 1000)::bigint,
       greatest(0, extract(epoch from started_at - waiting_since) * 1000)::bigint,
       $9,
       $10
from ended
