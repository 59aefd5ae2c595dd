-- What was asked for, as admitted: one row per build, with a column for what every method has in common and null
-- for what the build's method has no use for.

create table build_configs (
    id uuid not null,
    build_id uuid not null,
    build_method text not null,
    dockerfile text,
    build_context text,
    cache_enabled boolean not null default false,
    cache_repo text,
    metadata jsonb not null default '{}',
    platforms jsonb,
    cache_from jsonb,
    cache_to jsonb,
    target_stage text,
    builder text,
    buildpacks jsonb,
    packer_template text,
    build_args jsonb not null default '{}',
    environment jsonb not null default '{}',
    secrets jsonb not null default '[]',
    spec jsonb not null,
    constraint build_configs_pkey primary key (id),
    constraint build_configs_build_id_key unique (build_id),
    constraint build_configs_build_id_fkey foreign key (build_id) references builds (id),
    constraint build_configs_build_method_check check (build_method in ('kaniko', 'buildx', 'container', 'paketo', 'packer')),
    constraint build_configs_dockerfile_check check (dockerfile is null or build_method in ('kaniko', 'buildx', 'container')),
    constraint build_configs_target_stage_check check (target_stage is null or build_method in ('kaniko', 'buildx', 'container')),
    constraint build_configs_cache_repo_check check (cache_repo is null or build_method in ('kaniko', 'container', 'paketo')),
    constraint build_configs_platforms_check check (platforms is null or (build_method = 'buildx' and jsonb_typeof(platforms) = 'array')),
    constraint build_configs_cache_from_check check (cache_from is null or (build_method = 'buildx' and jsonb_typeof(cache_from) = 'array')),
    constraint build_configs_cache_to_check check (cache_to is null or (build_method = 'buildx' and jsonb_typeof(cache_to) = 'array')),
    constraint build_configs_builder_check check (builder is null or build_method = 'paketo'),
    constraint build_configs_buildpacks_check check (buildpacks is null or (build_method = 'paketo' and jsonb_typeof(buildpacks) = 'array')),
    constraint build_configs_packer_template_check check (packer_template is null or build_method = 'packer'),
    constraint build_configs_metadata_check check (jsonb_typeof(metadata) = 'object'),
    constraint build_configs_build_args_check check (jsonb_typeof(build_args) = 'object'),
    constraint build_configs_environment_check check (jsonb_typeof(environment) = 'object'),
    constraint build_configs_secrets_check check (jsonb_typeof(secrets) = 'array'),
    constraint build_configs_spec_check check (jsonb_typeof(spec) = 'object')
);

comment on table build_configs is 'What each build was asked to do. A column that its method has no use for is null.';
comment on column build_configs.id is 'Config identity, UUID version 7.';
comment on column build_configs.build_id is 'The build; one config each.';
comment on column build_configs.build_method is 'kaniko, buildx, container, paketo or packer.';
comment on column build_configs.dockerfile is 'kaniko, buildx, container: the text of the Dockerfile for an inline source, otherwise its path in the context. Null for other methods.';
comment on column build_configs.build_context is 'Folder of the source that is built, usually a dot. Null where the method has none.';
comment on column build_configs.cache_enabled is 'Whether a cache is used.';
comment on column build_configs.cache_repo is 'kaniko, container: repository of cached layers; paketo: the cache image. Null where not set.';
comment on column build_configs.metadata is 'Method-specific values without a column of their own (spec.options), an object.';
comment on column build_configs.platforms is 'buildx: the platforms to build, an array of strings. Null where not set.';
comment on column build_configs.cache_from is 'buildx: caches to read, an array of strings in its own syntax. Null where not set.';
comment on column build_configs.cache_to is 'buildx: caches to write, an array of strings in its own syntax. Null where not set.';
comment on column build_configs.target_stage is 'kaniko, buildx, container: the stage to build. Null for the last.';
comment on column build_configs.builder is 'paketo: the builder image. Null for other methods.';
comment on column build_configs.buildpacks is 'paketo: buildpack images, an array of strings. Null where the builder''s own are used.';
comment on column build_configs.packer_template is 'packer: the text of the template for an inline one, otherwise its path. Null for other methods.';
comment on column build_configs.build_args is 'Build arguments, an object of strings.';
comment on column build_configs.environment is 'Environment of the build, an object of strings.';
comment on column build_configs.secrets is 'Secrets given to the build, an array of references; never values.';
comment on column build_configs.spec is 'The whole spec of the Build as admitted. Launch and retries read this, never the cluster.';
