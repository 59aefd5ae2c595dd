-- The image under each tag it was pushed to, for as long as spec.retention.artifacts says.
with kept as (
    select coalesce(c.spec #>> '{retention,artifacts}', 'permanent') as policy,
           b.completed_at + case c.spec #>> '{retention,artifacts}'
               when 'days_30' then interval '30 days'
               when 'days_90' then interval '90 days'
               when 'days_365' then interval '365 days'
               when 'delete_on_success' then interval '0'
           end as until
    from builds b
    join build_configs c on c.build_id = b.id
    where b.id = $1
)
insert into build_artifacts (id, build_id, project_id, artifact_type, artifact_name, artifact_location,
    artifact_size_bytes, sha256_digest, image_id, retention_policy, expires_at)
select pushed.id,
       b.id,
       b.project_id,
       'docker_image',
       i.repository || ':' || i.tag,
       i.repository || ':' || i.tag || '@' || $4,
       $5,
       $4,
       i.id,
       kept.policy,
       kept.until
from builds b
cross join kept
join images own on own.id = b.image_id
cross join unnest($2::uuid[], $3::text[]) as pushed (id, tag)
join images i on i.project_id = own.project_id and i.repository = own.repository and i.tag = pushed.tag
where b.id = $1
