//! The status of a BuildWorker as a projection of its row, and the Events of its going and coming back.
//! Numbers move all the time: they are told with a beat, and a mere heartbeat only every few minutes, as
//! a kubelet tells its node's.

use image_factory_core::conditions;
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{
    ResourceExt,
    runtime::events::{Event, EventType},
};

use crate::{
    clock,
    config::Images,
    crd::{
        BuildWorker,
        build_worker::{BuildWorkerStatus, WorkerState},
    },
    db::workers::State,
    jobs, kube_ext,
    runtime::Context,
};

/// The age at which a told heartbeat is told anew.
const HEARTBEAT: SignedDuration = SignedDuration::from_mins(5);

/// Patches the status, and publishes an Event, where there is something to tell.
pub async fn report(
    context: &Context,
    worker: &BuildWorker,
    state: &State,
    with_numbers: bool,
) -> Result<(), kube::Error> {
    let status = status(worker, state, &context.jobs.images);
    let before = worker.status.as_ref();
    if before.is_some_and(|before| is_told(before, &status, with_numbers)) {
        return Ok(());
    }
    let namespace = worker.namespace().unwrap_or_default();
    if !kube_ext::apply_status::<BuildWorker>(&context.client, &namespace, &worker.name_any(), &status).await? {
        // Deleted meanwhile.
        return Ok(());
    }
    if let Some(event) = event(before.and_then(|before| before.state), state) {
        context.publish(worker, &event).await;
    }
    Ok(())
}

/// Whether the status before says enough of this one.
fn is_told(before: &BuildWorkerStatus, now: &BuildWorkerStatus, with_numbers: bool) -> bool {
    let numbers_left_out = |status: &BuildWorkerStatus| BuildWorkerStatus {
        current_builds: None,
        last_heartbeat: None,
        uptime_percent: None,
        ..status.clone()
    };
    if numbers_left_out(before) != numbers_left_out(now) {
        return false;
    }
    let stale = match (before.last_heartbeat, now.last_heartbeat) {
        (Some(told), Some(heard)) => heard.duration_since(told) >= HEARTBEAT,
        (told, heard) => told != heard,
    };
    !with_numbers || (before.current_builds == now.current_builds && !stale)
}

fn status(worker: &BuildWorker, state: &State, images: &Images) -> BuildWorkerStatus {
    let condition = |kind: &str, status: &str, reason: &str, message: String| Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        last_transition_time: Time(clock::whole_second(state.since)),
        observed_generation: worker.metadata.generation,
    };
    let conditions = if let Some(why) = nothing_to_run(worker, images) {
        const REASON: &str = "MethodNotAvailable";
        vec![condition("Ready", "False", REASON, why.clone()), condition(conditions::STALLED, "True", REASON, why)]
    } else {
        let (status, reason, message) = readiness(worker, state);
        vec![condition("Ready", status, reason, message)]
    };
    BuildWorkerStatus {
        observed_generation: worker.metadata.generation,
        state: Some(state.state),
        current_builds: Some(state.running),
        last_heartbeat: state.last_heartbeat.map(clock::whole_second),
        uptime_percent: state.uptime_percent,
        conditions,
    }
}

/// Why no build can ever run on it: each method it takes is one that can't be run here.
fn nothing_to_run(worker: &BuildWorker, images: &Images) -> Option<String> {
    let whys: Option<Vec<String>> =
        worker.spec.methods.iter().map(|method| jobs::unavailable(*method, images)).collect();
    let whys = whys.filter(|whys| !whys.is_empty())?;
    Some(format!("spec.methods names only methods that can't be run here: {}", whys.join("; ")))
}

fn readiness(worker: &BuildWorker, state: &State) -> (&'static str, &'static str, String) {
    let why = state.message.clone().unwrap_or_default();
    match state.state {
        WorkerState::Offline => ("False", "Offline", why),
        _ if worker.spec.cordon => {
            ("True", "Cordoned", "spec.cordon is true: running builds go on, no new ones are taken".to_owned())
        }
        WorkerState::Degraded => ("True", "Degraded", why),
        WorkerState::Busy => {
            ("True", "Busy", format!("it runs as many builds as it takes, {}", worker.spec.concurrent_builds))
        }
        WorkerState::Healthy => ("True", "Healthy", "it takes builds".to_owned()),
    }
}

fn event(before: Option<WorkerState>, state: &State) -> Option<Event> {
    let offline = |state| state == WorkerState::Offline;
    let (type_, reason, note) = match (before.is_some_and(offline), offline(state.state)) {
        (false, true) => (EventType::Warning, "Offline", state.message.clone().unwrap_or_default()),
        (true, false) => (EventType::Normal, "Online", "the worker takes builds again".to_owned()),
        _ => return None,
    };
    let note = Some(kube_ext::event_note(&note));
    Some(Event { type_, reason: reason.to_owned(), note, action: "WatchNodes".to_owned(), secondary: None })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::{Value, json};

    use super::*;

    fn worker(spec: &Value) -> BuildWorker {
        let mut whole = json!({"type": "kubernetes", "concurrentBuilds": 3});
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value(json!({
            "apiVersion": "imagefactory.dev/v1alpha1", "kind": "BuildWorker",
            "metadata": {"name": "press", "namespace": "orchard", "generation": 2}, "spec": whole,
        }))
        .unwrap()
    }

    fn state(state: WorkerState, message: Option<&str>) -> State {
        State {
            tenant_uid: None,
            name: "press".to_owned(),
            state,
            message: message.map(str::to_owned),
            running: 1,
            last_heartbeat: Some(Timestamp::from_second(1000).unwrap()),
            uptime_percent: Some(99.5),
            since: Timestamp::from_second(500).unwrap(),
        }
    }

    fn told(spec: &Value, at: &State) -> Vec<(String, String, String)> {
        let status = status(&worker(spec), at, &Images::default());
        assert_eq!((status.observed_generation, status.state), (Some(2), Some(at.state)));
        status.conditions.into_iter().map(|one| (one.type_, one.status, one.reason)).collect()
    }

    #[test]
    fn a_worker_is_ready_unless_it_is_offline_and_says_how_it_is() {
        use WorkerState::{Busy, Degraded, Healthy, Offline};
        for (spec, how, status, reason) in [
            (json!({}), Healthy, "True", "Healthy"),
            (json!({}), Busy, "True", "Busy"),
            (json!({}), Degraded, "True", "Degraded"),
            (json!({"cordon": true}), Degraded, "True", "Cordoned"),
            (json!({"cordon": true}), Offline, "False", "Offline"),
            (json!({"methods": ["packer", "buildx"]}), Healthy, "True", "Healthy"),
        ] {
            let found = told(&spec, &state(how, Some("pear (not ready)")));
            assert_eq!(found, [("Ready".to_owned(), status.to_owned(), reason.to_owned())], "{spec} {how:?}");
        }
        let offline = status(&worker(&json!({})), &state(Offline, Some("pear (not ready)")), &Images::default());
        assert_eq!(offline.conditions[0].message, "pear (not ready)");
    }

    #[test]
    fn a_worker_of_methods_that_can_not_be_run_is_stalled() {
        let found = told(&json!({"methods": ["packer", "paketo"]}), &state(WorkerState::Healthy, None));
        let expected = [("Ready", "False"), ("Stalled", "True")]
            .map(|(kind, status)| (kind.to_owned(), status.to_owned(), "MethodNotAvailable".to_owned()));
        assert_eq!(found, expected);
    }

    #[test]
    fn numbers_are_told_with_a_beat_and_a_heartbeat_alone_every_five_minutes() {
        let before = status(&worker(&json!({})), &state(WorkerState::Healthy, None), &Images::default());
        let moved = BuildWorkerStatus { current_builds: Some(2), ..before.clone() };
        let later = |seconds: i64| BuildWorkerStatus {
            last_heartbeat: Some(Timestamp::from_second(1000 + seconds).unwrap()),
            uptime_percent: Some(99.6),
            ..before.clone()
        };
        let busy = BuildWorkerStatus { state: Some(WorkerState::Busy), ..moved.clone() };
        for (now, in_between, with_a_beat) in [
            (before.clone(), true, true),
            (moved, true, false),
            (later(299), true, true),
            (later(300), true, false),
            (busy, false, false),
        ] {
            assert_eq!(is_told(&before, &now, false), in_between, "{now:?}");
            assert_eq!(is_told(&before, &now, true), with_a_beat, "{now:?}");
        }
    }

    #[test]
    fn an_event_tells_of_going_offline_and_of_coming_back() {
        use WorkerState::{Busy, Degraded, Healthy, Offline};
        for (before, now, reason) in [
            (None, Healthy, None),
            (None, Offline, Some("Offline")),
            (Some(Busy), Offline, Some("Offline")),
            (Some(Offline), Offline, None),
            (Some(Offline), Degraded, Some("Online")),
            (Some(Healthy), Degraded, None),
        ] {
            let found = event(before, &state(now, Some("no node"))).map(|event| event.reason);
            assert_eq!(found.as_deref(), reason, "{before:?} → {now:?}");
        }
    }
}
