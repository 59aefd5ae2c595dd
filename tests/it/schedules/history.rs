//! Which ended Builds of a schedule or a webhook are deleted, and which stay.

use image_factory::{db::builds::Resource, tasks::history::prune};
use image_factory_core::{outcome::Outcome, reason::Reason};
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{BUILDS, Fixture, SCHEDULE, hourly};
use crate::attempts::{attempt, failure, finish, limits, queued, success};

const ALL: &str = "/apis/imagefactory.dev/v1alpha1/builds";

/// A Build of the schedule with this UID.
fn build(name: &str, schedule: &str, labels: &Value, annotations: &Value) -> Value {
    let mut build = json!({
        "apiVersion": "imagefactory.dev/v1alpha1", "kind": "Build",
        "metadata": {
            "name": name, "namespace": "green", "uid": format!("uid-green-{name}"), "labels": labels, "annotations": annotations,
            "ownerReferences": [{
                "apiVersion": "imagefactory.dev/v1alpha1", "kind": "BuildSchedule", "name": "hourly", "uid": schedule, "controller": true,
            }],
        },
        "spec": {"method": "container", "source": {}, "output": {"image": "registry.test/green/wall:1"}},
    });
    build["metadata"]["labels"]["imagefactory.dev/schedule"] = json!("hourly");
    build
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn the_oldest_ended_builds_go_and_those_that_a_tool_tracks_stay(pool: PgPool) {
    limits(&pool, 20, 20).await;
    let fixture = Fixture::new(&pool);
    let schedule = hourly(1, &json!({"successfulBuildsHistoryLimit": 1, "failedBuildsHistoryLimit": 2}));
    fixture.server.holds(SCHEDULE, Some(schedule));
    let (won, lost) = (Some(success("registry.test/green/wall:1")), Some(failure(Reason::BuildFailed)));
    let none = json!({});
    let builds: Vec<(Value, Option<Outcome>)> = vec![
        (
            build(
                "helm",
                "uid-hourly",
                &json!({"app.kubernetes.io/managed-by": "Helm"}),
                &json!({"meta.helm.sh/release-name": "a"}),
            ),
            won.clone(),
        ),
        (build("argo", "uid-hourly", &none, &json!({"argocd.argoproj.io/tracking-id": "a:b/c:d/e"})), won.clone()),
        (build("flux", "uid-hourly", &json!({"kustomize.toolkit.fluxcd.io/name": "a"}), &none), lost.clone()),
        (build("other", "another-of-its-name", &none, &none), won.clone()),
        (build("won-1", "uid-hourly", &none, &none), won.clone()),
        (build("lost-1", "uid-hourly", &none, &none), lost.clone()),
        (build("cancelled", "uid-hourly", &none, &none), Some(failure(Reason::Cancelled))),
        (build("won-2", "uid-hourly", &none, &none), won.clone()),
        (build("changed", "uid-hourly", &none, &none), lost.clone()),
        (build("lost-2", "uid-hourly", &none, &none), lost),
        (build("won-3", "uid-hourly", &none, &none), won),
        (build("waits", "uid-hourly", &none, &none), None),
        (build("unqueued", "uid-hourly", &none, &none), None),
    ];
    for (build, outcome) in &builds {
        let name = build["metadata"]["name"].as_str().expect("a name");
        fixture.server.holds(&format!("{BUILDS}/{name}"), Some(build.clone()));
        if name == "unqueued" {
            continue;
        }
        let attempt = attempt("green", name);
        assert_eq!(attempt.resource, Resource { uid: format!("uid-green-{name}"), ..attempt.resource.clone() });
        let id = queued(&pool, &attempt).await;
        if let Some(outcome) = outcome {
            image_factory::db::queue::claim(&pool).await.expect("it can be claimed");
            assert!(finish(&pool, id, outcome).await);
        }
    }
    let items: Vec<Value> = builds.into_iter().map(|(build, _)| build).collect();
    let list = json!({"apiVersion": "v1", "kind": "PartialObjectMetadataList", "metadata": {"resourceVersion": "1"}, "items": items});
    fixture.server.holds(ALL, Some(list));
    // A tool has made it its own since the list was read.
    let adopted = build("changed", "uid-hourly", &json!({"app.kubernetes.io/managed-by": "Helm"}), &json!({}));
    fixture.server.holds(&format!("{BUILDS}/changed"), Some(adopted));

    for _ in 0..2 {
        prune(fixture.context.clone()).await.expect("no error");
    }
    let left = fixture.server.below(BUILDS);
    let mut left: Vec<&str> = left.iter().filter_map(|path| path.rsplit('/').next()).collect();
    left.sort_unstable();
    assert_eq!(left, ["argo", "changed", "flux", "helm", "lost-2", "other", "unqueued", "waits", "won-3"]);
    let rows: i64 =
        sqlx::query_scalar("select count(*) from builds").fetch_one(&pool).await.expect("rows can be counted");
    assert_eq!(rows, 12, "every row stays");
}

#[sqlx::test(migrator = "image_factory::db::MIGRATIONS")]
async fn a_webhook_keeps_as_many_of_its_own(pool: PgPool) {
    limits(&pool, 20, 20).await;
    let fixture = Fixture::new(&pool);
    let webhook = json!({
        "apiVersion": "imagefactory.dev/v1alpha1", "kind": "WebhookConfig",
        "metadata": {"name": "hook", "namespace": "green", "uid": "uid-hook"}, "spec": {"successfulBuildsHistoryLimit": 1},
    });
    fixture.server.holds("/apis/imagefactory.dev/v1alpha1/namespaces/green/webhookconfigs/hook", Some(webhook));
    let mut items = Vec::new();
    for (name, owner) in [("old", "uid-hook"), ("other", "another-of-its-name"), ("new", "uid-hook")] {
        let mut made = build(name, owner, &json!({}), &json!({}));
        made["metadata"]["ownerReferences"][0]["kind"] = json!("WebhookConfig");
        made["metadata"]["ownerReferences"][0]["name"] = json!("hook");
        made["metadata"]["labels"] = json!({"imagefactory.dev/webhook": "hook"});
        fixture.server.holds(&format!("{BUILDS}/{name}"), Some(made.clone()));
        items.push(made);
        let id = queued(&pool, &attempt("green", name)).await;
        image_factory::db::queue::claim(&pool).await.expect("it can be claimed");
        assert!(finish(&pool, id, &success("registry.test/green/wall:1")).await);
    }
    let list = json!({"apiVersion": "v1", "kind": "PartialObjectMetadataList", "metadata": {"resourceVersion": "1"}, "items": items});
    fixture.server.holds(ALL, Some(list));
    prune(fixture.context.clone()).await.expect("no error");
    let left = fixture.server.below(BUILDS);
    let left: Vec<&str> = left.iter().filter_map(|path| path.rsplit('/').next()).collect();
    assert_eq!(left, ["new", "other"]);
}
