-- Old slots. Not those that have no outcome yet, whose Build was made and is not queued, or is there still.
delete from schedule_slots
where id in (
    select s.id
    from schedule_slots s
    where s.id < uuid_v7_floor(now() - make_interval(days => $1))
      and s.created_at < now() - make_interval(days => $1)
      and s.outcome is not null
      and (s.outcome <> 'made' or s.build_id is not null)
      and s.id <> all($2::uuid[])
    order by s.id
    limit $3
)
