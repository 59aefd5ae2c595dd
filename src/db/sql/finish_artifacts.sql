-- The image under each tag it was pushed to.
insert into build_artifacts (id, build_id, project_id, artifact_type, artifact_name, artifact_location,
    artifact_size_bytes, sha256_digest, image_id)
select pushed.id,
       b.id,
       b.project_id,
       'docker_image',
       i.repository || ':' || i.tag,
       i.repository || ':' || i.tag || '@' || $4,
       $5,
       $4,
       i.id
from builds b
join images own on own.id = b.image_id
cross join unnest($2::uuid[], $3::text[]) as pushed (id, tag)
join images i on i.project_id = own.project_id and i.repository = own.repository and i.tag = pushed.tag
where b.id = $1
