-- The views over the history tell what single builds said and were made of. They read with the rights of whoever reads
-- them, and so tell nobody more than the tables beneath would. build_queue stays open to every role of the database.

revoke select on slow_builds, failing_stages, failing_steps, queue_waits, worker_use, layer_reuse, image_comparison from public;

alter view slow_builds set (security_invoker = true);
alter view failing_stages set (security_invoker = true);
alter view failing_steps set (security_invoker = true);
alter view queue_waits set (security_invoker = true);
alter view worker_use set (security_invoker = true);
alter view layer_reuse set (security_invoker = true);
alter view image_comparison set (security_invoker = true);

-- Builds that push to one repository end one after the other (transition.sql): the statement that describes an image sees
-- what the one before it left, and takes away layers itself.
drop function trim_image_layers(uuid, bigint);

comment on column builds.pod_waiting_reason is 'Why its Pod can''t go on, as last seen. Null where it can, or has none. Of an attempt that was given up or ended while its Pod waited, what it waited for then.';
comment on column builds.pod_waiting_message is 'The same as a sentence, once given up with how long it waited. Null like pod_waiting_reason.';
comment on column builds.pod_waiting_since is 'Since when its Pod waits, or waited, for that reason. Null like pod_waiting_reason.';
