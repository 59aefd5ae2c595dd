-- Why a Build was made, where it was made for this row and by nobody else: its first attempt takes the row, and with it
-- what a delivery says of the commit, which the source confirms later.
with slot as (
    update schedule_slots s
    set build_id = $1
    from build_schedules c
    where s.id = $2 and s.tenant_id = $3 and s.build_name = $4 and s.build_id is null and c.id = s.schedule_id
        and (s.outcome is null or s.outcome = 'made')
    returning 'schedule' as kind,
        c.schedule_name || ' ' || to_char(s.slot at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as source
),
delivery as (
    update webhook_deliveries d
    set build_id = $1
    from webhook_configs c
    where d.id = $2 and d.tenant_id = $3 and d.build_name = $4 and d.build_id is null and d.direction = 'inbound'
        and c.id = d.webhook_config_id
    returning case when d.polled then 'git_event' else 'webhook' end as kind,
        case when d.polled then concat_ws(' ', d.event ->> 'branch', d.event ->> 'commit')
            else c.webhook_name || ' ' || d.delivery_id end as source,
        d.event_type, d.event
),
-- Whoever has made the Build is the operator itself.
unasked as (
    update builds set triggered_by_user_id = null
    from slot
    where builds.id = $1 and builds.triggered_by_user_id is not null
),
described as (
    update builds
    set triggered_by_user_id = null,
        triggered_by_git_event = delivery.event_type,
        git_commit = delivery.event ->> 'commit',
        git_branch = coalesce(delivery.event ->> 'branch', delivery.event ->> 'tag'),
        git_author = delivery.event ->> 'author',
        git_message = delivery.event ->> 'message'
    from delivery
    where builds.id = $1
)
select kind as "kind!", source as "source!" from slot
union all
select kind, source from delivery
