//! Which Pods are followed, and what each follower knows of its Pod. By the Pod's UID: whatever
//! another Pod with the same label does, it is not told to this one's follower. Pure.

use std::collections::{HashMap, HashSet};

use image_factory_core::labels;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use tokio::sync::watch;
use uuid::Uuid;

use super::pod;

/// What a follower knows of its Pod.
#[derive(Debug)]
pub struct Seen {
    pub pod: Pod,
    /// The Pod is no longer in the cluster, or lost; `pod` is how it was last.
    pub gone: bool,
    /// Its node is silent, and nothing of the Pod can run there any more.
    pub lost: bool,
}

/// A follower to start.
#[derive(Debug)]
pub struct Start {
    /// The Pod's UID.
    pub uid: String,
    /// The attempt that its label names.
    pub build: Uuid,
    pub seen: watch::Receiver<Seen>,
}

enum Follower {
    Following {
        build: Uuid,
        seen: watch::Sender<Seen>,
    },
    /// It has no more to do. Kept, without its Pod, until that is gone: it must not be started again.
    Finished,
}

#[derive(Default)]
pub struct Followers(HashMap<String, Follower>);

impl Followers {
    /// Tells the Pod's follower; gives the one to start for a Pod that has none.
    pub fn saw(&mut self, pod: Pod, gone: bool) -> Option<Start> {
        let (uid, build) = (pod.uid()?, build(&pod)?);
        match self.0.get(&uid) {
            Some(Follower::Following { seen, .. }) => {
                // What a node says that is there again comes too late.
                let lost = seen.borrow().lost;
                seen.send_replace(Seen { pod, gone: gone || lost, lost });
            }
            Some(Follower::Finished) if gone => {
                self.0.remove(&uid);
            }
            Some(Follower::Finished) => {}
            None => {
                let (sender, seen) = watch::channel(Seen { pod, gone, lost: false });
                self.0.insert(uid.clone(), Follower::Following { build, seen: sender });
                return Some(Start { uid, build, seen });
            }
        }
        None
    }

    /// These are all the Pods there are.
    pub fn listed(&mut self, uids: &HashSet<String>) {
        self.0.retain(|uid, follower| match follower {
            _ if uids.contains(uid) => true,
            Follower::Following { seen, .. } => {
                seen.send_modify(|seen| seen.gone = true);
                true
            }
            Follower::Finished => false,
        });
    }

    /// Pods whose node has been silent for so long that nothing of them can run any more are lost.
    pub fn look_for_lost(&mut self, now: Timestamp) {
        for follower in self.0.values() {
            let Follower::Following { seen, .. } = follower else { continue };
            seen.send_if_modified(|seen| {
                let lost = !seen.gone && pod::lost_at(&seen.pod).is_some_and(|at| at <= now);
                (seen.gone, seen.lost) = (seen.gone || lost, seen.lost || lost);
                lost
            });
        }
    }

    /// The Pod's follower has ended.
    pub fn finished(&mut self, uid: &str) {
        let gone = |follower: &Follower| matches!(follower, Follower::Following { seen, .. } if seen.borrow().gone);
        if self.0.get(uid).is_some_and(gone) {
            self.0.remove(uid);
        } else if let Some(follower) = self.0.get_mut(uid) {
            *follower = Follower::Finished;
        }
    }

    /// The attempts whose Pods are being followed.
    pub fn builds(&self) -> HashSet<Uuid> {
        let following = |follower: &Follower| match follower {
            Follower::Following { build, .. } => Some(*build),
            Follower::Finished => None,
        };
        self.0.values().filter_map(following).collect()
    }
}

fn build(pod: &Pod) -> Option<Uuid> {
    pod.labels().get(labels::BUILD_ID)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const BUILD: &str = "0190a5b2-7c3d-7e4f-8a1b-00001f3a9c2e";

    fn pod(uid: &str) -> Pod {
        serde_json::from_value(json!({"metadata": {"uid": uid, "labels": {labels::BUILD_ID: BUILD}}})).unwrap()
    }

    fn uids(uids: &[&str]) -> HashSet<String> {
        uids.iter().map(|uid| (*uid).to_owned()).collect()
    }

    #[test]
    fn a_pod_is_followed_once_and_its_follower_told_of_it_alone() {
        let mut followers = Followers::default();
        let first = followers.saw(pod("one"), false).unwrap();
        let other = followers.saw(pod("two"), false).unwrap();
        assert!(followers.saw(pod("two"), true).is_none());
        assert!(!first.seen.has_changed().unwrap() && other.seen.borrow().gone);
        assert_eq!(followers.builds(), HashSet::from([BUILD.parse().unwrap()]));
    }

    #[test]
    fn a_finished_follower_keeps_no_pod_and_is_not_started_again_while_its_pod_is_there() {
        let mut followers = Followers::default();
        let start = followers.saw(pod("one"), false).unwrap();
        followers.finished("one");
        assert!(start.seen.has_changed().is_err(), "the side that kept the Pod is gone");
        assert_eq!(followers.builds(), HashSet::new());
        assert!(followers.saw(pod("one"), false).is_none());
        followers.listed(&uids(&["one"]));
        assert!(followers.saw(pod("one"), false).is_none());
        assert!(followers.saw(pod("one"), true).is_none());
        assert!(followers.0.is_empty(), "forgotten with its Pod");
    }

    #[test]
    fn a_pod_of_a_silent_node_is_lost_when_nothing_of_it_can_run_and_stays_so() {
        let mut lost: Pod = serde_json::from_str(include_str!("../../tests/fixtures/pods/node-lost.json")).unwrap();
        lost.labels_mut().insert(labels::BUILD_ID.to_owned(), BUILD.to_owned());
        let at = pod::lost_at(&lost).unwrap();
        let mut followers = Followers::default();
        let start = followers.saw(lost.clone(), false).unwrap();
        followers.look_for_lost(at - std::time::Duration::from_secs(1));
        assert!(!start.seen.borrow().gone);
        followers.look_for_lost(at);
        assert!(start.seen.borrow().gone && start.seen.borrow().lost);
        followers.saw(lost, false);
        assert!(start.seen.borrow().gone, "the node is there again, and too late");
    }

    #[test]
    fn a_pod_that_is_not_in_a_new_list_is_gone() {
        let mut followers = Followers::default();
        let start = followers.saw(pod("one"), false).unwrap();
        let kept = followers.saw(pod("two"), false).unwrap();
        followers.saw(pod("three"), false).unwrap();
        followers.finished("three");
        followers.listed(&uids(&["two"]));
        assert!(start.seen.borrow().gone && !kept.seen.borrow().gone);
        assert_eq!(followers.0.len(), 2, "the finished one is forgotten at once");
        followers.finished("one");
        assert_eq!(followers.0.len(), 1);
    }

    #[test]
    fn a_pod_whose_label_is_no_id_is_not_followed() {
        let mut pod = pod("one");
        pod.labels_mut().insert(labels::BUILD_ID.to_owned(), "mine".to_owned());
        assert!(Followers::default().saw(pod, false).is_none());
    }
}
