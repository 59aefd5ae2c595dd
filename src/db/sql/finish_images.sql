-- Further tags that were pushed are images of the project, too.
insert into images (id, project_id, repository, tag)
select pushed.id, own.project_id, own.repository, pushed.tag
from builds b
join images own on own.id = b.image_id
cross join unnest($2::uuid[], $3::text[]) as pushed (id, tag)
where b.id = $1
order by pushed.tag
on conflict on constraint images_project_id_repository_tag_key do nothing
