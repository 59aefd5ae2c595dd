//! The status of a BuildSchedule as a projection of its row, and whether it can act. Written only where it says
//! something new.

use image_factory_core::{conditions, schedule::Schedule};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;

use super::validate::Refusal;
use crate::{
    clock,
    crd::{BuildSchedule, build_schedule::BuildScheduleStatus},
    db::schedules::Stored,
    kube_ext,
    runtime::Context,
};

pub async fn report(
    context: &Context,
    schedule: &BuildSchedule,
    valid: &Result<Schedule, Refusal>,
    stored: Option<&Stored>,
    now: Timestamp,
) -> Result<(), kube::Error> {
    let status = status(schedule, valid, stored, now);
    if schedule.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let namespace = schedule.namespace().unwrap_or_default();
    // One that was deleted meanwhile needs none.
    kube_ext::apply_status::<BuildSchedule>(&context.client, &namespace, &schedule.name_any(), &status).await?;
    Ok(())
}

pub fn status(
    schedule: &BuildSchedule,
    valid: &Result<Schedule, Refusal>,
    stored: Option<&Stored>,
    now: Timestamp,
) -> BuildScheduleStatus {
    let told = schedule.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let condition = |kind: &str, status: &str, reason: &str, message: &str| Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: told
            .iter()
            .find(|before| before.type_ == kind && before.status == status)
            .map_or(Time(clock::whole_second(now)), |before| before.last_transition_time.clone()),
        observed_generation: schedule.metadata.generation,
    };
    let conditions = match valid {
        Err(Refusal { reason, message }) => {
            vec![condition("Ready", "False", reason, message), condition(conditions::STALLED, "True", reason, message)]
        }
        Ok(_) if schedule.spec.suspend => {
            vec![condition("Ready", "True", "Suspended", "spec.suspend is true: no Builds are made until it is false")]
        }
        Ok(_) => vec![condition("Ready", "True", "Scheduled", "Builds are made at the times of spec.cron")],
    };
    BuildScheduleStatus {
        observed_generation: schedule.metadata.generation,
        next_trigger_at: stored.and_then(|stored| stored.next_trigger_at),
        // As Kubernetes keeps times.
        last_triggered_at: stored.and_then(|stored| stored.last_triggered_at).map(clock::whole_second),
        last_build: stored.and_then(|stored| stored.last_build.clone()),
        description: valid.as_ref().ok().map(Schedule::in_words),
        conditions,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn at(text: &str) -> Timestamp {
        format!("2026-11-27T{text}Z").parse().unwrap()
    }

    fn schedule(status: &Value) -> BuildSchedule {
        serde_json::from_value(json!({
            "metadata": {"name": "nightly", "generation": 2},
            "spec": {
                "cron": "0 2 * * *",
                "template": {"spec": {
                    "method": "container",
                    "source": {"inline": {"files": {"Dockerfile": "FROM scratch"}}},
                    "output": {"image": "registry.test/orchard/cider:1"},
                }},
            },
            "status": status,
        }))
        .unwrap()
    }

    fn row() -> Stored {
        Stored {
            uid: Some("u".to_owned()),
            generation: 2,
            cron: "0 2 * * *".to_owned(),
            timezone: "UTC".to_owned(),
            active: true,
            run_now: None,
            next_trigger_at: Some(at("12:00:00")),
            last_triggered_at: Some(at("11:00:00.25")),
            last_build: Some("nightly-1".to_owned()),
        }
    }

    #[test]
    fn the_status_tells_the_row_and_the_words_of_the_expression() {
        let valid = Ok(Schedule::new("0 2 * * *", None).unwrap());
        let first = status(&schedule(&json!(null)), &valid, Some(&row()), at("11:10:00"));
        let expected = json!({
            "observedGeneration": 2, "nextTriggerAt": "2026-11-27T12:00:00Z", "lastTriggeredAt": "2026-11-27T11:00:00Z",
            "lastBuild": "nightly-1", "description": "At 02:00 (UTC)",
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "Scheduled", "message": "Builds are made at the times of spec.cron",
                "lastTransitionTime": "2026-11-27T11:10:00Z", "observedGeneration": 2,
            }],
        });
        assert_eq!(serde_json::to_value(&first).unwrap(), expected);
        let again = status(&schedule(&expected), &valid, Some(&row()), at("11:15:00"));
        assert_eq!(again, first, "nothing is written when nothing has changed");
    }

    #[test]
    fn one_that_cannot_act_is_stalled_and_a_suspended_one_is_ready() {
        let refusal = Err(Refusal { reason: "InvalidCron", message: "why".to_owned() });
        let found = status(&schedule(&json!(null)), &refusal, None, at("11:10:00"));
        let told: Vec<(&str, &str, &str)> =
            found.conditions.iter().map(|one| (one.type_.as_str(), one.status.as_str(), one.reason.as_str())).collect();
        assert_eq!(told, [("Ready", "False", "InvalidCron"), ("Stalled", "True", "InvalidCron")]);
        assert_eq!(found.description, None);

        let mut suspended = schedule(&json!(null));
        suspended.spec.suspend = true;
        let valid = Ok(Schedule::new("0 2 * * *", None).unwrap());
        let found = status(&suspended, &valid, None, at("11:10:00"));
        assert_eq!((found.conditions[0].status.as_str(), found.conditions[0].reason.as_str()), ("True", "Suspended"));
    }
}
