//! What a Pod says about its attempt: whether it is the attempt's, which container runs, which has
//! ended, how it all ended. Pure.

use image_factory_core::{
    ids,
    outcome::{ContainerEnd, Ending},
    pod::{BUILD_CONTAINER, BUILDKITD_CONTAINER, BUILDPACK_CONTAINER, INSPECT_CONTAINER, PREPARE_CONTAINER},
    report::{PrepareReport, SourceFacts},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    Resource,
    api::{
        batch::v1::Job,
        core::v1::{ContainerStateTerminated, ContainerStatus, Pod},
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::ResourceExt;

use crate::{db::launches::Followed, jobs::managed};

/// Whether this is the Pod of the attempt's Job. A label anyone can write on a Pod of theirs, in any
/// namespace; what such a Pod says must count for nothing.
pub fn is_of(pod: &Pod, attempt: &Followed) -> bool {
    let job = ids::job_name(&attempt.name, attempt.id);
    let is_controller = |owner: &OwnerReference| {
        owner.controller == Some(true)
            && owner.kind == Job::KIND
            && owner.api_version == Job::API_VERSION
            && owner.name == job
    };
    pod.metadata.namespace.as_ref() == Some(&attempt.namespace) && pod.owner_references().iter().any(is_controller)
}

/// How far the clocks of a node and of the API server may be apart.
const LOST_MARGIN: SignedDuration = SignedDuration::from_mins(2);

/// Where one container stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    NotStarted,
    Running,
    Ended,
}

pub fn state(pod: &Pod, container: &str) -> State {
    let Some(state) = status(pod, container).and_then(|status| status.state.as_ref()) else {
        return State::NotStarted;
    };
    if state.terminated.is_some() {
        State::Ended
    } else if state.running.is_some() {
        State::Running
    } else {
        State::NotStarted
    }
}

/// The commit that `prepare` fetched, once it has.
pub fn source(pod: &Pod) -> Option<SourceFacts> {
    let end = end(pod, PREPARE_CONTAINER)?;
    PrepareReport::decode(end.message.as_bytes()).ok()?.source
}

/// How the Pod ended; `None` while something may still come.
pub fn ending(pod: &Pod) -> Option<Ending> {
    let whole = whole_pod(pod);
    if let Some(end) = before_build(pod).find(|end| end.exit_code != 0) {
        return Some(whole.unwrap_or(Ending::Prepare(end)));
    }
    let build = end(pod, BUILD_CONTAINER);
    if let Some(end) = build.clone().filter(|end| end.exit_code != 0) {
        return Some(whole.unwrap_or_else(|| Ending::Build(with_sidecar(pod, end))));
    }
    if let Some(inspect) = end(pod, INSPECT_CONTAINER) {
        let build = build.unwrap_or_default();
        return Some(match whole {
            // What has been confirmed has been confirmed.
            Some(whole) if inspect.exit_code != 0 => whole,
            _ => Ending::Inspect { build, inspect },
        });
    }
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    // One that shall go may still run, and push, for as long as its grace period or its node's silence.
    (phase == Some("Failed"))
        .then(|| whole.unwrap_or_else(|| Ending::Pod { reason: "Failed".to_owned(), message: message(pod) }))
}

/// When a Pod that shall go, and of which nobody says that it went, can't be running any more: its kubelet, cut off or
/// not, ends it at its own deadline, and its agent at the run's timeout. Of one whose end is known nothing more can be
/// read then. `None` where it may go on.
pub fn lost_at(pod: &Pod) -> Option<Timestamp> {
    let told_to_go = pod.metadata.deletion_timestamp.as_ref()?.0;
    let spec = pod.spec.as_ref()?;
    let last = match pod.status.as_ref().and_then(|status| status.start_time.as_ref()) {
        // No kubelet has taken it.
        None => told_to_go,
        Some(started) => {
            let seconds = spec.active_deadline_seconds? + spec.termination_grace_period_seconds.unwrap_or(30);
            told_to_go.max(started.0.checked_add(SignedDuration::from_secs(seconds)).ok()?)
        }
    };
    last.checked_add(LOST_MARGIN).ok()
}

/// `prepare`, and what brings buildpacks after it: each may leave `prepare`'s report.
fn before_build(pod: &Pod) -> impl Iterator<Item = ContainerEnd> {
    let is_before = |name: &str| name == PREPARE_CONTAINER || name.starts_with(BUILDPACK_CONTAINER);
    statuses(pod).filter(move |status| is_before(&status.name)).filter_map(end_of)
}

/// How an attempt ended whose Pod is no longer there: as the Pod last said, or without a word.
pub fn last_ending(pod: &Pod) -> Ending {
    ending(pod).or_else(|| whole_pod(pod)).unwrap_or(Ending::Gone)
}

/// The Pod was, or is being, ended as a whole: evicted, over its deadline, its node lost.
fn whole_pod(pod: &Pod) -> Option<Ending> {
    let status = pod.status.as_ref()?;
    if status.phase.as_deref() == Some("Failed")
        && let Some(reason) = status.reason.as_ref().filter(|reason| !reason.is_empty())
    {
        return Some(Ending::Pod { reason: reason.clone(), message: message(pod) });
    }
    let disrupted = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "DisruptionTarget" && condition.status == "True")?;
    let reason = match disrupted.reason.as_deref() {
        Some("PreemptionByScheduler") => "Preempting",
        Some("EvictionByEvictionAPI") | None => "Evicted",
        Some(other) => other,
    };
    let message = disrupted.message.clone().unwrap_or_default();
    Some(Ending::Pod { reason: reason.to_owned(), message })
}

/// How an attempt ended that was launched and has no Pod, by its Job (`None`: that is gone, too); `None`
/// while a Pod may still come. To a Job of ours it came with the launch.
pub fn ending_without_pod(job: Option<&Job>) -> Option<Ending> {
    let Some(job) = job.filter(|job| !managed::is_ours(job)) else { return Some(Ending::Gone) };
    let conditions = job.status.as_ref()?.conditions.iter().flatten();
    let end = conditions
        .filter(|condition| condition.status == "True")
        .find(|condition| condition.type_ == "Failed" || condition.type_ == "Complete")?;
    let said = end.message.as_deref().or(end.reason.as_deref()).unwrap_or(&end.type_);
    Some(Ending::Pod {
        reason: end.reason.clone().unwrap_or_else(|| end.type_.clone()),
        message: format!("the Pod was gone before its end could be read; its Job says: {said}"),
    })
}

/// A daemon that was killed for memory looks to its client like a lost connection.
fn with_sidecar(pod: &Pod, mut end: ContainerEnd) -> ContainerEnd {
    let killed = status(pod, BUILDKITD_CONTAINER)
        .into_iter()
        .flat_map(|status| [status.last_state.as_ref(), status.state.as_ref()])
        .flatten()
        .filter_map(|state| state.terminated.as_ref())
        .any(|terminated| terminated.reason.as_deref() == Some("OOMKilled"));
    if killed {
        "OOMKilled".clone_into(&mut end.reason);
    }
    end
}

pub fn end(pod: &Pod, container: &str) -> Option<ContainerEnd> {
    end_of(status(pod, container)?)
}

fn end_of(status: &ContainerStatus) -> Option<ContainerEnd> {
    let terminated = status.state.as_ref()?.terminated.as_ref()?;
    Some(ContainerEnd {
        exit_code: terminated.exit_code,
        reason: terminated.reason.clone().unwrap_or_default(),
        message: terminated.message.clone().unwrap_or_default(),
        milliseconds: milliseconds(terminated),
    })
}

fn milliseconds(terminated: &ContainerStateTerminated) -> Option<i64> {
    let started = terminated.started_at.as_ref()?.0;
    let finished = terminated.finished_at.as_ref()?.0;
    Some((finished.as_millisecond() - started.as_millisecond()).max(0))
}

fn status<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    statuses(pod).find(|status| status.name == container)
}

/// Of all containers, in the order in which they are started.
pub fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let lists = pod.status.iter().flat_map(|status| [&status.init_container_statuses, &status.container_statuses]);
    lists.flatten().flatten()
}

fn message(pod: &Pod) -> String {
    pod.status.as_ref().and_then(|status| status.message.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use image_factory_core::status::Status;
    use serde_json::{Value, json};

    use super::*;

    fn pod(status: &Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "status": status})).unwrap()
    }

    fn ended(name: &str, code: i32, reason: &str) -> Value {
        json!({
            "name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": code, "reason": reason,
                "startedAt": "2026-11-24T10:00:00Z", "finishedAt": "2026-11-24T10:00:07Z"}},
        })
    }

    fn running(name: &str) -> Value {
        json!({"name": name, "image": "i", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}}})
    }

    fn word(ending: Option<&Ending>) -> String {
        match ending {
            None => "still going".to_owned(),
            Some(Ending::Prepare(end)) => format!("prepare {}", end.exit_code),
            Some(Ending::Build(end)) => format!("build {} {}", end.exit_code, end.reason),
            Some(Ending::Inspect { inspect, .. }) => format!("inspect {}", inspect.exit_code),
            Some(Ending::Pod { reason, .. }) => format!("pod {reason}"),
            Some(Ending::Gone) => "gone".to_owned(),
        }
    }

    #[test]
    fn the_end_is_the_first_container_that_failed_or_else_inspect() {
        for (status, expected) in [
            (json!({"phase": "Pending"}), "still going"),
            (
                json!({"phase": "Pending", "initContainerStatuses": [ended("prepare", 0, "Completed"), running("build")]}),
                "still going",
            ),
            (json!({"phase": "Pending", "initContainerStatuses": [ended("prepare", 1, "Error")]}), "prepare 1"),
            (
                json!({"phase": "Pending", "initContainerStatuses": [ended("prepare", 0, "Completed"), ended("buildpack-0", 0, "Completed"), ended("buildpack-1", 1, "Error")]}),
                "prepare 1",
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses": [ended("prepare", 0, "Completed"), ended("build", 3, "Error")]}),
                "build 3 Error",
            ),
            (
                json!({"phase": "Running", "initContainerStatuses": [ended("build", 0, "Completed")],
                    "containerStatuses": [running("inspect")]}),
                "still going",
            ),
            (
                json!({"phase": "Running", "initContainerStatuses": [ended("build", 0, "Completed")],
                    "containerStatuses": [ended("inspect", 0, "Completed")]}),
                "inspect 0",
            ),
        ] {
            assert_eq!(word(ending(&pod(&status)).as_ref()), expected);
        }
    }

    #[test]
    fn a_pod_that_was_ended_as_a_whole_says_so_before_its_containers() {
        for (status, expected) in [
            (
                json!({"phase": "Failed", "reason": "Evicted", "initContainerStatuses": [ended("build", 137, "Error")]}),
                "pod Evicted",
            ),
            (json!({"phase": "Failed", "reason": "DeadlineExceeded"}), "pod DeadlineExceeded"),
            (json!({"phase": "Failed"}), "pod Failed"),
            (
                json!({"phase": "Running", "initContainerStatuses": [ended("build", 143, "Error")],
                    "conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}]}),
                "pod Evicted",
            ),
            (
                json!({"phase": "Failed", "reason": "Evicted", "containerStatuses": [ended("inspect", 0, "Completed")]}),
                "inspect 0",
            ),
        ] {
            assert_eq!(word(ending(&pod(&status)).as_ref()), expected);
        }
        assert_eq!(last_ending(&pod(&json!({"phase": "Running"}))), Ending::Gone);
    }

    #[test]
    fn a_pod_that_shall_go_has_not_ended_while_its_container_runs() {
        let disrupted = json!([{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}]);
        for status in [
            json!({"phase": "Pending", "conditions": disrupted, "initContainerStatuses": [running("prepare")]}),
            json!({"phase": "Running", "conditions": disrupted, "initContainerStatuses": [ended("build", 0, "Completed")],
                "containerStatuses": [running("inspect")]}),
        ] {
            assert_eq!(word(ending(&pod(&status)).as_ref()), "still going");
            assert_eq!(word(Some(&last_ending(&pod(&status)))), "pod Evicted", "known once it is gone");
        }
    }

    #[test]
    fn a_pod_is_an_attempts_only_as_its_jobs_in_its_namespace() {
        let attempt = Followed {
            id: "0190a5b2-7c3d-7e4f-8a1b-00001f3a9c2e".parse().unwrap(),
            status: Status::InProgress,
            namespace: "green".to_owned(),
            name: "web".to_owned(),
            method: image_factory_core::method::Method::Kaniko,
            pod_waits: false,
            cursors: Vec::new(),
        };
        let owned = |namespace: &str, kind: &str, name: &str, controller: bool| -> Pod {
            let version = if kind == "Job" { "batch/v1" } else { "apps/v1" };
            let owner =
                json!({"apiVersion": version, "kind": kind, "name": name, "uid": "u", "controller": controller});
            serde_json::from_value(json!({"metadata": {"namespace": namespace, "ownerReferences": [owner]}})).unwrap()
        };
        assert!(is_of(&owned("green", "Job", "web-1f3a9c2e", true), &attempt));
        for other in [
            owned("amber", "Job", "web-1f3a9c2e", true),
            owned("green", "ReplicaSet", "web-1f3a9c2e", true),
            owned("green", "Job", "web-00000000", true),
            owned("green", "Job", "web-1f3a9c2e", false),
            serde_json::from_value(json!({"metadata": {"namespace": "green"}})).unwrap(),
        ] {
            assert!(!is_of(&other, &attempt), "{other:?}");
        }
    }

    #[test]
    fn an_attempt_without_a_pod_has_ended_when_its_job_has_or_is_gone() {
        let job = |condition: &str| -> Job {
            let condition = json!({"type": condition, "status": "True", "reason": "BackoffLimitExceeded"});
            serde_json::from_value(json!({"metadata": {}, "status": {"conditions": [condition]}})).unwrap()
        };
        let ours = json!({"metadata": {}, "spec": {"managedBy": managed::MANAGER, "template": {}}});
        for (job, expected) in [
            (None, "gone"),
            (serde_json::from_value(ours).ok(), "gone"),
            (Some(job("Failed")), "pod BackoffLimitExceeded"),
            (Some(job("Complete")), "pod BackoffLimitExceeded"),
            (Some(job("FailureTarget")), "still going"),
            (Some(Job::default()), "still going"),
        ] {
            assert_eq!(word(ending_without_pod(job.as_ref()).as_ref()), expected);
        }
    }

    #[test]
    fn a_daemon_killed_for_memory_is_the_builds_end() {
        let mut daemon = running("buildkitd");
        daemon["lastState"] = ended("buildkitd", 137, "OOMKilled")["state"].clone();
        let status = json!({"phase": "Pending", "initContainerStatuses": [daemon, ended("build", 1, "Error")]});
        assert_eq!(word(ending(&pod(&status)).as_ref()), "build 1 OOMKilled");
    }

    #[test]
    fn the_commit_is_known_once_prepare_has_ended_whatever_comes_after() {
        let facts = SourceFacts {
            commit: "0f".repeat(20),
            branch: Some("main".to_owned()),
            author: "Pomona <pomona@example.com>".to_owned(),
            message: "graft".to_owned(),
        };
        let mut prepare = ended("prepare", 0, "Completed");
        prepare["state"]["terminated"]["message"] = json!(PrepareReport::succeeded(Some(facts.clone())).encode());
        let status = json!({"initContainerStatuses": [prepare, ended("build", 1, "Error")]});
        assert_eq!(source(&pod(&status)), Some(facts));
        assert_eq!(source(&pod(&json!({"initContainerStatuses": [running("prepare")]}))), None);
        assert_eq!(source(&pod(&json!({"initContainerStatuses": [ended("prepare", 0, "Completed")]}))), None);
    }

    #[test]
    fn a_container_is_waited_for_until_it_runs_and_timed_by_the_kubelets_clock() {
        let pod = pod(&json!({"initContainerStatuses": [ended("prepare", 0, "Completed"), running("build")]}));
        assert_eq!(state(&pod, "prepare"), State::Ended);
        assert_eq!(state(&pod, "build"), State::Running);
        assert_eq!(state(&pod, "inspect"), State::NotStarted);
        assert_eq!(end(&pod, "prepare").unwrap().milliseconds, Some(7000));
    }
}
