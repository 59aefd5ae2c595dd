-- A Pod that can't start: what it waits for, and whether it has been given up. Kept in rows, so that a status can tell
-- it, and so that an operator that takes over knows why the Job of an attempt was deleted.

alter table builds
    add column pod_waiting_reason text,
    add column pod_waiting_message text,
    add column pod_waiting_since timestamptz,
    add column pod_given_up_at timestamptz,
    add constraint builds_pod_waiting_reason_check check (pod_waiting_reason in ('ImagePull', 'Unschedulable', 'Internal')),
    add constraint builds_pod_waiting_check check (num_nulls(pod_waiting_reason, pod_waiting_message, pod_waiting_since) in (0, 3)),
    add constraint builds_pod_given_up_at_check check (pod_given_up_at is null or pod_waiting_reason is not null);

comment on column builds.pod_waiting_reason is 'Why its Pod can''t go on, as last seen. Null where it can, or has none.';
comment on column builds.pod_waiting_message is 'The same as a sentence. Null where it can go on, or has no Pod.';
comment on column builds.pod_waiting_since is 'Since when its Pod waits for that reason. Null where it can go on, or has no Pod.';
comment on column builds.pod_given_up_at is 'When the wait had lasted for too long: from then on its Job is deleted. Null where it was not given up.';
