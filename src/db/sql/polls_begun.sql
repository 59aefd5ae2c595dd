-- Looks that begin now, where none is under way and the last began long enough ago: two operators begin one.
insert into webhook_polls as p (webhook_config_id, tenant_id, source, poll_id, started_at)
select c.id, c.tenant_id,
    jsonb_build_object('uid', c.resource_uid,
        'url', c.spec #> '{template,spec,source,git,url}', 'branches', c.spec -> 'branches'),
    l.poll_id, now()
from unnest($1::uuid[], $2::float8[], $3::uuid[]) as l (webhook_config_id, seconds, poll_id)
join webhook_configs c on c.id = l.webhook_config_id and c.is_active and c.spec ? 'poll'
on conflict on constraint webhook_polls_pkey do update
set poll_id = excluded.poll_id, started_at = excluded.started_at
where p.poll_id is null
  and p.source = excluded.source
  and p.started_at <= now() - make_interval(secs => (
      select l.seconds from unnest($1::uuid[], $2::float8[]) as l (webhook_config_id, seconds)
      where l.webhook_config_id = p.webhook_config_id
  ))
