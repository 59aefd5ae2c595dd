-- Rows as an installation has them after some days: thirty tenants of three projects, four hundred Builds a tenant of
-- which most have ended, sixty builds that run, four hundred that wait. Every number follows from generate_series, so
-- that the statistics, and with them the plans, are the same each time. Ids are those of long ago: their log lines are
-- all in one partition.
do $$ declare part text; begin
    for part in select c.oid::regclass from pg_class c where c.relnamespace = 'public'::regnamespace and c.relkind = 'r' loop
        execute format('alter table %s set (autovacuum_enabled = false)', part);
    end loop;
end $$;
create function pg_temp.at(n int) returns uuid immutable language sql as
    $$ select ('016f5e66' || lpad(to_hex(n), 4, '0') || '70008000' || lpad(to_hex(n), 12, '0'))::uuid $$;

insert into tenants (id, uid, name)
select md5('tenant ' || t)::uuid, 'uid-' || t, 'tenant-' || t from generate_series(0, 29) t;
insert into projects (id, tenant_id, name)
select md5('project ' || t || ' ' || p)::uuid, md5('tenant ' || t)::uuid, 'project-' || p
from generate_series(0, 29) t, generate_series(0, 2) p;
insert into images (id, project_id, repository, tag)
select md5(id::text || i)::uuid, id, 'registry.test/' || id || i, '1' from projects, generate_series(0, 9) i;
insert into operator_settings (max_concurrent_builds) values (10);
insert into build_concurrency_policies (id, tenant_id, max_concurrent_builds, weight, priority_dispatch_enabled)
select id, id, 5, 2, name like '%1' from tenants where name like '%1' or name like '%2';
insert into build_workers (id, tenant_id, worker_name, worker_type, concurrent_builds_limit, status, declared)
select md5('worker ' || n)::uuid, case when n > 10 then md5('tenant ' || n)::uuid end, 'worker-' || n, 'kubernetes', 20, 'healthy', true
from generate_series(0, 19) n;
insert into build_workers (id, worker_name, worker_type, concurrent_builds_limit, status)
values (md5('cluster')::uuid, 'cluster', 'kubernetes', 10, 'healthy');

insert into builds (id, tenant_id, project_id, image_id, build_number, status, started_at, completed_at, cleanup_due_at,
    cleanup_at, worker_id, job_created_at, cancel_requested_at, cancel_reason, resource_namespace, resource_name,
    resource_uid, run, attempt, inputs_hash, observed_generation, priority, build_method, queued_at, not_before)
select pg_temp.at(n),
       md5('tenant ' || t)::uuid,
       md5('project ' || t || ' ' || p)::uuid,
       md5(md5('project ' || t || ' ' || p)::uuid::text || n % 10)::uuid,
       n,
       status,
       case when status <> 'queued' then queued + interval '20 seconds' end,
       case when has_ended then queued + interval '90 seconds' end,
       case when has_ended then queued + interval '10 minutes' end,
       case when has_ended and n < 11500 then queued + interval '11 minutes' end,
       case when status <> 'queued' then md5('worker ' || n % 11)::uuid end,
       case when status <> 'queued' and n < 11595 then queued + interval '21 seconds' end,
       case when status = 'in_progress' and n % 20 = 0 then now() end,
       case when status = 'in_progress' and n % 20 = 0 then 'Cancelled' end,
       'tenant-' || t,
       'build-' || n / 90 % 100,
       'uid-' || t || '-' || p || '-' || n / 90 % 100,
       1 + n / 9000,
       1,
       'v1:blue',
       1,
       n % 3,
       (array['container', 'buildx', 'kaniko'])[1 + n % 3],
       queued,
       case when status = 'queued' and n % 10 = 0 then now() + interval '1 minute' end
from generate_series(1, 12000) n
cross join lateral (select n % 30 as t, n / 30 % 3 as p, now() - make_interval(mins => 12000 - n) as queued) of
cross join lateral (
    select case when n > 11600 then 'queued'
                when n > 11540 then 'in_progress'
                else (array['success', 'success', 'success', 'failed', 'cancelled'])[1 + n / 7 % 5] end as status
) s
cross join lateral (select status in ('success', 'failed', 'cancelled') as has_ended) e;

insert into build_configs (id, build_id, build_method, spec)
select id, id, build_method, jsonb_build_object('context', repeat('.', 300)) from builds;
insert into build_triggers (id, build_id, trigger_type, trigger_source) select id, id, 'manual', 'kubectl' from builds;
insert into build_status_history (id, build_id, sequence, from_status, to_status, changed_by_system)
select md5(id::text || sequence)::uuid, id, sequence, from_status, to_status, true
from builds
cross join lateral (
    values (1, null, 'queued'), (2, 'queued', 'in_progress'), (3, 'in_progress', status)
) as h (sequence, from_status, to_status)
where sequence = 1 or sequence = 2 and status <> 'queued' or sequence = 3 and completed_at is not null;
insert into build_results (id, build_id, project_id, status, total_duration_milliseconds, queue_wait_milliseconds, counted_at)
select id, id, project_id, status, 90000, 20000, case when completed_at < now() - interval '9 hours' then now() end
from builds where completed_at is not null;
insert into build_artifacts (id, build_id, project_id, artifact_type, artifact_name)
select id, id, project_id, 'docker_image', 'registry.test/image' from builds where status = 'success';
insert into image_metadata (id, image_id) select id, id from images;
insert into image_layers (id, image_id, layer_number, layer_digest, layer_size_bytes)
select md5(id::text || n)::uuid, id, n, 'sha256:' || md5(id::text || n) || md5(n::text), 1 from images, generate_series(1, 20) n;
insert into layers (tenant_id, layer_digest, layer_size_bytes, first_build_id)
select t.id, 'sha256:' || md5(t.id::text || n) || md5(n::text), 1, b.id
from tenants t
cross join generate_series(1, 100) n
cross join lateral (select id from builds where tenant_id = t.id order by id limit 1) b;
insert into build_steps (id, build_id, step_number, step_name, status)
select md5(id::text || n)::uuid, id, n, 'RUN ' || n, case when status = 'failed' and n = 5 then 'failed' else 'success' end
from builds, generate_series(1, 5) n where build_number > 8000 and status <> 'queued';
insert into build_logs (id, build_id, line_number, log_content, log_level, logged_at)
select md5(id::text || n)::uuid, id, n, repeat('=', 60), 'INFO', now()
from builds, generate_series(1, 30) n where build_number > 10000 and status <> 'queued';
insert into build_performance_daily (id, tenant_id, date, total_builds, successful, buildx_count)
select md5(id::text || n)::uuid, id, (now() at time zone 'UTC')::date - n, 1, 1, 1 from tenants, generate_series(0, 99) n;
insert into build_log_cursors (build_id, container, line_number, finished)
select id, container, 30, status <> 'in_progress' from builds, unnest(array['prepare', 'build']) container where status <> 'queued';
insert into webhook_configs (id, tenant_id, project_id, webhook_name, spec)
select md5('hook ' || t)::uuid, md5('tenant ' || t)::uuid, md5('project ' || t || ' 0')::uuid, 'hook',
       jsonb_build_object('supersede', t % 3 = 0)
from generate_series(0, 29) t;
-- A hundred pushes a webhook, of which the last are still to make their Builds, and five notifications of each of their
-- Builds, of which the last are still to be sent.
insert into webhook_deliveries (id, tenant_id, webhook_config_id, direction, delivery_id, event_type, payload, build_name, build_id, event, next_retry_at)
select pg_temp.at(n), md5('tenant ' || n % 30)::uuid, md5('hook ' || n % 30)::uuid, 'inbound', n, 'push', '{}', 'hook-' || n,
       case when n <= 2990 then pg_temp.at(n + 9000) end,
       jsonb_build_object('branch', 'branch-' || n % 7, 'commit', md5(n::text)),
       case when n > 2990 then now() end
from generate_series(1, 3000) n;
insert into webhook_deliveries (id, tenant_id, webhook_config_id, direction, delivery_id, event_type, payload, build_id, next_retry_at)
select md5('notification ' || n || ' ' || i)::uuid, md5('tenant ' || n % 30)::uuid, md5('hook ' || n % 30)::uuid, 'outbound',
       n || ' ' || i, case when i % 2 = 0 then 'commit_status' else 'build.succeeded' end,
       jsonb_build_object('commit', md5(n::text), 'at', now()), pg_temp.at(n + 9000), case when n > 2980 then now() end
from generate_series(1, 2990) n, generate_series(1, 5) i;
insert into build_schedules (id, tenant_id, project_id, schedule_name, cron_expression, build_method, build_config_preset)
select md5('nightly ' || t)::uuid, md5('tenant ' || t)::uuid, md5('project ' || t || ' 0')::uuid, 'nightly', '0 2 * * *', 'buildx', '{}'
from generate_series(0, 29) t;
insert into schedule_slots (id, tenant_id, schedule_id, slot, build_name)
select md5('slot ' || n)::uuid, md5('tenant ' || n % 30)::uuid, md5('nightly ' || n % 30)::uuid,
       now() - make_interval(hours => n), 'nightly-' || n
from generate_series(1, 3000) n;
analyze;
