//! From a delivery to its Build, whatever breaks in between.

use image_factory::{
    clock,
    db::{self, queue::claim, webhooks::statuses},
};
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{
    cluster::Failure,
    host::{COMMIT, Host, causes, fixture, spec},
};
use crate::attempts::{finish, limits, success};

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn the_same_event_makes_one_build_a_day_and_one_more_when_it_is_asked_for(pool: PgPool) {
    let host = Host::new(&pool);
    host.has(1, &[("hook", spec("github", &json!({})))]).await;
    let push = fixture("github-push");
    host.push("hook", "1", &push).await;
    host.deliver().await;
    host.push("hook", "2", &push).await;
    host.deliver().await;
    let rows = host.rows().await;
    assert_eq!(causes(&rows), [None, Some("the same was delivered before")]);
    assert_eq!(host.cluster.builds().len(), 1);

    assert!(!db::deliveries::redeliver(&pool, "orchard", "hook", "3").await.expect("it works"));
    assert!(!db::deliveries::redeliver(&pool, "meadow", "hook", "1").await.expect("it works"));
    assert!(db::deliveries::redeliver(&pool, "orchard", "hook", "1").await.expect("it works"));
    host.deliver().await;
    assert_eq!(host.cluster.builds().len(), 2);
    let row = host.rows().await.pop().expect("a row");
    assert_eq!((&row["delivery_id"], &row["attempt_number"]), (&json!("1"), &json!(2)));

    // After a day it is another event.
    sqlx::query("update webhook_deliveries set created_at = created_at - interval '25 hours'")
        .execute(&pool)
        .await
        .expect("time passes");
    host.push("hook", "4", &push).await;
    host.deliver().await;
    assert_eq!(host.cluster.builds().len(), 3);
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn a_build_that_was_made_unheard_is_not_made_twice(pool: PgPool) {
    let host = Host::new(&pool);
    host.has(1, &[("hook", spec("github", &json!({})))]).await;
    host.push("hook", "1", &fixture("github-push")).await;
    host.cluster.fails(Some(Failure::AnswerLost));
    host.deliver().await;
    let rows = host.rows().await;
    assert_eq!(causes(&rows), [Some("InternalError"), None], "a try that failed, and the next");
    assert_eq!(rows[1]["attempt_number"], 2);
    assert_eq!(rows[1]["build_name"], rows[0]["build_name"]);
    host.cluster.fails(None);
    host.deliver().await;
    assert_eq!(host.rows().await[1]["next_retry_at"], rows[1]["next_retry_at"], "not before its time");
    host.due_now().await;
    host.deliver().await;
    let rows = host.rows().await;
    assert_eq!((rows.len(), &rows[1]["next_retry_at"], &rows[1]["error_message"]), (2, &Value::Null, &Value::Null));
    let builds = host.cluster.builds();
    assert_eq!(builds.len(), 1);

    // Its first attempt belongs to the try that made it.
    let build = host.queue(&builds[0]).await;
    assert_eq!(host.rows().await[0]["build_id"], json!(build));
    // Killed after a Build was made and before that was noted: its row knows it by then.
    sqlx::query("update webhook_deliveries set next_retry_at = now() where attempt_number = 2")
        .execute(&pool)
        .await
        .expect("due");
    host.deliver().await;
    assert_eq!((host.cluster.builds().len(), host.rows().await.len()), (1, 2));
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn a_build_that_was_made_unheard_holds_up_the_next_until_it_has_ended_and_no_longer(pool: PgPool) {
    let host = Host::new(&pool);
    limits(&pool, 10, 10).await;
    host.has(1, &[("hook", spec("github", &json!({})))]).await;
    host.push("hook", "1", &fixture("github-push")).await;
    host.cluster.fails(Some(Failure::AnswerLost));
    host.deliver_on().await;
    host.cluster.fails(None);
    let build = host.queue(&host.cluster.builds()[0]).await;
    host.push("hook", "2", &moved(COMMIT, &"7".repeat(40))).await;
    host.due_now().await;
    host.deliver_on().await;
    assert_eq!(host.cluster.builds().len(), 1, "it has not ended");
    claim(&pool).await.expect("it works");
    finish(&pool, build, &success("registry.test/shop/web:1")).await;
    host.deliver_on().await;
    assert_eq!(host.cluster.builds().len(), 2);
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn a_build_that_can_not_be_made_is_given_up_for_all_to_see(pool: PgPool) {
    let host = Host::new(&pool);
    host.has(1, &[("hook", spec("github", &json!({})))]).await;
    let push = fixture("github-push");
    host.push("hook", "refused", &push).await;
    host.cluster.fails(Some(Failure::Refused));
    host.deliver().await;
    assert_eq!(causes(&host.rows().await), [Some("Invalid")], "what is refused for what it is, is not tried again");
    let events = host.cluster.events();
    assert_eq!(events.len(), 1);
    assert_eq!((&events[0]["reason"], &events[0]["regarding"]["name"]), (&json!("BuildNotMade"), &json!("hook")));

    host.push("hook", "down", &fixture("github-new-branch")).await;
    host.cluster.fails(Some(Failure::Down));
    for _ in 0..10 {
        host.due_now().await;
        host.deliver().await;
    }
    let rows = host.rows().await;
    assert_eq!(rows.len(), 1 + 8, "a row a try");
    assert!(rows.iter().all(|row| row["next_retry_at"].is_null() && row["error_message"].is_string()));
    assert_eq!(host.cluster.events().len(), 2);
    let status: String =
        sqlx::query_scalar("select last_delivery_status from webhook_configs").fetch_one(&pool).await.expect("a row");
    assert_eq!(status, "failed");
}

/// A webhook whose delivery `1` could not be made into a Build at the first try.
async fn after_a_try_in_vain(pool: &PgPool) -> Host {
    let host = Host::new(pool);
    host.has(1, &[("hook", spec("github", &json!({})))]).await;
    host.push("hook", "1", &fixture("github-push")).await;
    host.cluster.fails(Some(Failure::Down));
    host.deliver().await;
    host.cluster.fails(None);
    host
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn a_build_of_its_name_that_was_made_for_nothing_of_ours_counts_as_none(pool: PgPool) {
    let host = after_a_try_in_vain(&pool).await;
    let name = host.rows().await[0]["build_name"].clone();
    host.cluster.has_build(json!({
        "apiVersion": "imagefactory.dev/v1alpha1", "kind": "Build",
        "metadata": {"name": name, "namespace": "orchard", "uid": "1", "annotations": {"imagefactory.dev/origin": clock::new_id()}},
        "spec": {"method": "container", "source": {"inline": {"files": {"Dockerfile": "FROM scratch"}}}, "output": {"image": "a/b:1"}},
    }));
    host.due_now().await;
    host.deliver().await;
    let rows = host.rows().await;
    let cause = rows[1]["error_message"].as_str().expect("a sentence");
    assert!(cause.contains("was not made for this delivery") && rows[1]["next_retry_at"].is_null(), "{cause}");
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn the_rows_of_a_build_say_what_was_pushed(pool: PgPool) {
    let host = Host::new(&pool);
    host.has(1, &[("hook", spec("github", &json!({})))]).await;
    host.push("hook", "ripe", &fixture("github-push")).await;
    host.deliver().await;
    let build = host.queue(&host.cluster.builds()[0]).await;
    let row = crate::attempts::row(&pool, build).await;
    let said = ["triggered_by_git_event", "git_commit", "git_branch", "git_author", "git_message"]
        .map(|column| row[column].clone());
    assert_eq!(
        said,
        ["push", COMMIT, "main", "Pomona Orchard <pomona@example.com>", "Ripen the apples"].map(Value::from)
    );
    let trigger: (String, String) =
        sqlx::query_as("select trigger_type, trigger_source from build_triggers where build_id = $1")
            .bind(build)
            .fetch_one(&pool)
            .await
            .expect("a trigger");
    assert_eq!(trigger, ("webhook".to_owned(), "hook ripe".to_owned()));
    let told = statuses(&pool, &["uid-hook".to_owned()]).await.expect("a row");
    let told = &told["uid-hook"];
    assert!(told.is_verified);
    let newest = told.newest.as_ref().expect("a delivery");
    assert_eq!((&*newest.delivery_id, newest.build_name.is_some(), newest.next_retry_at), ("ripe", true, None));
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn a_newer_commit_takes_the_place_of_an_older_one_of_its_branch(pool: PgPool) {
    let host = Host::new(&pool);
    let superseding = spec("github", &json!({"supersede": true}));
    let webhooks = [("hook", superseding.clone()), ("side", superseding), ("kept", spec("github", &json!({})))];
    host.has(1, &webhooks).await;
    let push = fixture("github-push");
    let newer = push.replace(COMMIT, &"7".repeat(40));
    let other = newer.replace("refs/heads/main", "refs/heads/harvest");
    for (hook, id, body) in [("hook", "1", &push), ("side", "2", &other), ("kept", "3", &push)] {
        host.push(hook, id, body).await;
    }
    host.deliver().await;
    for build in host.cluster.builds() {
        host.queue(&build).await;
    }
    host.push("hook", "4", &newer).await;
    host.push("kept", "5", &newer).await;
    host.push("side", "6", &newer).await;
    host.deliver().await;
    let ended = "select d.delivery_id, b.status, coalesce(b.cancel_reason, '') from builds b
                 join webhook_deliveries d on d.build_id = b.id order by 1";
    let ended: Vec<(String, String, String)> = sqlx::query_as(ended).fetch_all(&pool).await.expect("rows");
    let line = |id: &str, status: &str, reason: &str| (id.to_owned(), status.to_owned(), reason.to_owned());
    assert_eq!(ended, [line("1", "cancelled", "Superseded"), line("2", "queued", ""), line("3", "queued", "")]);
}

/// A push of the branch from one commit to another.
fn moved(before: &str, commit: &str) -> String {
    let mut body: Value = serde_json::from_str(&fixture("github-push")).expect("JSON");
    body["before"] = json!(before);
    body.to_string().replace(COMMIT, commit)
}

fn revisions(host: &Host) -> Vec<String> {
    let revision = |build: &Value| build["spec"]["source"]["git"]["revision"].as_str().unwrap_or_default().to_owned();
    let mut revisions: Vec<String> = host.cluster.builds().iter().map(revision).collect();
    revisions.sort();
    revisions
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn two_quick_pushes_are_built_one_after_the_other(pool: PgPool) {
    let host = Host::new(&pool);
    limits(&pool, 10, 10).await;
    host.has(1, &[("hook", spec("github", &json!({}))), ("other", spec("github", &json!({})))]).await;
    let (zero, first, second) = ("0".repeat(40), "1".repeat(40), "2".repeat(40));
    for (hook, id, before, commit) in
        [("hook", "1", &zero, &first), ("hook", "2", &first, &second), ("other", "3", &first, &second)]
    {
        host.push(hook, id, &moved(before, commit)).await;
    }
    for _ in 0..3 {
        host.deliver_on().await;
        assert_eq!(revisions(&host), [first.clone(), second.clone()], "one of each webhook, the older first");
    }
    let builds = host.cluster.builds();
    let build =
        builds.iter().find(|build| build["spec"]["source"]["git"]["revision"] == json!(first)).expect("it is there");
    let build = host.queue(build).await;
    host.deliver().await;
    assert_eq!(host.cluster.builds().len(), 2, "it waits in the queue");
    claim(&pool).await.expect("it can be claimed");
    host.deliver().await;
    assert_eq!(host.cluster.builds().len(), 2, "it runs");
    finish(&pool, build, &success("registry.test/shop/web:1")).await;
    host.deliver_on().await;
    assert_eq!(revisions(&host), [first, second.clone(), second]);
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn an_older_commit_is_never_built_after_a_newer_one(pool: PgPool) {
    let host = Host::new(&pool);
    host.has(1, &[("hook", spec("github", &json!({})))]).await;
    let [zero, first, second, third, refused] = ["0", "1", "2", "3", "4"].map(|digit| digit.repeat(40));
    // Delivered in the wrong order.
    host.push("hook", "2", &moved(&first, &second)).await;
    host.deliver().await;
    host.push("hook", "1", &moved(&zero, &first)).await;
    host.deliver().await;
    assert_eq!(revisions(&host), std::slice::from_ref(&second));
    let outdated = "a newer commit was delivered before it was built";
    assert_eq!(causes(&host.rows().await), [None, Some(outdated)]);
    // Somebody puts the branch back.
    host.push("hook", "3", &moved(&second, &first)).await;
    host.deliver().await;
    assert_eq!(revisions(&host), [first.clone(), second.clone()]);

    // One that could not be made, and then the next could.
    host.cluster.fails(Some(Failure::Down));
    host.push("hook", "4", &moved(&first, &refused)).await;
    host.deliver().await;
    host.cluster.fails(None);
    host.push("hook", "5", &moved(&refused, &third)).await;
    host.deliver().await;
    host.due_now().await;
    host.deliver().await;
    assert_eq!(revisions(&host), [first, second, third]);
    let rows = host.rows().await;
    assert_eq!(rows.iter().filter(|row| row["error_message"] == outdated).count(), 2);
    // Asked for, it is built all the same.
    assert!(db::deliveries::redeliver(&pool, "orchard", "hook", "1").await.expect("it works"));
    host.deliver().await;
    assert_eq!(host.cluster.builds().len(), 4);
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn of_many_pushes_that_take_each_others_place_the_last_is_built(pool: PgPool) {
    let host = Host::new(&pool);
    host.has(1, &[("hook", spec("github", &json!({"supersede": true})))]).await;
    let commits = ["0", "1", "2", "3", "4"].map(|digit| digit.repeat(40));
    for (id, pair) in commits.windows(2).enumerate() {
        host.push("hook", &id.to_string(), &moved(&pair[0], &pair[1])).await;
    }
    host.deliver_on().await;
    assert_eq!(revisions(&host), commits[4..]);
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn nothing_is_made_any_more_of_what_waits_when_its_webhook_is_suspended_or_deleted(pool: PgPool) {
    let host = Host::new(&pool);
    let hook = spec("github", &json!({}));
    host.has(1, &[("suspended", hook.clone()), ("deleted", hook)]).await;
    let [zero, first, second] = ["0", "1", "2"].map(|digit| digit.repeat(40));
    for name in ["suspended", "deleted"] {
        host.push(name, "1", &moved(&zero, &first)).await;
        host.push(name, "2", &moved(&first, &second)).await;
    }
    host.deliver_on().await;
    assert_eq!(host.cluster.builds().len(), 2, "the next wait for these");
    host.has(2, &[("suspended", spec("github", &json!({"suspend": true})))]).await;
    for _ in 0..3 {
        host.deliver().await;
    }
    assert_eq!(host.cluster.builds().len(), 2);
    let inactive = Some("the WebhookConfig is suspended, or no longer there");
    assert_eq!(causes(&host.rows().await), [None, inactive, None, inactive]);
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn a_delivery_that_can_not_be_read_holds_up_no_other(pool: PgPool) {
    let host = Host::new(&pool);
    host.has(1, &[("hook", spec("github", &json!({})))]).await;
    host.push("hook", "odd", &fixture("github-tag")).await;
    // As an operator of a later version may have written it.
    let unheard = r#"update webhook_deliveries set event = event || '{"kind": "merge_queue"}'"#;
    sqlx::query(unheard).execute(&pool).await.expect("a row");
    host.push("hook", "plain", &fixture("github-push")).await;
    host.deliver().await;
    assert_eq!(host.cluster.builds().len(), 1);
    let rows = host.rows().await;
    let cause = rows[0]["error_message"].as_str().expect("a sentence");
    assert!(cause.contains("webhook_deliveries.event: unknown variant"), "{cause}");
    assert!(rows.iter().all(|row| row["next_retry_at"].is_null()), "{rows:#?}");
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn what_is_asked_for_again_while_a_try_is_to_come_is_built_once(pool: PgPool) {
    let host = after_a_try_in_vain(&pool).await;
    assert!(db::deliveries::redeliver(&pool, "orchard", "hook", "1").await.expect("it works"));
    // Again before anything is decided of it.
    assert!(db::deliveries::redeliver(&pool, "orchard", "hook", "1").await.expect("it works"));
    for _ in 0..3 {
        host.due_now().await;
        host.deliver().await;
    }
    assert_eq!(host.cluster.builds().len(), 1);
    let rows = host.rows().await;
    let replaced = Some("it was delivered again before it was built");
    assert_eq!(causes(&rows), [Some("InternalError"), replaced, replaced, None]);
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn what_is_asked_for_again_is_tried_as_often_as_what_is_new(pool: PgPool) {
    let host = Host::new(&pool);
    host.has(1, &[("hook", spec("github", &json!({})))]).await;
    host.cluster.fails(Some(Failure::Down));
    host.push("hook", "1", &fixture("github-push")).await;
    for tries in [8, 16] {
        for _ in 0..10 {
            host.deliver().await;
            host.due_now().await;
        }
        let rows = host.rows().await;
        assert_eq!(rows.len(), tries, "a row a try, however often it was tried before");
        assert!(rows.iter().all(|row| row["next_retry_at"].is_null()), "and then it is given up");
        assert!(db::deliveries::redeliver(&pool, "orchard", "hook", "1").await.expect("it works"));
    }
}
