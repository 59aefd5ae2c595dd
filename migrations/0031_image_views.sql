-- What two builds of an image differ in, and how layers are shared: views over what each build pushed. Only for reading.

create view layer_reuse as
select
    l.tenant_id,
    l.layer_digest,
    l.layer_size_bytes,
    l.used_in_builds_count,
    l.layer_size_bytes * (l.used_in_builds_count - 1) as saved_bytes,
    here.images,
    here.base_image_name,
    here.base_image_tag,
    l.first_build_id,
    l.last_used_in_build_at
from layers l
cross join lateral (
    select count(distinct i.id)::int as images, max(n.base_image_name) as base_image_name, max(n.base_image_tag) as base_image_tag
    from image_layers n
    join images i on i.id = n.image_id
    join projects p on p.id = i.project_id
    where n.layer_digest = l.layer_digest and p.tenant_id = l.tenant_id
) here;

comment on view layer_reuse is 'The layers of a tenant''s images with how much each is shared. Order by saved_bytes for what sharing saves; a large layer that is used once and made again by every build is one to cache.';
comment on column layer_reuse.tenant_id is 'The tenant.';
comment on column layer_reuse.layer_digest is 'Digest of the layer, compressed.';
comment on column layer_reuse.layer_size_bytes is 'Size in bytes, compressed.';
comment on column layer_reuse.used_in_builds_count is 'Builds of the tenant whose image has it.';
comment on column layer_reuse.saved_bytes is 'What would have been pushed besides, had each of these builds made it anew: the size for each build but the first.';
comment on column layer_reuse.images is 'Images of the tenant that have it, as they were last pushed.';
comment on column layer_reuse.base_image_name is 'Base image it comes from, where it comes from one. Null otherwise, and where that is not known.';
comment on column layer_reuse.base_image_tag is 'Tag of that base image. Null like base_image_name.';
comment on column layer_reuse.first_build_id is 'The first build that had it.';
comment on column layer_reuse.last_used_in_build_at is 'When a build last had it again. Null where there was one only.';

create view image_comparison as
select
    b.tenant_id,
    b.image_id,
    b.id as build_id,
    b.build_number,
    other.id as other_build_id,
    other.build_number as other_build_number,
    i.platform,
    i.manifest_digest,
    o.manifest_digest as other_manifest_digest,
    i.compressed_size_bytes,
    o.compressed_size_bytes as other_compressed_size_bytes,
    i.compressed_size_bytes - o.compressed_size_bytes as growth_bytes,
    i.layer_count,
    o.layer_count as other_layer_count,
    layers.same_layers,
    layers.first_new_layer,
    layers.new_bytes,
    configuration.changes as configuration_changes
from builds b
join builds other on other.image_id = b.image_id and other.status = 'success' and other.id <> b.id
join build_images i on i.build_id = b.id
join build_images o on o.build_id = other.id and o.platform = i.platform
cross join lateral (
    select
        (count(*) filter (where layer.digest = any (o.layer_digests)))::int as same_layers,
        (min(layer.number) filter (where layer.digest <> all (o.layer_digests)))::int as first_new_layer,
        coalesce(sum(layer.bytes) filter (where layer.digest <> all (o.layer_digests)), 0)::bigint as new_bytes
    from unnest(i.layer_digests, i.layer_sizes_bytes) with ordinality as layer (digest, bytes, number)
) layers
cross join lateral (
    select jsonb_object_agg(setting, jsonb_build_array(before, after)) as changes
    from (
        values
            ('entrypoint', o.entrypoint, i.entrypoint),
            ('cmd', o.cmd, i.cmd),
            ('env_vars', o.env_vars, i.env_vars),
            ('working_dir', o.working_dir, i.working_dir),
            ('labels', o.labels, i.labels)
    ) settings (setting, before, after)
    where before is distinct from after
) configuration
where b.status = 'success';

comment on view image_comparison is 'Two builds of the same image, for each platform both have: name one build_id, and the other or the last before it. Layers are the same where their digests are.';
comment on column image_comparison.tenant_id is 'The tenant.';
comment on column image_comparison.image_id is 'The image that both pushed.';
comment on column image_comparison.build_id is 'A build.';
comment on column image_comparison.build_number is 'Its number in the project.';
comment on column image_comparison.other_build_id is 'The build it is compared with.';
comment on column image_comparison.other_build_number is 'That one''s number.';
comment on column image_comparison.platform is 'os/architecture[/variant].';
comment on column image_comparison.manifest_digest is 'Digest of what the build pushed for that platform.';
comment on column image_comparison.other_manifest_digest is 'The same of the other.';
comment on column image_comparison.compressed_size_bytes is 'Sum of its layers in bytes, compressed.';
comment on column image_comparison.other_compressed_size_bytes is 'The same of the other.';
comment on column image_comparison.growth_bytes is 'How much larger it is than the other, in bytes; negative where it is smaller.';
comment on column image_comparison.layer_count is 'How many layers it has.';
comment on column image_comparison.other_layer_count is 'The same of the other.';
comment on column image_comparison.same_layers is 'How many of its layers the other has too.';
comment on column image_comparison.first_new_layer is 'The lowest of its layers that the other does not have, from 1: where a cache stops helping. Null where there is none.';
comment on column image_comparison.new_bytes is 'Size of its layers that the other does not have, in bytes, compressed.';
comment on column image_comparison.configuration_changes is 'What differs in the configuration: an object of entrypoint, cmd, env_vars, working_dir and labels, each an array of the other''s value and its own. Null where nothing does.';

-- The builds of an image: where image_id = $1 and status = 'success' order by id desc.
create index builds_of_image_idx on builds (image_id, id) where status = 'success';

grant select on layer_reuse, image_comparison to public;
