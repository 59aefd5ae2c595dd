//! Schedules: their Builds come at their times and when they are asked for, not beside one that runs where that is
//! forbidden, and not for ever.

use image_factory::crd::BuildSchedule;
use image_factory_core::labels;
use k8s_openapi::api::{core::v1::ResourceQuota, events::v1::Event};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::{Value, json};

use super::{
    rows,
    tenant::{Tenant, phase, status, tenant},
    watching,
};

const TICKING: &str = "FROM BASE\nRUN for i in $(seq 1 9999); do echo \"tick $i\"; sleep 0.1; done\n";

fn told(schedule: &BuildSchedule) -> Value {
    serde_json::to_value(&schedule.status).expect("a status is JSON")
}

/// Waits until a schedule's status is as it should.
async fn until(tenant: &Tenant, name: &str, what: &str, reached: impl Fn(&Value) -> bool) -> Value {
    let reached = |schedule: Option<&BuildSchedule>| schedule.is_some_and(|schedule| reached(&told(schedule)));
    let schedule = watching::until(&tenant.schedules(), name, what, reached).await;
    told(&schedule.expect("it is there"))
}

/// What became of a schedule's slots, oldest first.
async fn outcomes(tenant: &Tenant) -> Vec<Option<String>> {
    sqlx::query_scalar(
        "select s.outcome from schedule_slots s join tenants t on t.id = s.tenant_id where t.name = $1 order by s.id",
    )
    .bind(&tenant.namespace)
    .fetch_all(&tenant.pool)
    .await
    .expect("slots can be read")
}

/// Waits for an Event about a schedule.
async fn event(tenant: &Tenant, reason: &str) -> Event {
    let events: Api<Event> = Api::namespaced(tenant.client.clone(), &tenant.namespace);
    watching::eventually(&format!("an Event {reason}"), async || {
        let about = ListParams::default().fields("regarding.kind=BuildSchedule");
        let events = events.list(&about).await.expect("Events can be listed").items;
        events.into_iter().find(|event| event.reason.as_deref() == Some(reason))
    })
    .await
}

#[tokio::test]
async fn a_schedule_makes_a_build_each_minute_that_runs_and_says_why() {
    tenant("every-minute", "baseline", async |tenant| {
        let build = tenant.manifest("cider", "container", "FROM BASE\nRUN echo hello\n");
        let fields = json!({"cron": "* * * * *", "concurrencyPolicy": "Forbid", "successfulBuildsHistoryLimit": 2});
        tenant.apply_schedule(&tenant.schedule("minutely", &build, &fields)).await;
        let status = until(tenant, "minutely", "its next time", |status| !status["nextTriggerAt"].is_null()).await;
        assert_eq!(status["description"], "Every minute (UTC)");
        let slot: jiff::Timestamp = status["nextTriggerAt"].as_str().and_then(|at| at.parse().ok()).expect("a time");
        assert_eq!(slot.as_second() % 60, 0);

        let build = tenant.scheduled_build("minutely", 1).await;
        let name = format!("minutely-{}", slot.as_second() / 60);
        assert_eq!(build.name_any(), name);
        let owner = &build.owner_references()[0];
        assert_eq!(
            (owner.kind.as_str(), owner.name.as_str(), owner.controller),
            ("BuildSchedule", "minutely", Some(true))
        );
        let build = tenant.finished(&name, 1).await;
        assert_eq!(phase(&build), "Success", "{:#}", self::status(&build));
        let attempts = tenant.attempts(&build).await;
        let id = rows::id(&attempts[0]);
        let trigger = rows::build_triggers(&tenant.pool, id).await;
        assert_eq!(trigger["trigger_type"], "schedule");
        assert_eq!(trigger["trigger_source"], format!("minutely {slot}"));
        let (of, row): (uuid::Uuid, Value) = sqlx::query_as(
            "select s.build_id, to_jsonb(c) from schedule_slots s join build_schedules c on c.id = s.schedule_id
             where s.build_name = $1 and c.tenant_id = (select tenant_id from builds where id = $2)",
        )
        .bind(&name)
        .bind(id)
        .fetch_one(&tenant.pool)
        .await
        .expect("the slot has a row");
        assert_eq!(of, id);
        assert_eq!(
            (&row["is_active"], &row["build_method"], &row["timezone"]),
            (&json!(true), &json!("container"), &json!("UTC"))
        );
        event(tenant, "Made").await;
        let status = until(tenant, "minutely", "its last Build", |status| !status["lastBuild"].is_null()).await;
        assert!(status["lastBuild"].as_str().is_some_and(|last| last >= name.as_str()), "{status:#}");
        assert!(status["lastTriggeredAt"].as_str() >= Some(slot.to_string().as_str()), "{status:#}");
        assert!(status["nextTriggerAt"].as_str() > Some(slot.to_string().as_str()), "{status:#}");

        // Its Builds go with it, and no row.
        tenant.schedules().delete("minutely", &DeleteParams::default()).await.expect("it can be deleted");
        watching::eventually("the end of its Builds", async || {
            tenant.scheduled("minutely").await.is_empty().then_some(())
        })
        .await;
        watching::eventually("its row to act no more", async || {
            let active: bool = sqlx::query_scalar("select is_active from build_schedules where id = $1::text::uuid")
                .bind(row["id"].as_str())
                .fetch_one(&tenant.pool)
                .await
                .expect("the row is there");
            (!active).then_some(())
        })
        .await;
        assert_eq!(rows::build_results(&tenant.pool, id).await["status"], "success");
    })
    .await;
}

#[tokio::test]
async fn a_build_is_made_now_once_a_value_also_while_suspended() {
    tenant("run-now", "baseline", async |tenant| {
        let build = tenant.manifest("cider", "container", "FROM BASE\n");
        let suspended = tenant.schedule("yearly", &build, &json!({"cron": "* * * * *", "suspend": true}));
        tenant.apply_schedule(&suspended).await;
        let reason = |status: &Value| status["conditions"][0]["reason"].clone();
        let told = until(tenant, "yearly", "that it is suspended", |status| reason(status) == "Suspended").await;
        assert_eq!(told["nextTriggerAt"], Value::Null);
        for (value, number) in [("monday", 1), ("monday", 1), ("tuesday", 2)] {
            tenant.run_now("yearly", value).await;
            let build = tenant.scheduled_build("yearly", number).await;
            assert_eq!(phase(&tenant.finished(&build.name_any(), 1).await), "Success");
        }
        assert_eq!(outcomes(tenant).await, [Some("made".to_owned()), Some("made".to_owned())]);
    })
    .await;
}

#[tokio::test]
async fn a_build_that_runs_keeps_the_next_from_being_made_or_gives_way_to_it() {
    tenant("unended", "baseline", async |tenant| {
        let build = tenant.manifest("cider", "container", TICKING);
        tenant.apply_schedule(&tenant.schedule("yearly", &build, &json!({"concurrencyPolicy": "Forbid"}))).await;
        tenant.run_now("yearly", "first").await;
        let first = tenant.scheduled_build("yearly", 1).await;
        tenant.run_now("yearly", "second").await;
        let note = event(tenant, "Forbidden").await.note.unwrap_or_default();
        assert!(note.contains(&format!("{} has not ended", first.name_any())), "{note}");
        tenant.prints(&first, "tick 3").await;

        tenant.apply_schedule(&tenant.schedule("yearly", &build, &json!({"concurrencyPolicy": "Replace"}))).await;
        tenant.run_now("yearly", "third").await;
        let replaced = tenant.finished(&first.name_any(), 1).await;
        assert_eq!(phase(&replaced), "Cancelled");
        let succeeded = status(&replaced)["conditions"][0].clone();
        assert_eq!(succeeded["reason"], "Superseded", "{succeeded:#}");
        let next = tenant.scheduled_build("yearly", 2).await;
        tenant.prints(&next, "tick 1").await;
        let [Some(first), Some(second), Some(third)] = &outcomes(tenant).await[..] else { unreachable!("three slots") };
        assert_eq!([first, second, third], ["made", "skipped", "made"]);
        tenant.merge(&next.name_any(), &json!({"spec": {"cancel": true}})).await;
        tenant.finished(&next.name_any(), 1).await;
    })
    .await;
}

#[tokio::test]
async fn a_build_that_a_quota_refuses_is_told_and_made_when_there_is_room() {
    tenant("refused-slot", "baseline", async |tenant| {
        let quotas: Api<ResourceQuota> = Api::namespaced(tenant.client.clone(), &tenant.namespace);
        let no_room =
            json!({"metadata": {"name": "no-builds"}, "spec": {"hard": {"count/builds.imagefactory.dev": "0"}}});
        let quota = serde_json::from_value(no_room).expect("a quota");
        quotas.create(&PostParams::default(), &quota).await.expect("the quota can be made");
        watching::until(&quotas, "no-builds", "the quota to be counted", |quota: Option<&ResourceQuota>| {
            quota.and_then(|quota| quota.status.as_ref()).is_some_and(|status| status.used.is_some())
        })
        .await;
        let build = tenant.manifest("cider", "container", "FROM BASE\n");
        tenant.apply_schedule(&tenant.schedule("yearly", &build, &json!({}))).await;
        tenant.run_now("yearly", "monday").await;
        let note = event(tenant, "Refused").await.note.unwrap_or_default();
        assert!(note.contains("exceeded quota: no-builds"), "{note}");
        quotas.delete("no-builds", &DeleteParams::default()).await.expect("it can be deleted");
        let build = tenant.scheduled_build("yearly", 1).await;
        assert_eq!(phase(&tenant.finished(&build.name_any(), 1).await), "Success");
        assert_eq!(outcomes(tenant).await, [Some("made".to_owned())]);
    })
    .await;
}

#[tokio::test]
async fn an_expression_that_cannot_be_read_is_told_and_acts_when_it_is_corrected() {
    tenant("bad-cron", "baseline", async |tenant| {
        let build = tenant.manifest("cider", "container", "FROM BASE\n");
        for (fields, reason, words) in [
            (json!({"cron": "61 * * * *"}), "InvalidCron", "spec.cron: \"61\" is no minute; it takes from 0 to 59"),
            (json!({"timezone": "Middle/Earth"}), "InvalidTimezone", "put its IANA name, such as Europe/Berlin or UTC"),
        ] {
            tenant.apply_schedule(&tenant.schedule("odd", &build, &fields)).await;
            let status = until(tenant, "odd", reason, |status| status["conditions"][0]["reason"] == reason).await;
            assert_eq!(
                (&status["conditions"][0]["status"], &status["conditions"][1]["type"]),
                (&json!("False"), &json!("Stalled"))
            );
            let message = status["conditions"][1]["message"].as_str().unwrap_or_default();
            assert!(message.contains(words), "{message}");
            assert_eq!(status["nextTriggerAt"], Value::Null);
        }
        let fields = json!({"cron": "30 2 * * MON", "timezone": "Europe/Berlin"});
        tenant.apply_schedule(&tenant.schedule("odd", &build, &fields)).await;
        let status = until(tenant, "odd", "its next time", |status| !status["nextTriggerAt"].is_null()).await;
        assert_eq!(status["description"], "At 02:30, on Monday (Europe/Berlin)");
        assert_eq!(status["conditions"].as_array().map(Vec::len), Some(1), "{status:#}");
    })
    .await;
}

#[tokio::test]
async fn the_oldest_ended_builds_are_deleted_and_those_that_a_tool_tracks_stay() {
    tenant("history", "baseline", async |tenant| {
        // Refused, and so ended, at once: the namespace allows no privileged Pods.
        let build = tenant.manifest("cider", "buildx", "FROM BASE\n");
        tenant.apply_schedule(&tenant.schedule("yearly", &build, &json!({}))).await;
        let mut names = Vec::new();
        for (number, value) in ["helm", "argo", "old", "older", "newest"].into_iter().enumerate() {
            tenant.run_now("yearly", value).await;
            let made = tenant.scheduled_build("yearly", number + 1).await.name_any();
            let tracked = match value {
                "helm" => json!({"labels": {"app.kubernetes.io/managed-by": "Helm"}}),
                "argo" => {
                    json!({"annotations": {"argocd.argoproj.io/tracking-id": "orchard:imagefactory.dev/Build:a/b"}})
                }
                _ => json!({}),
            };
            tenant.merge(&made, &json!({"metadata": tracked})).await;
            assert_eq!(phase(&tenant.finished(&made, 1).await), "Failed");
            names.push(made);
        }
        tenant.apply_schedule(&tenant.schedule("yearly", &build, &json!({"failedBuildsHistoryLimit": 1}))).await;
        let mut expected = vec![names[0].clone(), names[1].clone(), names[4].clone()];
        expected.sort();
        watching::eventually("the end of the oldest", async || {
            let mut left: Vec<String> = tenant.scheduled("yearly").await.iter().map(ResourceExt::name_any).collect();
            left.sort();
            (left == expected).then_some(())
        })
        .await;
        let rows: i64 = sqlx::query_scalar("select count(*) from builds where resource_namespace = $1")
            .bind(&tenant.namespace)
            .fetch_one(&tenant.pool)
            .await
            .expect("rows can be counted");
        assert_eq!(rows, 5, "every row stays");
        let label = tenant.scheduled("yearly").await[0].labels().get(labels::SCHEDULE).cloned();
        assert_eq!(label.as_deref(), Some("yearly"));
    })
    .await;
}
