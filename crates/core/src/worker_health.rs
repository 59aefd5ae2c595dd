//! How a worker of type kubernetes is, from the nodes its Jobs land on.
//!
//! Its nodes are those its selector matches and whose taints it tolerates. A taint that Kubernetes itself
//! puts on a node for what ails it (`node.kubernetes.io/…`) does not make the node another's: the node is
//! the worker's, and in trouble. With every node well the worker is healthy, with some degraded, with none
//! offline. Whether a worker that is well is busy is a matter of its builds, not of its nodes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Taints of this prefix are Kubernetes' own, put on and taken away with a node's condition:
/// <https://kubernetes.io/docs/reference/labels-annotations-taints/#node-kubernetes-io-not-ready>.
const CONDITION: &str = "node.kubernetes.io/";
/// Nodes that a message names; the rest is counted.
const NAMED: usize = 5;

/// What is known of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    /// Its kubelet says that it can run Pods, and is heard.
    pub ready: bool,
    /// `kubectl cordon` was called on it.
    pub unschedulable: bool,
    /// What it is short of.
    pub pressures: Vec<Pressure>,
    pub taints: Vec<Taint>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pressure {
    Memory,
    Disk,
    Pid,
}

impl Pressure {
    /// The condition of a node that says so.
    pub const ALL: [(Self, &'static str); 3] =
        [(Self::Memory, "MemoryPressure"), (Self::Disk, "DiskPressure"), (Self::Pid, "PIDPressure")];

    const fn taint(self) -> &'static str {
        match self {
            Self::Memory => "node.kubernetes.io/memory-pressure",
            Self::Disk => "node.kubernetes.io/disk-pressure",
            Self::Pid => "node.kubernetes.io/pid-pressure",
        }
    }
}

/// What a taint does to a Pod that does not tolerate it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub enum Effect {
    NoSchedule,
    PreferNoSchedule,
    NoExecute,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taint {
    pub key: String,
    pub value: String,
    pub effect: Effect,
}

/// Which taints do not keep a Job away; read as Kubernetes reads it:
/// <https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/#concepts>.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Toleration {
    /// `None` for every key.
    pub key: Option<String>,
    /// `None` for every value: the operator Exists.
    pub value: Option<String>,
    /// `None` for every effect.
    pub effect: Option<Effect>,
}

impl Toleration {
    fn tolerates(&self, key: &str, value: &str, effect: Effect) -> bool {
        self.effect.is_none_or(|own| own == effect)
            && self.key.as_ref().is_none_or(|own| own == key)
            && self.value.as_ref().is_none_or(|own| own == value)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    Healthy,
    /// Some of its nodes take no Jobs; the sentence names them.
    Degraded(String),
    /// None of its nodes takes Jobs, or it has none; the sentence says why.
    Offline(String),
}

/// The health of a worker with this selector and these tolerations.
pub fn health(nodes: &[Node], selector: &BTreeMap<String, String>, tolerations: &[Toleration]) -> Health {
    let mut matches = false;
    let mut own = 0;
    let mut ailing = Vec::new();
    for node in nodes {
        if !selector.iter().all(|(key, value)| node.labels.get(key) == Some(value)) {
            continue;
        }
        matches = true;
        if node.taints.iter().any(|taint| keeps_away(taint, tolerations)) {
            continue;
        }
        own += 1;
        if let Some(trouble) = trouble(node, tolerations) {
            ailing.push((node.name.as_str(), trouble));
        }
    }
    // The order of nodes is the watch's: the sentence must not change with it.
    ailing.sort_unstable();
    if own == 0 {
        return Health::Offline(without_nodes(matches, selector));
    }
    if ailing.is_empty() {
        return Health::Healthy;
    }
    let nodes = listed(&ailing);
    if ailing.len() == own {
        return Health::Offline(format!("no node of the worker can take Jobs: {nodes}"));
    }
    Health::Degraded(format!("{} of {own} nodes can't take Jobs: {nodes}", ailing.len()))
}

/// Whether the taint makes the node another's.
fn keeps_away(taint: &Taint, tolerations: &[Toleration]) -> bool {
    taint.effect != Effect::PreferNoSchedule
        && !taint.key.starts_with(CONDITION)
        && !tolerated(&taint.key, &taint.value, taint.effect, tolerations)
}

fn tolerated(key: &str, value: &str, effect: Effect, tolerations: &[Toleration]) -> bool {
    tolerations.iter().any(|toleration| toleration.tolerates(key, value, effect))
}

/// Why the node takes no Jobs now. What a taint says is said once, also where the node's own fields say it
/// already: the taint follows them a moment later.
fn trouble(node: &Node, tolerations: &[Toleration]) -> Option<&'static str> {
    // Nobody starts a container there, whatever is tolerated.
    if !node.ready {
        return Some("not ready");
    }
    let of_fields = node
        .unschedulable
        .then_some("node.kubernetes.io/unschedulable")
        .into_iter()
        .chain(node.pressures.iter().map(|pressure| pressure.taint()))
        .map(|key| (key, "", Effect::NoSchedule));
    let of_taints = node
        .taints
        .iter()
        .filter(|taint| taint.effect != Effect::PreferNoSchedule && taint.key.starts_with(CONDITION))
        .map(|taint| (taint.key.as_str(), taint.value.as_str(), taint.effect));
    of_fields
        .chain(of_taints)
        .find(|(key, value, effect)| !tolerated(key, value, *effect, tolerations))
        .map(|(key, ..)| ailment(key))
}

fn ailment(taint: &str) -> &'static str {
    match taint.strip_prefix(CONDITION).unwrap_or(taint) {
        "unschedulable" => "cordoned",
        "memory-pressure" => "short of memory",
        "disk-pressure" => "short of disk space",
        "pid-pressure" => "short of process ids",
        "not-ready" => "not ready",
        "unreachable" => "unreachable",
        "network-unavailable" => "without a network",
        "out-of-service" => "out of service",
        _ => "tainted by Kubernetes",
    }
}

fn listed(ailing: &[(&str, &str)]) -> String {
    let named: Vec<String> = ailing.iter().take(NAMED).map(|(name, trouble)| format!("{name} ({trouble})")).collect();
    let more = match ailing.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", named.join(", "))
}

fn without_nodes(matches: bool, selector: &BTreeMap<String, String>) -> String {
    let selector: Vec<String> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let selector = if selector.is_empty() { "any".to_owned() } else { selector.join(",") };
    if matches {
        format!(
            "every node that spec.nodeSelector ({selector}) matches has a taint that spec.tolerations don't tolerate"
        )
    } else {
        format!("no node matches spec.nodeSelector ({selector})")
    }
}

#[cfg(test)]
mod tests;
