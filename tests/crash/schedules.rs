//! The hops of a schedule's way, from a slot to its Build: an error at the first to come there, and then a crash.
//! Whoever comes next makes the one Build of each slot, and never a second.

use kube::ResourceExt;
use serde_json::json;

use super::{
    history::{self, Jobs},
    operator::{Operator, Settings},
    stage::stage,
    tenant::tenant,
};

/// Where to pass, and how many Builds come there before the crash.
async fn error_then_crash(place: &str, builds: usize) {
    let stage = stage().await;
    tenant(&format!("crash-{}", place.replace('.', "-")), "baseline", async |tenant| {
        let jobs = Jobs::watch(tenant);
        let operator =
            Operator::start(&stage, &Settings::failing(&format!("{place}=1*return(error)->1*return(crash)")));
        let build = history::ticking(tenant, "cider");
        tenant.apply_schedule(&tenant.schedule("yearly", &build, &json!({}))).await;
        tenant.run_now("yearly", "once").await;
        operator.says(&format!("failing at {place}")).await;
        if builds == 2 {
            // That one is made. The next comes when it has ended, since both push the same tag.
            let first = tenant.scheduled_build("yearly", 1).await;
            tenant.finished(&first.name_any(), 1).await;
            tenant.run_now("yearly", "twice").await;
        }
        operator.crashed(place).await;

        let operator = Operator::start(&stage, &Settings::default());
        tenant.scheduled_build("yearly", builds).await;
        let names: Vec<String> = tenant.scheduled("yearly").await.iter().map(ResourceExt::name_any).collect();
        history::succeeded(tenant, &jobs, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let slots: Vec<(Option<String>, String, bool)> = sqlx::query_as(
            "select s.outcome, s.build_name, t.trigger_type = 'schedule'
             from schedule_slots s join builds b on b.id = s.build_id join build_triggers t on t.build_id = b.id
             where b.resource_namespace = $1
             order by s.id",
        )
        .bind(&tenant.namespace)
        .fetch_all(&tenant.pool)
        .await
        .expect("slots can be read");
        let made: Vec<_> = names.iter().map(|name| (Some("made".to_owned()), name.clone(), true)).collect();
        assert_eq!(slots, made);
        assert_eq!(tenant.scheduled("yearly").await.len(), builds, "there is no other");
        history::holds().await;
        operator.stop().await;
    })
    .await;
}

#[tokio::test]
async fn before_the_build_of_a_slot_is_created() {
    error_then_crash("schedule.before-create", 1).await;
}

#[tokio::test]
async fn after_the_build_of_a_slot_is_created() {
    error_then_crash("schedule.after-create", 2).await;
}
