-- A project's attempts with one status, newest first (db/sql/listed_by_project_and_status.sql):
-- where project_id = $1 and status = $2 and id < $3 order by id desc limit $4. Without it, the few of a project are
-- looked for among all of its tenant with that status, or all of the project, that ever were.
create index builds_by_project_and_status_idx on builds (project_id, status, id);
