//! From a look at branch heads to the Build of a commit that nobody delivered, beside deliveries that come all the same.

use std::time::Duration;

use image_factory::db::{
    polls::{self, begin, polling, settle, under_way},
    webhooks::statuses,
};
use image_factory_core::trigger::heads::Heads;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use super::host::{COMMIT, Host, causes, fixture, spec};

const OLD: &str = "1111111111111111111111111111111111111111";
const MINUTE: Duration = Duration::from_mins(1);

fn heads(list: &[(&str, &str)]) -> Heads {
    list.iter().map(|(branch, commit)| ((*branch).to_owned(), (*commit).to_owned())).collect()
}

fn polled(more: &Value) -> image_factory::crd::WebhookConfigSpec {
    let mut all = json!({"poll": {"interval": "1m"}});
    all.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    spec("github", &all)
}

/// Begins the look that is due, a minute after the last.
async fn begun(pool: &PgPool) -> Uuid {
    let past = "update webhook_polls set started_at = started_at - interval '1 minute', seen_at = seen_at - interval '1 minute';
                update webhook_deliveries set created_at = created_at - interval '1 minute'";
    sqlx::raw_sql(past).execute(pool).await.expect("time passes");
    let due: Vec<(Uuid, Duration)> =
        polling(pool).await.expect("rows").iter().map(|one| (one.webhook, MINUTE)).collect();
    begin(pool, &due).await.expect("they begin");
    let looks = under_way(pool).await.expect("rows");
    assert_eq!(looks.len(), 1);
    looks[0].id
}

/// A whole look; gives how many deliveries it made.
async fn looked(host: &Host, seen: &[(&str, &str)]) -> usize {
    let look = begun(&host.pool).await;
    let found = settle(&host.pool, look, &Ok(heads(seen))).await.expect("it ends").expect("it was under way");
    host.deliver().await;
    found
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn a_head_that_moved_undelivered_is_built_and_the_first_look_builds_nothing(pool: PgPool) {
    let host = Host::new(&pool);
    host.has(1, &[("hook", polled(&json!({"branches": ["main"]})))]).await;
    assert_eq!(looked(&host, &[("main", OLD)]).await, 0);
    assert_eq!(looked(&host, &[("main", OLD)]).await, 0);
    assert_eq!(looked(&host, &[("main", COMMIT)]).await, 1);
    assert_eq!(looked(&host, &[("main", COMMIT)]).await, 0);
    let builds = host.cluster.builds();
    assert_eq!(builds.len(), 1);
    assert_eq!(builds[0]["spec"]["source"]["git"]["revision"], COMMIT);

    let build = host.queue(&builds[0]).await;
    let trigger: (String, String) =
        sqlx::query_as("select trigger_type, trigger_source from build_triggers where build_id = $1")
            .bind(build)
            .fetch_one(&pool)
            .await
            .expect("a trigger");
    assert_eq!(trigger, ("git_event".to_owned(), format!("main {COMMIT}")));
    let row = crate::attempts::row(&pool, build).await;
    assert_eq!((&row["git_commit"], &row["git_branch"]), (&json!(COMMIT), &json!("main")));
    let told = &statuses(&pool, &["uid-hook".to_owned()]).await.expect("a row")["uid-hook"];
    assert!(!told.is_verified, "nobody has signed anything");
    assert!(told.polled.as_ref().is_some_and(|(_, error)| error.is_none()));
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn one_commit_makes_one_build_whoever_is_first(pool: PgPool) {
    let host = Host::new(&pool);
    host.has(1, &[("hook", polled(&json!({})))]).await;
    let push = fixture("github-push");
    looked(&host, &[("main", OLD)]).await;

    // Delivered, then seen.
    host.push("hook", "1", &push).await;
    assert_eq!(looked(&host, &[("main", COMMIT)]).await, 0);
    assert_eq!(host.cluster.builds().len(), 1);

    // Seen, then delivered, with another commit before than the look knows.
    let next = "7".repeat(40);
    assert_eq!(looked(&host, &[("main", &next)]).await, 1);
    host.push("hook", "2", &push.replace(COMMIT, &next)).await;
    host.deliver().await;
    assert_eq!(causes(&host.rows().await), [None, None, Some("the same was delivered before")]);

    // Both at once, before anything is decided of either.
    let third = "8".repeat(40);
    let look = begun(&pool).await;
    assert_eq!(settle(&pool, look, &Ok(heads(&[("main", &third)]))).await.expect("it ends"), Some(1));
    host.push("hook", "3", &push.replace(COMMIT, &third)).await;
    host.deliver().await;
    assert_eq!(host.cluster.builds().len(), 3);

    // What its push asks not to be built is not built by a look either.
    let fourth = "9".repeat(40);
    host.push("hook", "4", &push.replace(COMMIT, &fourth).replace("Ripen the apples", "Ripen [skip ci]")).await;
    assert_eq!(looked(&host, &[("main", &fourth)]).await, 0);
    assert_eq!(host.cluster.builds().len(), 3);
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn a_branch_that_is_put_back_is_built_again(pool: PgPool) {
    let host = Host::new(&pool);
    host.has(1, &[("hook", polled(&json!({})))]).await;
    let push = fixture("github-push");
    let back = |before: &str| {
        let mut body: Value = serde_json::from_str(&push).expect("JSON");
        body["before"] = json!(before);
        body.to_string()
    };
    looked(&host, &[("main", OLD)]).await;
    assert_eq!(looked(&host, &[("main", COMMIT)]).await, 1);
    let other = "7".repeat(40);
    assert_eq!(looked(&host, &[("main", &other)]).await, 1);
    host.push("hook", "1", &back(&other)).await;
    host.deliver().await;
    assert_eq!(host.cluster.builds().len(), 3, "delivered");
    assert_eq!(looked(&host, &[("main", COMMIT)]).await, 0);
    assert_eq!(looked(&host, &[("main", &other)]).await, 1);
    assert_eq!(looked(&host, &[("main", COMMIT)]).await, 1);
    assert_eq!(host.cluster.builds().len(), 5, "seen");
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn what_was_not_looked_at_before_has_not_moved(pool: PgPool) {
    let host = Host::new(&pool);
    let elsewhere = polled(&json!({"branches": ["main", "side"]}));
    host.has(1, &[("hook", polled(&json!({"branches": ["main"]})))]).await;
    looked(&host, &[("main", OLD)]).await;
    // More branches: all that is on them would look new.
    host.has(2, &[("hook", elsewhere.clone())]).await;
    assert_eq!(looked(&host, &[("main", OLD), ("side", COMMIT)]).await, 0);
    // What happened while it was suspended was asked not to be built.
    host.has(3, &[("hook", polled(&json!({"branches": ["main", "side"], "suspend": true})))]).await;
    assert_eq!(polling(&pool).await.expect("rows"), []);
    host.has(4, &[("hook", elsewhere)]).await;
    assert_eq!(looked(&host, &[("main", COMMIT), ("side", COMMIT)]).await, 0);
    assert_eq!(looked(&host, &[("main", COMMIT), ("side", OLD)]).await, 1);
    // Gone while a look was under way.
    let look = begun(&pool).await;
    host.has(5, &[]).await;
    polling(&pool).await.expect("rows");
    assert_eq!(settle(&pool, look, &Ok(heads(&[("main", OLD)]))).await.expect("it ends"), None);
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn two_operators_take_one_look_and_end_it_once(pool: PgPool) {
    let host = Host::new(&pool);
    host.has(1, &[("hook", polled(&json!({})))]).await;
    let look = begun(&pool).await;
    assert_eq!(begun(&pool).await, look, "one is under way");
    assert_eq!(settle(&pool, look, &Err("the server is away".to_owned())).await.expect("it ends"), Some(0));
    assert_eq!(settle(&pool, look, &Ok(heads(&[("main", OLD)]))).await.expect("it ends"), None);
    let told = &statuses(&pool, &["uid-hook".to_owned()]).await.expect("a row")["uid-hook"];
    assert_eq!(told.polled.as_ref().and_then(|(_, error)| error.as_deref()), Some("the server is away"));
    let again: Vec<(Uuid, Duration)> =
        polling(&pool).await.expect("rows").iter().map(|one| (one.webhook, Duration::from_mins(5))).collect();
    polls::begin(&pool, &again).await.expect("it works");
    assert!(under_way(&pool).await.expect("rows").is_empty(), "not before its time");
    // A look that failed has seen nothing: the next is the first.
    assert_eq!(looked(&host, &[("main", COMMIT)]).await, 0);
}
