//! Which rows of deliveries and slots go when they are old, and which stay whatever their age.

use image_factory::db::old_rows::{Old, forget};
use sqlx::PgPool;
use uuid::Uuid;

use crate::schema::rows::{queued, two_tenants};

const DAYS: u16 = 30;

fn days() -> std::num::NonZeroU16 {
    DAYS.try_into().expect("some")
}

/// A delivery that came so many days ago; a later `number` is a later moment. Its columns are these.
async fn delivery(pool: &PgPool, number: i32, ago: i32, name: &str, columns: &str, values: &str) {
    let statement = format!(
        "insert into webhook_deliveries (id, tenant_id, webhook_config_id, delivery_id, event_type, payload, created_at, {columns})
         select uuid_v7_floor(at), md5('green')::uuid, md5('green')::uuid, '{name}', 'push', '{{}}', at, {values}
         from (select now() - make_interval(days => {ago}, secs => 1000 - {number})) as t (at)"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(pool).await.expect(name);
}

async fn left(pool: &PgPool, table: &str, column: &str) -> Vec<String> {
    let statement = format!("select {column}::text from {table} order by id");
    sqlx::query_scalar(sqlx::AssertSqlSafe(statement)).fetch_all(pool).await.expect("rows")
}

async fn id_of(pool: &PgPool, name: &str) -> Uuid {
    let found = sqlx::query_scalar("select id from webhook_deliveries where delivery_id = $1").bind(name);
    found.fetch_one(pool).await.expect("a row")
}

#[sqlx::test(migrations = "./migrations")]
async fn old_deliveries_go_and_what_is_not_over_stays(pool: PgPool) -> sqlx::Result<()> {
    two_tenants(&pool).await?;
    queued(&pool, "green", "a", 1, 0).await?;
    let build = "md5('green/a')::uuid";
    let inbound = "direction, error_message, next_retry_at, build_name, build_id";
    let row = async |number, ago, name: &str, values: &str| delivery(&pool, number, ago, name, inbound, values).await;
    row(1, 31, "none", "'inbound', 'no Build', null, null, null").await;
    row(2, 31, "made", &format!("'inbound', null, null, 'hook-2', {build}")).await;
    row(3, 31, "there", &format!("'inbound', null, null, 'hook-3', {build}")).await;
    row(4, 31, "due", "'inbound', null, now(), 'hook-4', null").await;
    row(5, 31, "undecided", "'inbound', null, now(), null, null").await;
    row(6, 31, "unqueued", "'inbound', null, null, 'hook-6', null").await;
    row(7, 31, "given up", "'inbound', 'refused', null, 'hook-7', null").await;
    row(8, 31, "sent", &format!("'outbound', null, null, null, {build}")).await;
    row(9, 31, "to be sent", &format!("'outbound', null, now(), null, {build}")).await;
    row(10, 29, "young", "'inbound', 'no Build', null, null, null").await;
    row(11, 31, "the last, and old", "'inbound', 'no Build', null, null, null").await;

    let there = [id_of(&pool, "there").await];
    assert_eq!(forget(&pool, Old::Deliveries, days(), &there, 1).await.expect("it works"), 1, "no more than asked for");
    while forget(&pool, Old::Deliveries, days(), &there, 2).await.expect("it works") > 0 {}
    let kept = ["there", "due", "undecided", "unqueued", "to be sent", "young"];
    let mut found = left(&pool, "webhook_deliveries", "delivery_id").await;
    found.sort();
    let mut kept = kept.map(str::to_owned);
    kept.sort();
    assert_eq!(found, kept);
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn the_newest_delivery_and_those_that_the_next_look_needs_stay(pool: PgPool) -> sqlx::Result<()> {
    two_tenants(&pool).await?;
    for (number, ago, name) in [(1, 60, "before"), (2, 40, "since"), (3, 35, "newest")] {
        delivery(&pool, number, ago, name, "direction, error_message", "'inbound', 'no Build'").await;
    }
    sqlx::raw_sql(
        "insert into webhook_polls (webhook_config_id, tenant_id, source, started_at, heads, seen_at)
         values (md5('green')::uuid, md5('green')::uuid, '{}', now(), '{}', now() - interval '50 days')",
    )
    .execute(&pool)
    .await?;
    forget(&pool, Old::Deliveries, days(), &[], 10).await.expect("it works");
    assert_eq!(left(&pool, "webhook_deliveries", "delivery_id").await, ["since", "newest"]);
    sqlx::raw_sql("delete from webhook_polls").execute(&pool).await?;
    forget(&pool, Old::Deliveries, days(), &[], 10).await.expect("it works");
    assert_eq!(left(&pool, "webhook_deliveries", "delivery_id").await, ["newest"]);
    Ok(())
}

#[sqlx::test(migrations = "./migrations")]
async fn old_slots_go_and_what_is_not_over_stays(pool: PgPool) -> sqlx::Result<()> {
    two_tenants(&pool).await?;
    queued(&pool, "green", "a", 1, 0).await?;
    sqlx::raw_sql(
        "insert into schedule_slots (id, tenant_id, schedule_id, slot, created_at, build_name, outcome, message, build_id)
         select uuid_v7_floor(at), md5('green')::uuid, md5('green')::uuid, date_trunc('minute', at), at, name, outcome, message, build
         from (values
             (1, 31, 'made', 'made', null, md5('green/a')::uuid),
             (2, 31, 'there', 'made', null, md5('green/a')::uuid),
             (3, 31, 'unqueued', 'made', null, null),
             (4, 31, 'pending', null, null, null),
             (5, 31, 'skipped', 'skipped', 'why', null),
             (6, 31, 'failed', 'failed', 'why', null),
             (7, 29, 'young', 'skipped', 'why', null)
         ) as v (number, ago, name, outcome, message, build)
         cross join lateral (select now() - make_interval(days => ago, mins => 100 - number)) as t (at)",
    )
    .execute(&pool)
    .await?;
    let there = sqlx::query_scalar("select id from schedule_slots where build_name = 'there'").fetch_one(&pool).await?;
    assert_eq!(forget(&pool, Old::Slots, days(), &[there], 1).await.expect("it works"), 1, "no more than asked for");
    while forget(&pool, Old::Slots, days(), &[there], 10).await.expect("it works") > 0 {}
    assert_eq!(left(&pool, "schedule_slots", "build_name").await, ["there", "unqueued", "pending", "young"]);
    Ok(())
}
