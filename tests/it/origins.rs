//! A Build tells which slot or delivery it was made for; the row has the last word.

use image_factory::db::builds::NewAttempt;
use sqlx::PgPool;
use uuid::Uuid;

use super::attempts::{attempt, next_run, queued};

const ROWS: &str = "
    insert into build_schedules (id, tenant_id, project_id, schedule_name, cron_expression, build_method, build_config_preset)
        select gen_random_uuid(), t.id, p.id, 'nightly', '0 2 * * *', 'container', '{}' from tenants t join projects p on p.tenant_id = t.id;
    insert into webhook_configs (id, tenant_id, project_id, webhook_name)
        select gen_random_uuid(), t.id, p.id, 'hook' from tenants t join projects p on p.tenant_id = t.id;
    insert into schedule_slots (id, tenant_id, schedule_id, slot, build_name)
        select gen_random_uuid(), tenant_id, id, '2026-11-27 02:00+00', 'nightly-29748600' from build_schedules;
    insert into webhook_deliveries (id, tenant_id, webhook_config_id, direction, delivery_id, event_type, payload, build_name)
        select gen_random_uuid(), tenant_id, id, 'inbound', 'ripe', 'push', '{}', 'hook-ripe' from webhook_configs;
";

async fn id(pool: &PgPool, query: &'static str) -> Uuid {
    sqlx::query_scalar(query).fetch_one(pool).await.expect("one row")
}

async fn trigger(pool: &PgPool, build: Uuid) -> (String, String) {
    sqlx::query_as("select trigger_type, trigger_source from build_triggers where build_id = $1")
        .bind(build)
        .fetch_one(pool)
        .await
        .expect("one trigger")
}

/// Who has asked for a build, as the build, its trigger and its history say.
async fn users(pool: &PgPool, build: Uuid) -> Vec<Option<String>> {
    let ids = "select (select username from users where id = who)
               from builds b join build_triggers t on t.build_id = b.id join build_status_history h on h.build_id = b.id
               cross join lateral unnest(array[b.triggered_by_user_id, t.created_by_user_id, h.changed_by_user_id]) as u (who)
               where b.id = $1";
    sqlx::query_scalar(ids).bind(build).fetch_all(pool).await.expect("rows")
}

fn manual() -> (String, String) {
    ("manual".to_owned(), "brush".to_owned())
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn a_build_made_for_a_row_takes_it_once_and_one_that_only_says_so_does_not(pool: PgPool) {
    queued(&pool, &attempt("red", "wall")).await;
    sqlx::raw_sql(ROWS).execute(&pool).await.expect("rows");
    let slot = id(&pool, "select id from schedule_slots").await;
    let delivery = id(&pool, "select id from webhook_deliveries").await;
    // To the cluster the operator has made each of them.
    let made = |tenant, name, origin| {
        let mut new = NewAttempt { origin: Some(origin), ..attempt(tenant, name) };
        new.trigger.user = Some("operator".to_owned());
        new
    };

    // Another Build, or another tenant's of the same name, has no part in it.
    let other = queued(&pool, &made("red", "door", slot)).await;
    let stranger = queued(&pool, &made("blue", "nightly-29748600", slot)).await;
    for build in [other, stranger] {
        assert_eq!(trigger(&pool, build).await, manual());
        assert_eq!(
            users(&pool, build).await,
            [Some("operator".to_owned()), Some("operator".to_owned()), Some("operator".to_owned())]
        );
    }

    let nightly = made("red", "nightly-29748600", slot);
    let own = queued(&pool, &nightly).await;
    assert_eq!(trigger(&pool, own).await, ("schedule".to_owned(), "nightly 2026-11-27T02:00:00Z".to_owned()));
    assert_eq!(id(&pool, "select build_id from schedule_slots").await, own);
    let again = queued(&pool, &next_run(&nightly)).await;
    assert_eq!(trigger(&pool, again).await, manual());
    assert_eq!(id(&pool, "select build_id from schedule_slots").await, own);

    let pushed = queued(&pool, &made("red", "hook-ripe", delivery)).await;
    assert_eq!(trigger(&pool, pushed).await, ("webhook".to_owned(), "hook ripe".to_owned()));
    assert_eq!(id(&pool, "select build_id from webhook_deliveries").await, pushed);
    for build in [own, pushed] {
        assert!(users(&pool, build).await.iter().all(Option::is_none), "nobody asked for it");
    }
}
