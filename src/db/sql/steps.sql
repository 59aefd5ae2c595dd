-- Stores what changed of a build's steps. A step's output is given once, when it ends; without it what is stored stays.
with recorded as (
    insert into build_steps as stored (id, build_id, step_number, step_name, instruction_type, status, cached, stdout,
        stderr, error_message, error_code, duration_seconds)
    select id, $1, step_number, step_name, instruction_type, status, cached, nullif(stdout, ''), stderr, error_message,
        error_code, duration_seconds
    from unnest($2::uuid[], $3::int[], $4::text[], $5::text[], $6::text[], $7::bool[], $8::text[], $9::text[],
        $10::text[], $11::text[], $12::int[])
        as step (id, step_number, step_name, instruction_type, status, cached, stdout, stderr, error_message,
            error_code, duration_seconds)
    on conflict on constraint build_steps_build_id_step_number_key do update
    set step_name = excluded.step_name,
        instruction_type = excluded.instruction_type,
        status = excluded.status,
        cached = excluded.cached,
        stdout = coalesce(excluded.stdout, stored.stdout),
        stderr = coalesce(excluded.stderr, stored.stderr),
        error_message = excluded.error_message,
        error_code = excluded.error_code,
        duration_seconds = excluded.duration_seconds
)
update builds set steps_total = $13 where id = $1 and steps_total is distinct from $13
