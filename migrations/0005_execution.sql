-- What a build did and left behind: steps, cost, artifacts, and the image as last pushed.

create table build_steps (
    id uuid not null,
    build_id uuid not null,
    step_number int not null,
    step_name text not null,
    instruction_type text,
    status text not null,
    layer_digest text,
    layer_size_bytes bigint,
    cached boolean not null default false,
    stdout text,
    stderr text,
    error_message text,
    error_code text,
    duration_seconds int,
    constraint build_steps_pkey primary key (id),
    -- Serves "the steps of a build in their order".
    constraint build_steps_build_id_step_number_key unique (build_id, step_number),
    constraint build_steps_build_id_fkey foreign key (build_id) references builds (id),
    constraint build_steps_status_check check (status in ('pending', 'running', 'success', 'failed', 'skipped')),
    constraint build_steps_step_number_check check (step_number > 0),
    constraint build_steps_instruction_type_check check (instruction_type ~ '^[A-Z]+$'),
    constraint build_steps_layer_size_bytes_check check (layer_size_bytes >= 0),
    constraint build_steps_duration_seconds_check check (duration_seconds >= 0)
);

comment on table build_steps is 'The steps of a build as its builder''s log tells them: instructions of a Dockerfile, phases of buildpacks, provisioners of packer.';
comment on column build_steps.id is 'Step identity, UUID version 7.';
comment on column build_steps.build_id is 'The build.';
comment on column build_steps.step_number is 'Place in the build, from 1.';
comment on column build_steps.step_name is 'The step as the builder prints it: RUN npm ci.';
comment on column build_steps.instruction_type is 'The Dockerfile instruction in capitals: FROM, RUN, COPY, ADD, ENV, EXPOSE, WORKDIR and the rest. Null where the step is none.';
comment on column build_steps.status is 'pending, running, success, failed or skipped.';
comment on column build_steps.layer_digest is 'Digest of the layer it made, compressed. Null where it made none or it is not known.';
comment on column build_steps.layer_size_bytes is 'Size of that layer in bytes, compressed. Null like layer_digest.';
comment on column build_steps.cached is 'Whether its result came from a cache.';
comment on column build_steps.stdout is 'Its output; the builders merge both streams. Null where it printed nothing.';
comment on column build_steps.stderr is 'The error lines of a failed step. Null otherwise.';
comment on column build_steps.error_message is 'Why it failed. Null otherwise.';
comment on column build_steps.error_code is 'Exit code of its command as printed. Null where it did not fail or none is known.';
comment on column build_steps.duration_seconds is 'How long it took, in seconds, rounded half up. Null until it ended, or where the builder does not say.';

create table build_metrics (
    id uuid not null,
    build_id uuid not null,
    total_duration_seconds int,
    docker_build_duration_seconds int,
    docker_push_duration_seconds int,
    peak_memory_usage_mb int,
    cpu_usage_percent numeric(10, 2),
    disk_read_bytes bigint,
    disk_write_bytes bigint,
    total_layers int,
    reused_layers int,
    new_layers int,
    final_image_size_bytes bigint,
    compression_ratio numeric(10, 4),
    constraint build_metrics_pkey primary key (id),
    constraint build_metrics_build_id_key unique (build_id),
    constraint build_metrics_build_id_fkey foreign key (build_id) references builds (id),
    constraint build_metrics_total_duration_seconds_check check (total_duration_seconds >= 0),
    constraint build_metrics_docker_build_duration_seconds_check check (docker_build_duration_seconds >= 0),
    constraint build_metrics_docker_push_duration_seconds_check check (docker_push_duration_seconds >= 0),
    constraint build_metrics_peak_memory_usage_mb_check check (peak_memory_usage_mb >= 0),
    constraint build_metrics_cpu_usage_percent_check check (cpu_usage_percent >= 0),
    constraint build_metrics_disk_read_bytes_check check (disk_read_bytes >= 0),
    constraint build_metrics_disk_write_bytes_check check (disk_write_bytes >= 0),
    constraint build_metrics_total_layers_check check (total_layers >= 0),
    constraint build_metrics_reused_layers_check check (reused_layers >= 0),
    constraint build_metrics_new_layers_check check (new_layers >= 0),
    constraint build_metrics_final_image_size_bytes_check check (final_image_size_bytes >= 0),
    constraint build_metrics_compression_ratio_check check (compression_ratio >= 0)
);

comment on table build_metrics is 'What a build cost: at most one row per build. A measure is null where it could not be taken.';
comment on column build_metrics.id is 'Metrics identity, UUID version 7.';
comment on column build_metrics.build_id is 'The build.';
comment on column build_metrics.total_duration_seconds is 'From the claim to the end, in seconds, rounded half up.';
comment on column build_metrics.docker_build_duration_seconds is 'The building alone, in seconds, rounded half up. Null where the builder does not tell it from the push.';
comment on column build_metrics.docker_push_duration_seconds is 'The push alone, in seconds, rounded half up. Null where the builder does not tell it from the building.';
comment on column build_metrics.peak_memory_usage_mb is 'Highest memory of the build container, in MiB.';
comment on column build_metrics.cpu_usage_percent is 'CPU of the build container, averaged over its life, in percent of one core.';
comment on column build_metrics.disk_read_bytes is 'Bytes the build container read from block devices.';
comment on column build_metrics.disk_write_bytes is 'Bytes the build container wrote to block devices.';
comment on column build_metrics.total_layers is 'Layers of the image.';
comment on column build_metrics.reused_layers is 'Layers of the base image or from a cache.';
comment on column build_metrics.new_layers is 'Layers this build made.';
comment on column build_metrics.final_image_size_bytes is 'Size of the image in bytes, compressed.';
comment on column build_metrics.compression_ratio is 'Compressed size divided by uncompressed size.';

create table build_artifacts (
    id uuid not null,
    build_id uuid not null,
    project_id uuid not null,
    artifact_type text not null,
    artifact_name text not null,
    artifact_location text,
    artifact_size_bytes bigint,
    sha256_digest text,
    is_available boolean not null default true,
    retention_policy text not null default 'permanent',
    expires_at timestamptz,
    image_id uuid,
    constraint build_artifacts_pkey primary key (id),
    constraint build_artifacts_build_id_artifact_type_artifact_name_key unique (build_id, artifact_type, artifact_name),
    constraint build_artifacts_project_id_build_id_fkey foreign key (project_id, build_id) references builds (project_id, id),
    constraint build_artifacts_project_id_image_id_fkey foreign key (project_id, image_id) references images (project_id, id),
    constraint build_artifacts_artifact_type_check check (artifact_type in ('docker_image', 'sbom', 'test_report', 'build_log', 'security_scan', 'provenance', 'packer_artifact')),
    constraint build_artifacts_retention_policy_check check (retention_policy in ('permanent', 'days_30', 'days_90', 'days_365', 'delete_on_success')),
    constraint build_artifacts_artifact_size_bytes_check check (artifact_size_bytes >= 0),
    constraint build_artifacts_sha256_digest_check check (sha256_digest ~ '^sha256:[0-9a-f]{64}$')
);

-- What expires next: where is_available and expires_at < $1 order by expires_at.
create index build_artifacts_to_expire_idx on build_artifacts (expires_at) where is_available and expires_at is not null;

comment on table build_artifacts is 'Everything a build left behind, with where it is and how long it is kept.';
comment on column build_artifacts.id is 'Artifact identity, UUID version 7.';
comment on column build_artifacts.build_id is 'The build that made it.';
comment on column build_artifacts.project_id is 'The project of that build, so that image_id can name only an image of the same project.';
comment on column build_artifacts.artifact_type is 'docker_image, sbom, test_report, build_log, security_scan, provenance or packer_artifact.';
comment on column build_artifacts.artifact_name is 'Its name: myapp:1.0, sbom.json.';
comment on column build_artifacts.artifact_location is 'Where it is: an image reference with digest, or a URL. Null where it is kept in this database.';
comment on column build_artifacts.artifact_size_bytes is 'Size in bytes, compressed for an image. Null where unknown.';
comment on column build_artifacts.sha256_digest is 'sha256: and 64 hexadecimal digits. Null where unknown.';
comment on column build_artifacts.is_available is 'False once it was deleted.';
comment on column build_artifacts.retention_policy is 'permanent, days_30, days_90, days_365 or delete_on_success: an intermediate artifact, deleted when its build succeeds.';
comment on column build_artifacts.expires_at is 'When it is to be deleted. Null for never.';
comment on column build_artifacts.image_id is 'The image it is, or is about. Null where it has to do with none.';

create table image_metadata (
    id uuid not null,
    image_id uuid not null,
    docker_config_digest text,
    docker_manifest_digest text,
    total_layer_count int,
    compressed_size_bytes bigint,
    uncompressed_size_bytes bigint,
    packages_count int,
    vulnerabilities_high int,
    vulnerabilities_medium int,
    vulnerabilities_low int,
    entrypoint jsonb,
    cmd jsonb,
    env_vars jsonb,
    working_dir jsonb,
    last_scanned_at timestamptz,
    scan_tool text,
    constraint image_metadata_pkey primary key (id),
    constraint image_metadata_image_id_key unique (image_id),
    constraint image_metadata_image_id_fkey foreign key (image_id) references images (id),
    constraint image_metadata_total_layer_count_check check (total_layer_count >= 0),
    constraint image_metadata_compressed_size_bytes_check check (compressed_size_bytes >= 0),
    constraint image_metadata_uncompressed_size_bytes_check check (uncompressed_size_bytes >= 0),
    constraint image_metadata_packages_count_check check (packages_count >= 0),
    constraint image_metadata_vulnerabilities_high_check check (vulnerabilities_high >= 0),
    constraint image_metadata_vulnerabilities_medium_check check (vulnerabilities_medium >= 0),
    constraint image_metadata_vulnerabilities_low_check check (vulnerabilities_low >= 0)
);

comment on table image_metadata is 'An image as it was last pushed: one row per image, written over by each push.';
comment on column image_metadata.id is 'Metadata identity, UUID version 7.';
comment on column image_metadata.image_id is 'The image.';
comment on column image_metadata.docker_config_digest is 'Digest of its configuration. Null for an index of several platforms.';
comment on column image_metadata.docker_manifest_digest is 'Digest of its manifest or index: what the tag pointed to.';
comment on column image_metadata.total_layer_count is 'How many layers it has.';
comment on column image_metadata.compressed_size_bytes is 'Sum of its layers in bytes, compressed, as the registry keeps them.';
comment on column image_metadata.uncompressed_size_bytes is 'Sum of its layers in bytes, uncompressed. Null where it was not measured.';
comment on column image_metadata.packages_count is 'Packages found in it. Null until an SBOM or a scan counted them.';
comment on column image_metadata.vulnerabilities_high is 'Vulnerabilities of severity high or critical. Null until it was scanned.';
comment on column image_metadata.vulnerabilities_medium is 'Vulnerabilities of severity medium. Null until it was scanned.';
comment on column image_metadata.vulnerabilities_low is 'Vulnerabilities of severity low. Null until it was scanned.';
comment on column image_metadata.entrypoint is 'Entrypoint of its configuration, an array of strings. Null where it has none.';
comment on column image_metadata.cmd is 'Cmd of its configuration, an array of strings. Null where it has none.';
comment on column image_metadata.env_vars is 'Env of its configuration, an array of NAME=value. Null where it has none.';
comment on column image_metadata.working_dir is 'WorkingDir of its configuration, a string. Null where it has none.';
comment on column image_metadata.last_scanned_at is 'When it was last scanned. Null where it never was.';
comment on column image_metadata.scan_tool is 'The scanner. Null where it was never scanned.';

create table image_layers (
    id uuid not null,
    image_id uuid not null,
    layer_number int not null,
    layer_digest text not null,
    layer_size_bytes bigint not null,
    is_base_layer boolean not null default false,
    base_image_name text,
    base_image_tag text,
    used_in_builds_count int not null default 1,
    last_used_in_build_at timestamptz,
    constraint image_layers_pkey primary key (id),
    constraint image_layers_image_id_layer_number_key unique (image_id, layer_number),
    constraint image_layers_image_id_fkey foreign key (image_id) references images (id),
    constraint image_layers_layer_number_check check (layer_number > 0),
    constraint image_layers_layer_size_bytes_check check (layer_size_bytes >= 0),
    constraint image_layers_used_in_builds_count_check check (used_in_builds_count >= 0)
);

-- Where else a layer is used: where layer_digest = $1.
create index image_layers_layer_digest_idx on image_layers (layer_digest);

comment on table image_layers is 'The layers of an image as it was last pushed, written over by each push.';
comment on column image_layers.id is 'Layer row identity, UUID version 7.';
comment on column image_layers.image_id is 'The image.';
comment on column image_layers.layer_number is 'Place in the image, from 1, the lowest layer first.';
comment on column image_layers.layer_digest is 'Digest of the layer, compressed.';
comment on column image_layers.layer_size_bytes is 'Size in bytes, compressed.';
comment on column image_layers.is_base_layer is 'Whether it comes from the base image.';
comment on column image_layers.base_image_name is 'Repository of that base image. Null where it is no base layer or the base is not known.';
comment on column image_layers.base_image_tag is 'Tag of that base image. Null like base_image_name, and for a base named by digest alone.';
comment on column image_layers.used_in_builds_count is 'Builds of the tenant whose image has this layer.';
comment on column image_layers.last_used_in_build_at is 'When a build of the tenant last reused it. Null where none did.';
