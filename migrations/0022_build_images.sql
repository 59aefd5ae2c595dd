-- What each build's image holds, kept for good, and the layers that a tenant's builds share. image_metadata and
-- image_layers stay what they are: the image as it was last pushed.

create table build_images (
    build_id uuid not null,
    platform_number int not null,
    platform text not null,
    manifest_digest text not null,
    config_digest text not null,
    layer_count int not null,
    layer_digests text[] not null,
    layer_sizes_bytes bigint[] not null,
    base_layer_count int,
    base_image_name text,
    base_image_tag text,
    compressed_size_bytes bigint not null,
    uncompressed_size_bytes bigint,
    entrypoint jsonb,
    cmd jsonb,
    env_vars jsonb,
    working_dir jsonb,
    labels jsonb,
    constraint build_images_pkey primary key (build_id, platform_number),
    constraint build_images_build_id_fkey foreign key (build_id) references builds (id),
    constraint build_images_platform_number_check check (platform_number > 0),
    constraint build_images_layers_check check (
        cardinality(layer_digests) = cardinality(layer_sizes_bytes) and cardinality(layer_digests) in (0, layer_count)
    ),
    constraint build_images_base_layer_count_check check (base_layer_count between 0 and layer_count),
    constraint build_images_base_image_name_check check (base_image_name is null or base_layer_count is not null),
    constraint build_images_base_image_tag_check check (base_image_tag is null or base_image_name is not null),
    constraint build_images_compressed_size_bytes_check check (compressed_size_bytes >= 0),
    constraint build_images_uncompressed_size_bytes_check check (uncompressed_size_bytes >= 0)
);

comment on table build_images is 'The image that a build pushed, as the registry had it then: one row, or one per platform of an index. Attestations are none. Builds that ended before this table was made have no rows.';
comment on column build_images.build_id is 'The build.';
comment on column build_images.platform_number is 'Place in the index, from 1; 1 for an image without one.';
comment on column build_images.platform is 'os/architecture[/variant].';
comment on column build_images.manifest_digest is 'Digest of the image''s own manifest.';
comment on column build_images.config_digest is 'Digest of its configuration.';
comment on column build_images.layer_count is 'How many layers it has.';
comment on column build_images.layer_digests is 'Digests of its layers, compressed, the lowest first. Empty for the second and further platforms of an index so large that its description was cut.';
comment on column build_images.layer_sizes_bytes is 'Sizes of the same layers in bytes, compressed.';
comment on column build_images.base_layer_count is 'How many of the lowest layers are the base image''s; 0 for FROM scratch. Null where the base is not known: the Dockerfile leaves it open, there is none, its registry did not show it with the push credentials, or its tag stood for other layers by then.';
comment on column build_images.base_image_name is 'Repository of the base image, with its registry. Null for FROM scratch and where the base is not known.';
comment on column build_images.base_image_tag is 'Tag of the base image. Null like base_image_name, and for a base named by digest alone.';
comment on column build_images.compressed_size_bytes is 'Sum of its layers in bytes, compressed.';
comment on column build_images.uncompressed_size_bytes is 'Sum of its layers in bytes, unpacked. Null where they were not measured: more than 64 MiB compressed, more than 5 seconds, or in a form that is neither tar, gzip nor zstd.';
comment on column build_images.entrypoint is 'Entrypoint of its configuration, an array of strings. Null where it has none, and where its description was cut.';
comment on column build_images.cmd is 'Cmd of its configuration, an array of strings. Null like entrypoint.';
comment on column build_images.env_vars is 'Env of its configuration, an array of NAME=value; a value that looks like a secret is ***. Null like entrypoint.';
comment on column build_images.working_dir is 'WorkingDir of its configuration, a string. Null like entrypoint.';
comment on column build_images.labels is 'Labels of its configuration. Null like entrypoint.';

create table layers (
    tenant_id uuid not null,
    layer_digest text not null,
    layer_size_bytes bigint not null,
    used_in_builds_count int not null default 1,
    first_build_id uuid not null,
    last_used_in_build_at timestamptz,
    constraint layers_pkey primary key (tenant_id, layer_digest),
    constraint layers_tenant_id_fkey foreign key (tenant_id) references tenants (id),
    constraint layers_tenant_id_first_build_id_fkey foreign key (tenant_id, first_build_id) references builds (tenant_id, id),
    constraint layers_layer_size_bytes_check check (layer_size_bytes >= 0),
    constraint layers_used_in_builds_count_check check (used_in_builds_count > 0),
    constraint layers_last_used_in_build_at_check check ((last_used_in_build_at is null) = (used_in_builds_count = 1))
);

comment on table layers is 'The layers of all images that builds of a tenant pushed, counted as builds end; a layer is the same where its digest is.';
comment on column layers.tenant_id is 'The tenant.';
comment on column layers.layer_digest is 'Digest of the layer, compressed.';
comment on column layers.layer_size_bytes is 'Size in bytes, compressed.';
comment on column layers.used_in_builds_count is 'Builds of the tenant whose image has it.';
comment on column layers.first_build_id is 'The first of them to end.';
comment on column layers.last_used_in_build_at is 'When the last of them ended that was not the first. Null where the first is the only one.';

-- Where the base is not known, no layer can be said to be or not to be of it.
alter table image_layers alter column is_base_layer drop not null, alter column is_base_layer drop default;

comment on table image_layers is 'The layers of an image as it was last pushed, written over by each push; those of an index platform after platform.';
comment on column image_layers.is_base_layer is 'Whether it comes from the base image. Null where the base is not known (build_images.base_layer_count).';
comment on column image_layers.base_image_name is 'Repository of that base image, with its registry. Null where it is no base layer or the base is not known.';
comment on column image_layers.used_in_builds_count is 'Builds of the tenant whose image has this layer, when this image was last pushed. As of now: layers.';
comment on column image_layers.last_used_in_build_at is 'When a build of the tenant last reused it, this push included. Null where none did.';

comment on column image_metadata.docker_config_digest is 'Digest of its configuration. Null for an index of several platforms, each of which is in build_images; likewise the rest of the configuration.';
comment on column image_metadata.total_layer_count is 'How many layers it has; of an index, those of all platforms.';
comment on column image_metadata.compressed_size_bytes is 'Sum of its layers in bytes, compressed, as the registry keeps them: one that platforms share counts once.';
comment on column image_metadata.uncompressed_size_bytes is 'The same layers unpacked, in bytes. Null where they were not measured: more than 64 MiB compressed, more than 5 seconds, or in a form that is neither tar, gzip nor zstd.';
comment on column image_metadata.entrypoint is 'Entrypoint of its configuration, an array of strings. Null where it has none, for an index of several platforms, and where its description was cut.';
comment on column image_metadata.cmd is 'Cmd of its configuration, an array of strings. Null like entrypoint.';
comment on column image_metadata.env_vars is 'Env of its configuration, an array of NAME=value; a value that looks like a secret is ***. Null like entrypoint.';
comment on column image_metadata.working_dir is 'WorkingDir of its configuration, a string. Null like entrypoint.';

comment on table images is 'An image name that builds of a project push to, further tags included. What was last pushed there stands in image_metadata and image_layers; what one build pushed, in build_images and build_results.';
comment on column images.created_at is 'When the first build for it was queued; for a further tag, when the first build that pushed it ended.';

comment on table build_metrics is 'What a build cost: one row per finished build that ran, none for one that ended in the queue. A measure is null where it could not be taken.';
comment on column build_metrics.docker_build_duration_seconds is 'The building alone, in seconds, rounded half up. Null where the builder does not tell it from the push, or never ended by itself.';
comment on column build_metrics.docker_push_duration_seconds is 'The push alone, in seconds, rounded half up. Null where the builder does not tell it from the building, or nothing was pushed.';
comment on column build_metrics.peak_memory_usage_mb is 'Highest memory of the container that did the work, page cache included, in MiB, rounded half up. Null where its control group does not tell, or the agent left no report.';
comment on column build_metrics.cpu_usage_percent is 'CPU of the container that did the work, averaged over its run, in percent of one core. Null like peak_memory_usage_mb.';
comment on column build_metrics.disk_read_bytes is 'Bytes the container that did the work read from block devices. Null like peak_memory_usage_mb.';
comment on column build_metrics.disk_write_bytes is 'Bytes the container that did the work wrote to block devices. Null like peak_memory_usage_mb.';
comment on column build_metrics.total_layers is 'Layers of the image that was pushed; of an index, those of all platforms. Null where none was pushed.';
comment on column build_metrics.reused_layers is 'Of them, layers of the base image, and layers that an image of an earlier build of the tenant has already: by its digest, so a step taken from a cache counts, and one that was run again and made the same. Null where no image was pushed or the base is not known.';
comment on column build_metrics.new_layers is 'The others: layers that this build made. Null like reused_layers.';
comment on column build_metrics.final_image_size_bytes is 'Size of the image in bytes, compressed: image_metadata.compressed_size_bytes as of this build. Null where none was pushed.';
comment on column build_metrics.compression_ratio is 'Compressed size divided by uncompressed size. Null where no image was pushed, it has no layers, or the unpacked size was not measured.';

-- Builds that ended before they were measured: what their rows tell. The id is the build's, of which there is one.
insert into build_metrics (id, build_id, total_duration_seconds, docker_build_duration_seconds, docker_push_duration_seconds, final_image_size_bytes)
select b.id,
       b.id,
       round(greatest(0, extract(epoch from b.completed_at - b.started_at)))::int,
       round(greatest(0, r.build_execution_milliseconds - r.artifact_push_milliseconds) / 1000.0)::int,
       round(r.artifact_push_milliseconds / 1000.0)::int,
       (select a.artifact_size_bytes from build_artifacts a where a.build_id = b.id and a.artifact_type = 'docker_image' limit 1)
from builds b
join build_results r on r.build_id = b.id
where b.completed_at is not null and b.started_at is not null
on conflict on constraint build_metrics_build_id_key do nothing;
