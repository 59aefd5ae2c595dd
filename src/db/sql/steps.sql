-- Stores what changed of a build's steps, and the layers they made. A step's output is given once, when it ends; without
-- it what is stored stays, as does a layer.
with made as (
    select * from unnest($14::int[], $15::text[], $16::bigint[]) as made (step_number, layer_digest, layer_size_bytes)
),
recorded as (
    insert into build_steps as stored (id, build_id, step_number, step_name, instruction_type, status, cached, stdout,
        stderr, error_message, error_code, duration_seconds, layer_digest, layer_size_bytes)
    select step.id, $1, step_number, step.step_name, step.instruction_type, step.status, step.cached,
        nullif(step.stdout, ''), step.stderr, step.error_message, step.error_code, step.duration_seconds,
        made.layer_digest, made.layer_size_bytes
    from unnest($2::uuid[], $3::int[], $4::text[], $5::text[], $6::text[], $7::bool[], $8::text[], $9::text[],
        $10::text[], $11::text[], $12::int[])
        as step (id, step_number, step_name, instruction_type, status, cached, stdout, stderr, error_message,
            error_code, duration_seconds)
    left join made using (step_number)
    on conflict on constraint build_steps_build_id_step_number_key do update
    set step_name = excluded.step_name,
        instruction_type = excluded.instruction_type,
        status = excluded.status,
        cached = excluded.cached,
        stdout = coalesce(excluded.stdout, stored.stdout),
        stderr = coalesce(excluded.stderr, stored.stderr),
        error_message = excluded.error_message,
        error_code = excluded.error_code,
        duration_seconds = excluded.duration_seconds,
        layer_digest = coalesce(excluded.layer_digest, stored.layer_digest),
        layer_size_bytes = coalesce(excluded.layer_size_bytes, stored.layer_size_bytes)
),
-- Steps of which nothing else changed.
layered as (
    update build_steps
    set layer_digest = made.layer_digest, layer_size_bytes = made.layer_size_bytes
    from made
    where build_steps.build_id = $1 and build_steps.step_number = made.step_number
      and made.step_number <> all ($3::int[])
)
update builds set steps_total = $13 where id = $1 and $13::int is not null and steps_total is distinct from $13
