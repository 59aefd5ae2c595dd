-- The result of an attempt that ran, what it cost and, where it succeeded, what it pushed; one statement, since every
-- build ends. Durations come from the rows' own times: queued_at (or not_before) → started_at → completed_at.
--
-- What builds share: images, image_metadata and image_layers are of one repository, whose builds take turns at ending
-- (transition.sql takes the turn, one statement before this, so that this one sees what the turn before has left). A
-- tenant's layers are of all its repositories: whoever counts several locks them by digest, and none waits for one that
-- waits for it.
with ended as (
    select b.id,
           b.tenant_id,
           b.project_id,
           b.image_id,
           b.attempt,
           (select f.id from builds f
            where b.attempt > 1 and f.resource_uid = b.resource_uid and f.run = b.run and f.attempt = 1) as first_attempt,
           greatest(b.queued_at, coalesce(b.not_before, b.queued_at)) as waiting_since,
           b.started_at,
           b.completed_at
    from builds b
    where b.id = $1
),
due as (
    update builds
    set cleanup_due_at = now() + make_interval(secs => coalesce($11::float8, 0)),
        -- A short build can end before its Job was recorded.
        job_created_at = coalesce(job_created_at, case when $11::float8 is not null then now() end),
        -- What the source is says the source; a commit that was asked for by its id is on no branch there, and may be on one
        -- by the word of whoever delivered it.
        git_commit = coalesce($12, git_commit),
        git_branch = coalesce($13, git_branch),
        git_author = coalesce($14, git_author),
        git_message = coalesce($15, git_message)
    where id = $1
),
-- For as long as spec.retention.artifacts says.
kept as (
    select coalesce(c.spec #>> '{retention,artifacts}', 'permanent') as policy,
           ended.completed_at + case c.spec #>> '{retention,artifacts}'
               when 'days_30' then interval '30 days'
               when 'days_90' then interval '90 days'
               when 'days_365' then interval '365 days'
               when 'delete_on_success' then interval '0'
           end as until
    from ended
    join build_configs c on c.build_id = ended.id
),
-- What the build's image holds, a row a platform; $16 is made of its columns.
held as (
    insert into build_images
    select * from jsonb_populate_recordset(null::build_images, $16)
    returning *
),
-- Every tag that was pushed. $18 has an id for each row that is made below: first for the images, then for their
-- artifacts, their metadata, and their layers.
tag as (
    select name, number, cardinality($17::text[]) as tags
    from unnest($17::text[]) with ordinality as tag (name, number)
),
own as (
    select i.id, i.project_id, i.repository, i.tag from ended join images i on i.id = ended.image_id
),
further as (
    insert into images (id, project_id, repository, tag)
    select ($18::uuid[])[tag.number], own.project_id, own.repository, tag.name
    from own
    join tag on tag.name <> own.tag
    on conflict on constraint images_project_id_repository_tag_key do update set tag = excluded.tag
    returning id, tag
),
pushed as (
    select image.id, own.repository || ':' || tag.name as reference, tag.number, tag.tags
    from tag
    join (select id, tag from own union all select id, tag from further) image on image.tag = tag.name
    cross join own
),
artifact as (
    insert into build_artifacts (id, build_id, project_id, artifact_type, artifact_name, artifact_location,
        artifact_size_bytes, sha256_digest, image_id, retention_policy, expires_at)
    select ($18::uuid[])[pushed.tags + pushed.number],
           ended.id,
           ended.project_id,
           'docker_image',
           pushed.reference,
           pushed.reference || '@' || $6,
           $19,
           $6,
           pushed.id,
           kept.policy,
           kept.until
    from pushed
    cross join ended
    cross join kept
),
-- What was pushed beside it and tells of it, what it holds by name, and what was made elsewhere.
further_artifact as (
    insert into build_artifacts (id, build_id, project_id, artifact_type, artifact_name, artifact_location,
        artifact_size_bytes, sha256_digest, image_id, retention_policy, expires_at)
    select told.id,
           ended.id,
           ended.project_id,
           told.artifact_type,
           told.artifact_name,
           coalesce(told.artifact_location, own.repository || '@' || told.sha256_digest),
           told.artifact_size_bytes,
           told.sha256_digest,
           case when told.sha256_digest is not null then own.id end,
           kept.policy,
           kept.until
    from jsonb_populate_recordset(null::build_artifacts, $29) told
    cross join own
    cross join ended
    cross join kept
),
described as (
    insert into image_metadata (id, image_id, docker_config_digest, docker_manifest_digest, total_layer_count,
        compressed_size_bytes, uncompressed_size_bytes, entrypoint, cmd, env_vars, working_dir)
    select ($18::uuid[])[2 * pushed.tags + pushed.number],
           pushed.id,
           sole.config_digest,
           $6,
           platform.layers,
           $19,
           $20,
           sole.entrypoint,
           sole.cmd,
           sole.env_vars,
           sole.working_dir
    from pushed
    cross join (select count(*) as number, coalesce(sum(layer_count), 0)::int as layers from held) platform
    left join held sole on platform.number = 1
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
    returning image_id
),
-- Each layer is used once more, whatever the number of platforms and tags that have it.
used as (
    insert into layers (tenant_id, layer_digest, layer_size_bytes, first_build_id)
    select distinct on (layer.digest) ended.tenant_id, layer.digest, layer.size_bytes, ended.id
    from ended
    cross join held
    cross join unnest(held.layer_digests, held.layer_sizes_bytes) as layer (digest, size_bytes)
    where (select count(*) from described) > 0
    order by layer.digest
    on conflict on constraint layers_pkey do update
    set used_in_builds_count = layers.used_in_builds_count + 1,
        last_used_in_build_at = now()
    returning layer_digest, used_in_builds_count, last_used_in_build_at
),
layer as (
    select row_number() over (order by held.platform_number, of_image.place) as number,
           of_image.digest,
           of_image.size_bytes,
           of_image.place <= held.base_layer_count as is_base,
           held.base_image_name,
           held.base_image_tag,
           used.used_in_builds_count,
           used.last_used_in_build_at
    from held
    cross join unnest(held.layer_digests, held.layer_sizes_bytes) with ordinality as of_image (digest, size_bytes, place)
    join used on used.layer_digest = of_image.digest
),
trimmed as (
    -- Asked by an array: joined, all layers of all images may be read.
    delete from image_layers
    where image_id = any (array(select image_id from described)) and layer_number > (select count(*) from layer)
),
layered as (
    insert into image_layers (id, image_id, layer_number, layer_digest, layer_size_bytes, is_base_layer,
        base_image_name, base_image_tag, used_in_builds_count, last_used_in_build_at)
    select ($18::uuid[])[3 * cardinality($17::text[]) + row_number() over (order by described.image_id, layer.number)],
           described.image_id,
           layer.number,
           layer.digest,
           layer.size_bytes,
           layer.is_base,
           case when layer.is_base then layer.base_image_name end,
           case when layer.is_base then layer.base_image_tag end,
           layer.used_in_builds_count,
           layer.last_used_in_build_at
    from described
    cross join layer
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
reuse as (
    select (select sum(layer_count)::int from held) as layers,
           (select count(*)::int from layer where is_base or used_in_builds_count > 1) as reused,
           (select bool_and(base_layer_count is not null and cardinality(layer_digests) = layer_count) from held) as is_known
),
measured as (
    insert into build_metrics (id, build_id, total_duration_seconds, docker_build_duration_seconds,
        docker_push_duration_seconds, peak_memory_usage_mb, cpu_usage_percent, disk_read_bytes, disk_write_bytes,
        total_layers, reused_layers, new_layers, final_image_size_bytes, compression_ratio)
    select $22,
           ended.id,
           round(greatest(0, extract(epoch from ended.completed_at - ended.started_at)))::int,
           $23,
           $24,
           $25,
           round($26::float8::numeric, 2),
           $27,
           $28,
           reuse.layers,
           case when reuse.is_known then reuse.reused end,
           case when reuse.is_known then reuse.layers - reuse.reused end,
           $19,
           round($21::float8::numeric, 4)
    from ended
    cross join reuse
)
insert into build_results (id, build_id, project_id, status, exit_code, output_image_id, output_image_url,
    output_image_digest, failure_reason, failure_stage, total_duration_milliseconds, queue_wait_milliseconds,
    build_execution_milliseconds, artifact_push_milliseconds, retry_count, is_retry, original_build_id)
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
       $10,
       attempt - 1,
       attempt > 1,
       first_attempt
from ended
