-- Looks of webhooks that poll no more, or that look at another repository or other branches: what is there then is new,
-- and nothing of it has moved.
delete from webhook_polls p
using webhook_configs c
where c.id = p.webhook_config_id
  and (not c.is_active
    or not c.spec ? 'poll'
    or p.source is distinct from jsonb_build_object('uid', c.resource_uid,
        'url', c.spec #> '{template,spec,source,git,url}', 'branches', c.spec -> 'branches'))
