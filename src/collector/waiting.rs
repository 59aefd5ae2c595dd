//! A Pod that can't go on: what it waits for, told in the row while it does, and given up when it has waited for too
//! long. Giving up is a mark like a cancellation: the dispatcher deletes the Job, and the attempt ends when its Pod has,
//! so that nothing of it can still push.

use std::time::Duration;

use image_factory_core::{
    patience::{Verdict, Wait},
    pod::{BUILD_CONTAINER, INSPECT_CONTAINER},
    reason::Reason,
};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use tokio::{sync::watch, time::Instant};
use uuid::Uuid;

use super::{Error, followers::Seen, pod};
use crate::{db::launches, runtime::Context};

/// The kubelet's words for an image that it does not get (`pkg/kubelet/images/types.go`).
const IMAGE: [&str; 7] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "ImageInspectError",
    "RegistryUnavailable",
    "SignatureValidationFailed",
];
/// Its words for a container that it does not get to run (`pkg/kubelet/kuberuntime`, `pkg/kubelet/container`).
const CONTAINER: [&str; 4] =
    ["CreateContainerConfigError", "CreateContainerError", "RunContainerError", "CrashLoopBackOff"];

/// A wait is told when it has lasted this long. On a full node every Pod waits for the moment in which the one before
/// it goes: of that nobody needs to hear.
const SETTLED: Duration = Duration::from_secs(2);

/// Watches over a Pod until it has ended. Only ever ends with an error; `told` says whether the row tells of a wait.
pub async fn watch(context: &Context, build: Uuid, told: bool, mut seen: watch::Receiver<Seen>) -> Error {
    let mut telling = Telling::new(told);
    let mut since = Instant::now();
    loop {
        let wait = wait_of(&seen.borrow_and_update());
        let left = match telling.next(wait, Instant::now()) {
            Next::Tell(wait) => {
                match launches::pod_waits(&context.pool, build, wait.as_ref()).await {
                    Ok(waited) => since = Instant::now().checked_sub(waited).unwrap_or(since),
                    Err(error) => return error.into(),
                }
                telling.has_told(wait);
                continue;
            }
            Next::Settle(left) => Some(left),
            Next::Told(None) => None,
            Next::Told(Some(wait)) => match context.patience.verdict(wait, since.elapsed()) {
                Verdict::KeepWaiting(left) => Some(left),
                Verdict::GiveUp(message) => match launches::give_up_pod(&context.pool, build, &message).await {
                    Ok(()) => return std::future::pending().await,
                    Err(error) => return error.into(),
                },
            },
        };
        tokio::select! {
            changed = seen.changed() => if changed.is_err() {
                // The process ends: the collector, which holds the other side, is gone.
                std::future::pending::<()>().await;
            },
            () = tokio::time::sleep(left.unwrap_or_default()), if left.is_some() => {}
        }
    }
}

/// Which waits of a Pod the row is told.
struct Telling {
    /// What the row tells.
    row: Option<Wait>,
    /// Not so: it tells of a wait, and another process has written which.
    by_another: bool,
    /// What the Pod waits for, and since when it has been so here.
    now: Option<Wait>,
    since: Instant,
}

#[derive(Debug, PartialEq)]
enum Next<'a> {
    /// This is to be written.
    Tell(Option<Wait>),
    /// Nothing for so long.
    Settle(Duration),
    /// The row tells what is.
    Told(Option<&'a Wait>),
}

impl Telling {
    fn new(told: bool) -> Self {
        Self { row: None, by_another: told, now: None, since: Instant::now() }
    }

    fn next(&mut self, wait: Option<Wait>, at: Instant) -> Next<'_> {
        if wait != self.now {
            (self.now, self.since) = (wait, at);
        }
        if !self.by_another && self.row == self.now {
            return Next::Told(self.row.as_ref());
        }
        let lasted = at.saturating_duration_since(self.since);
        match SETTLED.checked_sub(lasted) {
            Some(left) if self.now.is_some() && !left.is_zero() => Next::Settle(left),
            _ => Next::Tell(self.now.clone()),
        }
    }

    fn has_told(&mut self, wait: Option<Wait>) {
        (self.row, self.by_another) = (wait, false);
    }
}

fn wait_of(seen: &Seen) -> Option<Wait> {
    wait(&seen.pod).filter(|_| !seen.gone)
}

/// Why this Pod can't go on; `None` where it can, or goes.
fn wait(pod: &Pod) -> Option<Wait> {
    if pod.metadata.deletion_timestamp.is_some() || pod::ending(pod).is_some() {
        return None;
    }
    unscheduled(pod).or_else(|| {
        // Beside a build that runs, its daemon may be started anew.
        let runs = [BUILD_CONTAINER, INSPECT_CONTAINER].map(|name| pod::state(pod, name) == pod::State::Running);
        if runs.contains(&true) { None } else { pod::statuses(pod).find_map(unstarted) }
    })
}

fn unscheduled(pod: &Pod) -> Option<Wait> {
    let mut conditions = pod.status.as_ref()?.conditions.iter().flatten();
    // One with a gate has `SchedulingGated`: whoever holds it back means to.
    let refused = conditions.find(|condition| {
        condition.type_ == "PodScheduled"
            && condition.status == "False"
            && condition.reason.as_deref() == Some("Unschedulable")
    })?;
    let said = refused.message.as_deref().unwrap_or("the scheduler does not say why");
    Some(Wait { reason: Reason::Unschedulable, message: format!("no node takes the Pod: {said}") })
}

fn unstarted(status: &ContainerStatus) -> Option<Wait> {
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    let word = waiting.reason.as_deref()?;
    let said = waiting.message.as_deref().unwrap_or(word);
    if IMAGE.contains(&word) {
        // Before what the pull said stands that the kubelet backs off, and how the runtime's error came to it.
        let cause = said.split_once(": ErrImagePull: ").map_or(said, |(_, cause)| cause);
        let cause = cause
            .strip_prefix("rpc error: ")
            .and_then(|error| error.split_once(" desc = "))
            .map_or(cause, |(_, cause)| cause);
        let message = format!("the image of container {}, {}, can't be pulled: {cause}", status.name, status.image);
        return Some(Wait { reason: Reason::ImagePull, message });
    }
    let message = format!("container {} can't be started: {said}", status.name);
    CONTAINER.contains(&word).then_some(Wait { reason: Reason::Internal, message })
}

#[cfg(test)]
mod tests {
    use image_factory_core::outcome::Ending;
    use serde_json::{Value, json};

    use super::*;

    /// Pods of a real cluster.
    fn recorded(text: &str) -> Pod {
        serde_json::from_str(text).unwrap()
    }

    macro_rules! pod {
        ($name:literal) => {
            recorded(include_str!(concat!("../../tests/fixtures/pods/", $name, ".json")))
        };
    }

    fn told(pod: &Pod) -> Option<(&'static str, String)> {
        wait(pod).map(|wait| (wait.reason.as_str(), wait.message))
    }

    #[test]
    fn a_pod_that_cannot_go_on_says_which_container_and_why() {
        let not_found = |container: &str| {
            format!(
                "the image of container {container}, registry.test/orchard/never-pushed:7, can't be pulled: failed to pull \
                 and unpack image \"registry.test/orchard/never-pushed:7\": failed to resolve reference \
                 \"registry.test/orchard/never-pushed:7\": registry.test/orchard/never-pushed:7: not found"
            )
        };
        for (pod, reason, message) in [
            (pod!("image-not-found"), "ImagePull", not_found("build")),
            // The same sentence while the kubelet waits before it tries again: nothing new to tell.
            (pod!("image-back-off"), "ImagePull", not_found("build")),
            (pod!("sidecar-image-not-found"), "ImagePull", not_found("buildkitd")),
            (
                pod!("image-name-invalid"),
                "ImagePull",
                "the image of container build, Orchard/UPPER:7, can't be pulled: Failed to apply default image tag \
                 \"Orchard/UPPER:7\": couldn't parse image name \"Orchard/UPPER:7\": invalid reference format: repository \
                 name (UPPER) must be lowercase"
                    .to_owned(),
            ),
            (
                pod!("container-config-error"),
                "Internal",
                "container build can't be started: secret \"nowhere\" not found".to_owned(),
            ),
        ] {
            assert_eq!(told(&pod), Some((reason, message)));
        }
        for (pod, cause) in [
            (pod!("unschedulable-resources"), "1 Insufficient cpu"),
            (pod!("unschedulable-selector"), "1 node(s) didn't match Pod's node affinity/selector"),
        ] {
            let (reason, message) = told(&pod).unwrap();
            assert_eq!(reason, "Unschedulable");
            assert!(message.starts_with("no node takes the Pod: ") && message.contains(cause), "{message}");
        }
    }

    #[test]
    fn a_wait_is_told_when_it_has_lasted_and_its_end_at_once() {
        let wait = |message: &str| Some(Wait { reason: Reason::Unschedulable, message: message.to_owned() });
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut telling = Telling::new(false);
        assert_eq!(telling.next(None, at(0)), Next::Told(None));
        assert_eq!(telling.next(wait("a"), at(100)), Next::Settle(SETTLED));
        assert_eq!(telling.next(None, at(1_500)), Next::Told(None), "of a short one nobody hears");
        assert_eq!(telling.next(wait("a"), at(1_600)), Next::Settle(SETTLED));
        assert_eq!(telling.next(wait("b"), at(3_500)), Next::Settle(SETTLED), "words that change settle, too");
        assert_eq!(telling.next(wait("b"), at(5_500)), Next::Tell(wait("b")));
        telling.has_told(wait("b"));
        assert_eq!(telling.next(wait("b"), at(5_600)), Next::Told(wait("b").as_ref()));
        assert_eq!(telling.next(None, at(5_700)), Next::Tell(None));
    }

    #[test]
    fn what_another_process_has_told_is_told_anew_or_taken_back() {
        let wait = Some(Wait { reason: Reason::ImagePull, message: "gone".to_owned() });
        assert_eq!(Telling::new(true).next(None, Instant::now()), Next::Tell(None));
        let mut telling = Telling::new(true);
        let start = Instant::now();
        assert_eq!(telling.next(wait.clone(), start), Next::Settle(SETTLED));
        assert_eq!(telling.next(wait.clone(), start + SETTLED), Next::Tell(wait));
    }

    #[test]
    fn a_pod_that_has_ended_or_goes_waits_for_nothing() {
        for pod in [pod!("evicted-for-disk"), pod!("evicted-by-api"), pod!("deadline-exceeded"), pod!("node-lost")] {
            assert_eq!(told(&pod), None);
        }
        let mut going = pod!("image-not-found");
        going.metadata.deletion_timestamp = going.metadata.creation_timestamp.clone();
        assert_eq!(told(&going), None);
    }

    #[test]
    fn what_kubernetes_says_of_real_pods_is_their_end() {
        for (pod, expected) in [
            (pod!("evicted-for-disk"), "Evicted"),
            (pod!("evicted-by-api"), "Evicted"),
            (pod!("deadline-exceeded"), "DeadlineExceeded"),
            (pod!("node-lost"), "DeletionByTaintManager"),
        ] {
            let Ending::Pod { reason, message } = pod::last_ending(&pod) else { unreachable!("it ended as a whole") };
            assert_eq!(reason, expected);
            assert!(!message.is_empty(), "{expected}");
        }
    }

    #[test]
    fn a_daemon_that_is_started_anew_beside_a_build_is_no_wait() {
        let container = |name: &str, state: Value| json!({"name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 1, "state": state});
        let crashed = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}});
        for (build, expected) in [
            (json!({"running": {}}), None),
            (
                json!({"waiting": {"reason": "PodInitializing"}}),
                Some("container buildkitd can't be started: back-off 10s"),
            ),
        ] {
            let statuses = [container("buildkitd", crashed.clone()), container("build", build)];
            let pod = json!({"metadata": {}, "status": {"phase": "Pending", "initContainerStatuses": statuses}});
            let pod: Pod = serde_json::from_value(pod).unwrap();
            assert_eq!(told(&pod).map(|(_, message)| message).as_deref(), expected);
        }
    }
}
