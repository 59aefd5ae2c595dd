//! Why a Pod was ended as a whole, from the word that Kubernetes has for it. The words are the kubelet's
//! (`pkg/kubelet`: `Evicted`, `DeadlineExceeded`, `NodeShutdown`, what admission refuses) and those of the condition
//! `DisruptionTarget`: <https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-conditions>.

use std::time::Duration;

use super::{Outcome, words};
use crate::reason::Reason;

pub fn failure(reason: &str, message: &str, timeout: Duration) -> Outcome {
    let (known, fallback) = match reason {
        "Evicted"
        | "Preempting"
        | "Terminated"
        | "TerminationByKubelet"
        | "EvictionByEvictionAPI"
        | "PreemptionByScheduler" => (Reason::Evicted, "the Pod was evicted from its node".to_owned()),
        "DeadlineExceeded" => {
            let sentence =
                format!("the Pod was ended because it had not by itself after its timeout of {}", words::span(timeout));
            return Outcome::failed(Reason::TimedOut, None, sentence);
        }
        "NodeLost" | "NodeShutdown" | "DeletionByPodGC" | "DeletionByTaintManager" => {
            (Reason::NodeLost, "the node of the Pod was lost".to_owned())
        }
        "UnexpectedAdmissionError" | "NodeAffinity" | "NodePorts" | "AdmissionFailed" => {
            (Reason::Evicted, "the node refused the Pod".to_owned())
        }
        // OutOfcpu, OutOfmemory, OutOfephemeral-storage, …: other Pods were there first.
        full if full.starts_with("OutOf") => (Reason::Evicted, "the node had no room for the Pod".to_owned()),
        _ if !message.trim().is_empty() => return Outcome::failed(Reason::Internal, None, message.trim()),
        other => (Reason::Internal, format!("the Pod failed: {other}")),
    };
    let sentence = if message.trim().is_empty() { fallback } else { format!("{fallback}: {}", message.trim()) };
    Outcome::failed(known, None, sentence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::Class;

    #[test]
    fn every_word_of_kubernetes_has_its_reason_and_its_message_is_kept() {
        for (word, said, reason, class, message) in [
            (
                "Evicted",
                "The node was low on resource: memory.",
                "Evicted",
                Class::Infrastructure,
                "the Pod was evicted from its node: The node was low on resource: memory.",
            ),
            ("Preempting", "", "Evicted", Class::Infrastructure, "the Pod was evicted from its node"),
            (
                "OutOfcpu",
                "Node didn't have enough resource: cpu",
                "Evicted",
                Class::Infrastructure,
                "the node had no room for the Pod: Node didn't have enough resource: cpu",
            ),
            ("UnexpectedAdmissionError", "", "Evicted", Class::Infrastructure, "the node refused the Pod"),
            ("NodeLost", "", "NodeLost", Class::Infrastructure, "the node of the Pod was lost"),
            (
                "DeletionByPodGC",
                "PodGC: node not found",
                "NodeLost",
                Class::Infrastructure,
                "the node of the Pod was lost: PodGC: node not found",
            ),
            (
                "DeadlineExceeded",
                "Pod was active on the node longer than the specified deadline",
                "TimedOut",
                Class::User,
                "the Pod was ended because it had not by itself after its timeout of 30m",
            ),
            ("Odd", "", "Internal", Class::Infrastructure, "the Pod failed: Odd"),
        ] {
            let found = failure(word, said, Duration::from_mins(30)).failure.unwrap();
            assert_eq!(
                (found.reason.as_str(), found.class, found.message.as_str()),
                (reason, class, message),
                "{word}"
            );
        }
    }
}
