//! What is taken and what is not: what nobody has signed leaves no trace but a number.

use axum::http::StatusCode;
use futures::future::join_all;
use image_factory::{clock, crd::WebhookConfigSpec, db::webhooks::declare};
use image_factory_core::signature;
use serde_json::{Value, json};
use sqlx::{PgPool, postgres::PgPoolOptions};

use super::host::{COMMIT, Host, SECRET, WHSEC, body, causes, fixture, hex_hmac, spec};

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn a_push_of_every_provider_makes_one_build_with_its_commit_pinned(pool: PgPool) {
    let host = Host::new(&pool);
    let providers =
        ["github", "gitlab", "gitlab-standard", "gitea", "forgejo", "bitbucket", "generic", "generic-header"];
    let webhooks: Vec<(&str, WebhookConfigSpec)> = providers
        .into_iter()
        .map(|name| {
            let provider = name.split('-').next().expect("a name");
            let more = match name {
                "gitlab-standard" | "generic" => json!({"secretRef": {"name": "hook", "key": "standard"}}),
                "generic-header" => json!({"generic": {"header": "X-Sum", "prefix": "v0:", "encoding": "hex"}}),
                _ => json!({}),
            };
            (name, spec(provider, &more))
        })
        .collect();
    host.has(1, &webhooks).await;
    let now = clock::now().as_second();
    let standard = |body: &str| {
        let signature = signature::sign(WHSEC.as_bytes(), "msg_1", now, body.as_bytes()).expect("a secret");
        vec![
            ("webhook-id", "msg_1".to_owned()),
            ("webhook-timestamp", now.to_string()),
            ("webhook-signature", signature),
        ]
    };
    for (name, payload, headers) in [
        ("github", "github-push", vec![("x-github-event", "push"), ("x-github-delivery", "d-github")]),
        (
            "gitlab",
            "gitlab-push",
            vec![("x-gitlab-event", "Push Hook"), ("idempotency-key", "d-gitlab"), ("x-gitlab-token", SECRET)],
        ),
        ("gitlab-standard", "gitlab-push", vec![("x-gitlab-event", "Push Hook"), ("x-gitlab-event-uuid", "d-2")]),
        ("gitea", "gitea-push", vec![("x-gitea-event", "push"), ("x-gitea-delivery", "d-gitea")]),
        ("forgejo", "gitea-push", vec![("x-forgejo-event", "push"), ("x-forgejo-delivery", "d-forgejo")]),
        ("bitbucket", "bitbucket-push", vec![("x-event-key", "repo:push"), ("x-request-uuid", "d-bitbucket")]),
        ("generic", "generic-push", vec![]),
        ("generic-header", "generic-push", vec![]),
    ] {
        let body = fixture(payload);
        let hex = hex_hmac(SECRET, &body);
        let mut signed = match name {
            "github" => vec![("x-hub-signature-256", format!("sha256={hex}"))],
            "gitea" => vec![("x-gitea-signature", hex)],
            "forgejo" => vec![("x-forgejo-signature", hex)],
            "bitbucket" => vec![("x-hub-signature", format!("sha256={hex}"))],
            "gitlab-standard" | "generic" => standard(&body),
            "generic-header" => vec![("X-Sum", format!("v0:{hex}"))],
            _ => vec![],
        };
        signed.extend(headers.into_iter().map(|(header, value)| (header, value.to_owned())));
        let headers: Vec<(&str, &str)> = signed.iter().map(|(header, value)| (*header, value.as_str())).collect();
        let path = format!("/hooks/orchard/{name}");
        let answer = host.send(&path, &headers, &body).await;
        assert_eq!(answer.status(), StatusCode::ACCEPTED, "{name}");
        // Again, as hosts do that heard no answer.
        assert_eq!(host.send(&path, &headers, &body).await.status(), StatusCode::ACCEPTED, "{name}");
    }
    assert_eq!(host.rows().await.len(), providers.len(), "each delivery is there once");
    host.deliver().await;
    host.deliver().await;
    let builds = host.cluster.builds();
    assert_eq!(builds.len(), providers.len(), "{:?}", causes(&host.rows().await));
    for build in &builds {
        assert_eq!(build["spec"]["source"]["git"]["revision"], COMMIT);
        let labels = &build["metadata"]["labels"];
        assert_eq!(labels["colour"], "red");
        let name = labels["imagefactory.dev/webhook"].as_str().expect("a label");
        let owner = &build["metadata"]["ownerReferences"][0];
        assert_eq!((&owner["kind"], &owner["uid"]), (&json!("WebhookConfig"), &json!(format!("uid-{name}"))));
        assert!(build["metadata"]["name"].as_str().expect("a name").starts_with(&format!("{name}-")));
    }
    for row in host.rows().await {
        assert_eq!((&row["event_type"], &row["response_status"]), (&json!("push"), &json!(202)));
        assert_eq!((&row["next_retry_at"], &row["error_message"]), (&Value::Null, &Value::Null));
    }
    let asked: Vec<String> =
        host.cluster.requests().into_iter().filter(|request| request.contains("/secrets")).collect();
    assert!(asked.iter().all(|request| request == "GET /api/v1/namespaces/orchard/secrets/hook"), "{asked:?}");
}

/// Each documented payload with its event, and the cause why it makes no Build.
const DOCUMENTED: [(&str, &str, &str, Option<&str>); 27] = [
    ("github", "push", "github-push", None),
    ("github", "push", "github-new-branch", None),
    ("github", "push", "github-tag", None),
    ("github", "push", "github-deleted", Some("was deleted")),
    ("github", "pull_request", "github-pull-request", None),
    ("github", "pull_request", "github-pull-request-fork", Some("its commit is a fork's")),
    ("github", "pull_request", "github-pull-request-closed", Some("\"closed\" brings no new commit")),
    ("github", "release", "github-release", None),
    ("github", "ping", "github-ping", Some("it only tries whether the webhook is there")),
    ("github", "issue_comment", "github-issue-comment", Some("it tells of nothing that makes a Build")),
    ("gitea", "push", "gitea-push", None),
    ("gitea", "create", "gitea-create-tag", Some("it tells of nothing that makes a Build")),
    ("gitea", "pull_request_sync", "gitea-pull-request", None),
    ("forgejo", "push", "gitea-tag", None),
    ("forgejo", "release", "gitea-release", None),
    ("gitlab", "Push Hook", "gitlab-push", None),
    ("gitlab", "Push Hook", "gitlab-push-many", None),
    ("gitlab", "Tag Push Hook", "gitlab-tag", None),
    ("gitlab", "Push Hook", "gitlab-deleted", Some("was deleted")),
    ("gitlab", "Merge Request Hook", "gitlab-merge-request", None),
    ("gitlab", "Merge Request Hook", "gitlab-merge-request-labelled", Some("\"update\" brings no new commit")),
    ("gitlab", "Merge Request Hook", "gitlab-merge-request-fork", Some("its commit is a fork's")),
    ("gitlab", "Release Hook", "gitlab-release", None),
    ("bitbucket", "repo:push", "bitbucket-push", None),
    ("bitbucket", "repo:push", "bitbucket-tag", None),
    ("bitbucket", "repo:push", "bitbucket-deleted", Some("was deleted")),
    ("bitbucket", "pullrequest:created", "bitbucket-pull-request", Some("it names no full commit id")),
];

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn each_documented_payload_is_taken_and_makes_a_build_or_says_why_not(pool: PgPool) {
    let host = Host::new(&pool);
    // A webhook each: they tell of the same commits.
    let all = json!({"events": ["push", "tag", "pull_request", "release"]});
    let webhooks: Vec<(&str, WebhookConfigSpec)> =
        DOCUMENTED.iter().map(|(provider, _, payload, _)| (*payload, spec(provider, &all))).collect();
    host.has(1, &webhooks).await;
    for (provider, event, payload, _) in DOCUMENTED {
        let body = fixture(payload);
        let (hex, prefixed) = (hex_hmac(SECRET, &body), format!("sha256={}", hex_hmac(SECRET, &body)));
        let headers = match provider {
            "github" => [("x-github-event", event), ("x-github-delivery", "1"), ("x-hub-signature-256", &prefixed)],
            "gitea" => [("x-gitea-event", event), ("x-gitea-delivery", "1"), ("x-gitea-signature", &hex)],
            "forgejo" => [("x-forgejo-event", event), ("x-forgejo-delivery", "1"), ("x-forgejo-signature", &hex)],
            "gitlab" => [("x-gitlab-event", event), ("x-gitlab-event-uuid", "1"), ("x-gitlab-token", SECRET)],
            _ => [("x-event-key", event), ("x-request-uuid", "1"), ("x-hub-signature", &prefixed)],
        };
        let answer = host.send(&format!("/hooks/orchard/{payload}"), &headers, &body).await;
        assert_eq!(answer.status(), StatusCode::ACCEPTED, "{payload}");
    }
    host.deliver().await;
    let rows = host.rows().await;
    assert_eq!(rows.len(), DOCUMENTED.len());
    for ((_, _, payload, expected), row) in DOCUMENTED.iter().zip(&rows) {
        let cause = row["error_message"].as_str();
        let is_as_expected = match expected {
            Some(words) => cause.is_some_and(|cause| cause.contains(words)),
            None => cause.is_none() && row["build_name"].as_str().is_some_and(|name| name.starts_with(payload)),
        };
        assert!(is_as_expected, "{payload}: {cause:?}");
    }
    let built = DOCUMENTED.iter().filter(|(.., cause)| cause.is_none()).count();
    assert_eq!(host.cluster.builds().len(), built);
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn what_nobody_has_signed_leaves_no_row_and_is_counted(pool: PgPool) {
    let host = Host::new(&pool);
    let secret = |key: &str| json!({"secretRef": {"name": "hook", "key": key}});
    let absent = json!({"secretRef": {"name": "absent", "key": "now"}});
    host.has(
        1,
        &[
            ("hook", spec("github", &json!({}))),
            ("other", spec("github", &secret("before"))),
            ("empty", spec("github", &secret("none"))),
            ("absent", spec("github", &absent)),
            ("suspended", spec("github", &json!({"suspend": true}))),
            ("standard", spec("gitlab", &secret("standard"))),
        ],
    )
    .await;
    let push = fixture("github-push");
    let right = format!("sha256={}", hex_hmac(SECRET, &push));
    let anew = serde_json::to_string(&serde_json::from_str::<Value>(&push).expect("JSON")).expect("JSON");
    let empty = format!("sha256={}", hex_hmac("", &push));
    let named = [("x-github-event", "push"), ("x-github-delivery", "1")];
    let standard = |age: i64| {
        let at = clock::now().as_second() + age;
        (at.to_string(), signature::sign(WHSEC.as_bytes(), "msg_1", at, push.as_bytes()).expect("a secret"))
    };
    let ((old, old_v1), (early, early_v1)) = (standard(-305), standard(305));
    let timed = |at, v1| vec![("webhook-id", "msg_1"), ("webhook-timestamp", at), ("webhook-signature", v1)];
    let longer = format!("{right}0");
    let sha1 = "sha1=01dc10d0c83e72ed246219cdd91669667fe2ca59";
    let mut first = None;
    for (what, hook, headers, body_sent) in [
        ("no header", "hook", vec![], &*push),
        ("an empty signature", "hook", vec![("x-hub-signature-256", "sha256=")], &push),
        ("63 digits", "hook", vec![("x-hub-signature-256", &right[..right.len() - 1])], &push),
        ("65 digits", "hook", vec![("x-hub-signature-256", &*longer)], &push),
        ("a signature by SHA-1", "hook", vec![("x-hub-signature", sha1), ("x-hub-signature-256", sha1)], &push),
        ("signed too long ago", "standard", timed(&old, &old_v1), &push),
        ("signed at a time to come", "standard", timed(&early, &early_v1), &push),
        ("two headers", "hook", vec![("x-hub-signature-256", &*right), ("x-hub-signature-256", &right)], &push),
        ("one more line break", "hook", vec![("x-hub-signature-256", &right)], &format!("{push}\n")),
        ("JSON that was written anew", "hook", vec![("x-hub-signature-256", &right)], &anew),
        ("another hook's secret", "other", vec![("x-hub-signature-256", &right)], &push),
        ("an empty secret", "empty", vec![("x-hub-signature-256", &empty)], &push),
        ("a Secret that is not there", "absent", vec![("x-hub-signature-256", &empty)], &push),
        ("a webhook that is not there", "nowhere", vec![("x-hub-signature-256", &right)], &push),
        ("a webhook that is suspended", "suspended", vec![("x-hub-signature-256", &right)], &push),
        ("a name that none can have", "Hook%00", vec![("x-hub-signature-256", &right)], &push),
        ("a token in place of Standard Webhooks", "standard", vec![("x-gitlab-token", WHSEC)], &push),
    ] {
        let headers: Vec<_> = headers.into_iter().chain(named).collect();
        let response = host.send(&format!("/hooks/orchard/{hook}"), &headers, body_sent).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{what}");
        let answer = (format!("{:?}", response.headers()), body(response).await);
        assert_eq!(first.get_or_insert_with(|| answer.clone()), &answer, "{what}: all have one answer");
    }
    assert!(host.counted("unsigned"));

    let signed = |body: &str| format!("sha256={}", hex_hmac(SECRET, body));
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(5 * 1024 * 1024));
    let form = [("content-type", "application/x-www-form-urlencoded")];
    for (what, headers, sent, code, word) in [
        ("a form", vec![("x-hub-signature-256", signed(&push))], &*push, 415, "no_json"),
        ("too much", vec![("x-hub-signature-256", signed(&large))], &large, 413, "too_large"),
        ("no JSON", vec![("x-hub-signature-256", signed("{"))], "{", 400, "unreadable"),
        ("no id", vec![("x-hub-signature-256", signed(&push))], &push, 400, "unreadable"),
    ] {
        let mut headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        headers.push(named[0]);
        if what != "no id" {
            headers.push(named[1]);
        }
        if what == "a form" {
            headers.extend(form);
        }
        let response = host.send("/hooks/orchard/hook", &headers, sent).await;
        assert_eq!(response.status().as_u16(), code, "{what}");
        assert!(host.counted(word), "{what}");
    }
    assert_eq!(host.send("/hooks/orchard", &[], &push).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(host.send("/hooks/orchard/hook/more", &[], &push).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(host.rows().await, Vec::<Value>::new());
    // The same, signed.
    assert_eq!(host.push("hook", "1", &push).await, StatusCode::ACCEPTED);
    assert_eq!(host.rows().await.len(), 1);
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn a_secret_can_be_changed_without_losing_deliveries(pool: PgPool) {
    let host = Host::new(&pool);
    let rotating =
        json!({"secretRef": {"name": "hook", "key": "before"}, "previousSecretRef": {"name": "hook", "key": "now"}});
    let gone = json!({"previousSecretRef": {"name": "gone", "key": "now"}});
    host.has(1, &[("hook", spec("github", &rotating)), ("gone", spec("github", &gone))]).await;
    let push = fixture("github-push");
    assert_eq!(host.push("hook", "1", &push).await, StatusCode::ACCEPTED);
    assert_eq!(host.push("gone", "1", &push).await, StatusCode::ACCEPTED);

    // From a token to a secret of Standard Webhooks.
    let rotating =
        json!({"secretRef": {"name": "hook", "key": "standard"}, "previousSecretRef": {"name": "hook", "key": "now"}});
    host.has(2, &[("lab", spec("gitlab", &rotating))]).await;
    let push = fixture("gitlab-push");
    let now = clock::now().as_second();
    let v1 = signature::sign(WHSEC.as_bytes(), "msg_1", now, push.as_bytes()).expect("a secret");
    let now = now.to_string();
    for (id, signed) in [
        ("1", vec![("x-gitlab-token", SECRET)]),
        ("2", vec![("webhook-id", "msg_1"), ("webhook-timestamp", &now), ("webhook-signature", &v1)]),
    ] {
        let headers: Vec<_> =
            signed.into_iter().chain([("x-gitlab-event", "Push Hook"), ("idempotency-key", id)]).collect();
        let answer = host.send("/hooks/orchard/lab", &headers, &push).await;
        assert_eq!(answer.status(), StatusCode::ACCEPTED, "{id}");
    }
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn one_webhook_takes_only_so_much_and_the_next_still_does(pool: PgPool) {
    let host = Host::limited(&pool, 1);
    host.has(1, &[("hook", spec("github", &json!({}))), ("next", spec("github", &json!({})))]).await;
    let push = fixture("github-push");
    for (id, code) in [("1", 202), ("2", 202), ("3", 429)] {
        assert_eq!(host.push("hook", id, &push).await.as_u16(), code);
    }
    // What nobody has signed uses up nothing.
    for _ in 0..5 {
        assert_eq!(host.send("/hooks/orchard/next", &[], &push).await.status(), StatusCode::UNAUTHORIZED);
    }
    assert_eq!(host.push("next", "1", &push).await, StatusCode::ACCEPTED);
    assert!(host.counted("too_many"));
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn deliveries_that_come_together_are_each_a_row_when_they_are_answered(pool: PgPool) {
    let host = Host::new(&pool);
    host.has(1, &[("hook", spec("github", &json!({})))]).await;
    let push = fixture("github-push");
    let ids: Vec<String> = (0..150).map(|id| id.to_string()).collect();
    let answers = join_all(ids.iter().map(|id| host.push("hook", id, &push))).await;
    assert!(answers.iter().all(|answer| *answer == StatusCode::ACCEPTED));
    assert_eq!(host.rows().await.len(), ids.len());
    let transactions: i64 = sqlx::query_scalar("select count(distinct xmin::text) from webhook_deliveries")
        .fetch_one(&pool)
        .await
        .expect("a number");
    assert!(transactions < 50, "{transactions} transactions");
    host.deliver().await;
    assert_eq!(host.cluster.builds().len(), 1, "all tell of one push");
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn large_deliveries_take_turns_and_what_they_say_is_kept_in_bounds(pool: PgPool) {
    let host = Host::new(&pool);
    let webhooks = ["a", "b", "c"].map(|name| (name, spec("github", &json!({}))));
    host.has(1, &webhooks).await;
    let mut push: Value = serde_json::from_str(&fixture("github-push")).expect("JSON");
    push["repository"]["full_name"] = json!("x".repeat(3 * 1024 * 1024));
    let push = push.to_string();
    let all = webhooks.iter().flat_map(|(name, _)| [(*name, "1"), (*name, "2")]);
    let answers = join_all(all.map(|(name, id)| host.push(name, id, &push))).await;
    assert!(answers.iter().all(|answer| *answer == StatusCode::ACCEPTED), "{answers:?}");
    host.deliver().await;
    let rows = host.rows().await;
    assert_eq!(rows.len(), 6);
    for cause in causes(&rows) {
        let cause = cause.expect("another repository");
        assert!(cause.starts_with("it is about repository \"xxx") && cause.len() < 2_000, "{}", cause.len());
    }
}

#[tokio::test]
async fn without_its_database_a_webhook_asks_to_be_told_again() {
    let pool = PgPoolOptions::new()
        .acquire_timeout(std::time::Duration::from_millis(50))
        .connect_lazy("postgres://nobody@127.0.0.1:1/none")
        .expect("an address");
    let host = Host::new(&pool);
    assert_eq!(host.push("hook", "1", "{}").await, StatusCode::SERVICE_UNAVAILABLE);
    assert!(host.counted("unavailable"));
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn the_table_holds_what_is_declared_and_a_deleted_webhook_stays_inactive(pool: PgPool) {
    let host = Host::new(&pool);
    let more = json!({"events": ["push", "tag"], "branches": ["main"]});
    host.has(
        5,
        &[("hook", spec("gitea", &more)), ("other", spec("github", &json!({"autoBuild": false, "template": null})))],
    )
    .await;
    let rows: Vec<Value> = sqlx::query_scalar("select to_jsonb(c) from webhook_configs c order by webhook_name")
        .fetch_all(&pool)
        .await
        .expect("rows");
    let hook = &rows[0];
    for (column, expected) in [
        ("webhook_name", json!("hook")),
        ("webhook_url", json!("https://builds.example.com/hooks/orchard/hook")),
        ("webhook_secret", json!("hook/now")),
        ("event_types", json!(["push", "tag"])),
        ("branch_patterns", json!(["main"])),
        ("auto_build_enabled", json!(true)),
        ("build_method", json!("container")),
        ("is_active", json!(true)),
        ("is_verified", json!(false)),
        ("provider", json!("gitea")),
        ("resource_uid", json!("uid-hook")),
    ] {
        assert_eq!(hook[column], expected, "{column}");
    }
    assert_eq!(hook["build_config_preset"]["spec"]["method"], "container");
    assert_eq!((&rows[1]["build_method"], &rows[1]["build_config_preset"]), (&Value::Null, &Value::Null));

    host.has(6, &[("other", spec("github", &json!({"autoBuild": false, "template": null})))]).await;
    let push = fixture("github-push");
    assert_eq!(host.push("hook", "1", &push).await, StatusCode::UNAUTHORIZED);
    let active: Vec<(String, bool)> = sqlx::query_as("select webhook_name, is_active from webhook_configs order by 1")
        .fetch_all(&pool)
        .await
        .expect("rows");
    assert_eq!(active, [("hook".to_owned(), false), ("other".to_owned(), true)]);
    // An operator that is behind changes nothing.
    assert!(!declare(&pool, &[], 5).await.expect("it works"));

    // It is recorded, and makes nothing.
    assert_eq!(host.push("other", "1", &push).await, StatusCode::ACCEPTED);
    host.deliver().await;
    assert_eq!(causes(&host.rows().await), [Some("spec.autoBuild is false")]);
}
