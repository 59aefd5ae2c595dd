-- How many steps a build has is told by its builder before they are done, and has no row in build_steps.
alter table builds add column steps_total int;
alter table builds add constraint builds_steps_total_check check (steps_total >= 0);
comment on column builds.steps_total is 'Steps of the build known so far: those of build_steps and those its builder announced. Null until the first.';
