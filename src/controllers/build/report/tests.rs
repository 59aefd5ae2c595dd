//! The status of a Build for every kind of newest row, and when it is news.

use serde_json::json;

use super::*;
use crate::{controllers::build::told::Told, db::builds::QueuePlace};

fn build(spec: &serde_json::Value, rerun: Option<&str>) -> Watched {
    let mut manifest = json!({
        "metadata": {
            "name": "cider", "namespace": "orchard", "uid": "u", "generation": 3,
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {
            "method": "container",
            "source": {"inline": {"files": {"Dockerfile": "FROM scratch"}}},
            "output": {"image": "registry.test/orchard/cider:1"},
        },
    });
    for (field, value) in spec.as_object().unwrap() {
        manifest["spec"][field] = value.clone();
    }
    if let Some(rerun) = rerun {
        manifest["metadata"]["annotations"] = json!({"imagefactory.dev/rerun": rerun});
    }
    serde_json::from_value(manifest).unwrap()
}

fn newest(build: &Watched, status: Status) -> Newest {
    Newest {
        run: 2,
        attempt: 1,
        number: 9,
        status,
        inputs_hash: build.desired.inputs_hash.clone(),
        completed_at: status.is_terminal().then_some(Timestamp::UNIX_EPOCH),
        ..Newest::default()
    }
}

fn queued(place: i64, waiting_for: &str) -> BuildStatus {
    let build = build(&json!({}), None);
    let place = QueuePlace { position: place, waiting_for: waiting_for.to_owned(), message: format!("{place} ahead") };
    status(&build, Some(&Newest { queue: Some(place), ..newest(&build, Status::Queued) })).unwrap()
}

fn conditions(status: &BuildStatus) -> Vec<(&str, &str, &str)> {
    status.conditions.iter().map(|c| (c.type_.as_str(), c.status.as_str(), c.reason.as_str())).collect()
}

#[test]
fn inputs_that_cancel_holds_back_never_show_the_end_of_older_ones() {
    let before = build(&json!({}), None);
    let ended = newest(&before, Status::Success);
    let held = [("Succeeded", "Unknown", "HeldBack"), ("Finished", "False", "HeldBack")];
    for build in
        [build(&json!({"cancel": true, "target": "release"}), None), build(&json!({"cancel": true}), Some("monday"))]
    {
        let status = status(&build, Some(&ended)).unwrap();
        assert_eq!(conditions(&status), held);
        assert_eq!((status.phase, status.run, status.observed_generation), (None, Some(2), Some(3)));
        assert_eq!((status.build_id, status.observed_rerun), (Some(ended.id.to_string()), None));
        assert_eq!((status.image, status.completed_at), (None, None));
    }
    let unchanged = status(&build(&json!({"cancel": true}), None), Some(&ended)).unwrap();
    assert_eq!(conditions(&unchanged)[0], ("Succeeded", "True", "Success"));
    let never = status(&build(&json!({"cancel": true}), None), None).unwrap();
    assert_eq!((conditions(&never), never.run), (held.to_vec(), None));
}

#[test]
fn only_a_rerun_that_was_acted_on_is_observed() {
    let build = build(&json!({}), Some("tuesday"));
    let acted = Newest { observed_rerun: Some("monday".to_owned()), ..newest(&build, Status::Success) };
    assert_eq!(status(&build, Some(&acted)).unwrap().observed_rerun.as_deref(), Some("monday"));
    assert_eq!(status(&build, Some(&newest(&build, Status::Success))).unwrap().observed_rerun, None);
}

#[test]
fn a_move_in_the_queue_is_told_near_its_head_only_and_another_reason_always() {
    for (before, now, told) in [
        (queued(12, "TenantLimit"), queued(12, "TenantLimit"), true),
        (queued(40, "TenantLimit"), queued(39, "TenantLimit"), true),
        (queued(11, "TenantLimit"), queued(10, "TenantLimit"), false),
        (queued(9, "TenantLimit"), queued(12, "TenantLimit"), false),
        (queued(3, "TenantLimit"), queued(2, "TenantLimit"), false),
        (queued(40, "TenantLimit"), queued(40, "WorkersBusy"), false),
    ] {
        assert_eq!(Told::of(&before).says(&Told::of(&now)), told, "{before:?} {now:?}");
    }
    let newer = BuildStatus { observed_generation: Some(4), ..queued(40, "TenantLimit") };
    assert!(!Told::of(&queued(41, "TenantLimit")).says(&Told::of(&newer)), "the generation is another");
    let mut reworded = queued(3, "TenantLimit");
    reworded.queue.as_mut().unwrap().message = Some("other words".to_owned());
    assert!(Told::of(&queued(3, "TenantLimit")).says(&Told::of(&reworded)));
}

#[test]
fn an_end_is_news_once_also_where_it_was_held_back_meanwhile() {
    let normal = build(&json!({}), None);
    let held = build(&json!({"cancel": true, "target": "release"}), None);
    let (running, ended) = (newest(&normal, Status::InProgress), newest(&normal, Status::Success));
    let while_running = status(&normal, Some(&running)).unwrap();
    let after = status(&normal, Some(&ended)).unwrap();
    let while_held = status(&held, Some(&ended)).unwrap();
    for (before, newest, expected) in [
        (&while_running, &running, false),
        (&while_running, &ended, true),
        (&after, &ended, false),
        (&while_held, &ended, false),
    ] {
        assert_eq!(!Told::of(before).is_of(newest, phase(newest.status)), expected, "{before:?}");
    }
    let of_another = BuildStatus { build_id: Some("another".to_owned()), ..after };
    assert!(!Told::of(&of_another).is_of(&ended, Phase::Success));
}

#[test]
fn a_note_is_cut_by_bytes_where_a_character_ends() {
    let build = build(&json!({}), None);
    let failed = Newest { error_message: Some("ü".repeat(600)), ..newest(&build, Status::Failed) };
    let note = event(&failed).and_then(|event| event.note).unwrap();
    assert!(note.len() <= NOTE_BYTES && note.len() > NOTE_BYTES - 4, "{}", note.len());
    assert!(note.starts_with("Run 2: ü") && note.ends_with("ü…"));
    for (text, expected) in [("abcdef", "abcdef"), ("abcdefg", "abc…"), ("abüüüü", "ab…")] {
        assert_eq!(shortened(text, 6), expected);
    }
}

#[test]
fn the_events_of_two_runs_are_not_folded_into_one() {
    let build = build(&json!({}), None);
    let first = newest(&build, Status::Success);
    let second = Newest { run: first.run + 1, ..first.clone() };
    let action = |newest: &Newest| event(newest).unwrap().action;
    assert_eq!((action(&first), action(&second)), ("Run2".to_owned(), "Run3".to_owned()));
}

#[test]
fn a_failed_attempt_is_told_once_by_an_event_and_is_no_end() {
    let build = build(&json!({}), None);
    let first = newest(&build, Status::InProgress);
    let failed = "attempt 1 failed (Evicted): the Pod was evicted from its node".to_owned();
    let place = |waiting_for: &str| {
        let message = format!("not before noon: {failed}");
        Some(QueuePlace { position: 1, waiting_for: waiting_for.to_owned(), message })
    };
    let second = Newest {
        id: "0190a5b2-7c3d-7e4f-8a1b-00001f3a9c2e".parse().unwrap(),
        attempt: 2,
        queue: place("BackingOff"),
        error_message: Some(failed.clone()),
        ..newest(&build, Status::Queued)
    };
    let told = Told::of(&status(&build, Some(&first)).unwrap());
    assert!(is_news(Some(&told), &second));
    let event = event(&second).unwrap();
    assert_eq!((event.reason.as_str(), event.action.as_str()), ("Retrying", "Run2Attempt2"));
    assert_eq!(event.note, Some(format!("Run 2, attempt 2: {failed}")));

    let status = status(&build, Some(&second)).unwrap();
    let waits = [
        ("Succeeded", "Unknown", "BackingOff"),
        ("Finished", "False", "BackingOff"),
        ("Reconciling", "True", "BackingOff"),
    ];
    assert_eq!(conditions(&status), waits);
    assert!(status.conditions.iter().all(|condition| condition.message.contains(&failed)));
    assert_eq!((status.attempt, status.failure), (Some(2), None));
    let told = Told::of(&self::status(&build, Some(&second)).unwrap());
    assert!(
        !is_news(Some(&told), &Newest { queue: place("TenantLimit"), ..second.clone() }),
        "it waits for something else"
    );
}

#[test]
fn a_run_whose_pod_cannot_go_on_says_what_for() {
    let build = build(&json!({}), None);
    let waits = Some(("ImagePull".to_owned(), "the image can't be pulled".to_owned()));
    let newest = Newest { pod_waits: waits, ..newest(&build, Status::InProgress) };
    for (given_up, message) in
        [(false, "the image can't be pulled"), (true, "the run is being stopped: the image can't be pulled")]
    {
        let status = status(&build, Some(&Newest { pod_given_up: given_up, ..newest.clone() })).unwrap();
        let reconciling = status.conditions.iter().find(|condition| condition.type_ == "Reconciling").unwrap();
        assert_eq!((reconciling.reason.as_str(), reconciling.message.as_str()), ("ImagePull", message));
    }
}
