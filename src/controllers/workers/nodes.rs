//! What is kept of a Node, and how it reads as what the rule of a worker's health asks for.

use image_factory_core::worker_health::{self, Effect, Pressure, Taint};
use k8s_openapi::api::core::v1::{Node, NodeSpec, NodeStatus};
use kube::ResourceExt;

/// Leaves what is read below: a Node lists every image it holds, and there may be thousands of nodes.
pub fn forget_the_rest(node: &mut Node) {
    node.metadata.managed_fields = None;
    node.metadata.annotations = None;
    if let Some(spec) = &mut node.spec {
        *spec = NodeSpec { taints: spec.taints.take(), unschedulable: spec.unschedulable, ..NodeSpec::default() };
    }
    if let Some(status) = &mut node.status {
        *status = NodeStatus { conditions: status.conditions.take(), ..NodeStatus::default() };
    }
}

pub fn of(node: &Node) -> worker_health::Node {
    let spec = node.spec.as_ref();
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    // Unknown, where the kubelet is not heard any more, is not True.
    let is = |kind: &str| conditions.iter().any(|condition| condition.type_ == kind && condition.status == "True");
    let taints = spec.and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    worker_health::Node {
        name: node.name_any(),
        labels: node.labels().clone(),
        // One that is being deleted gets no Pods any more.
        ready: is("Ready") && node.metadata.deletion_timestamp.is_none(),
        unschedulable: spec.and_then(|spec| spec.unschedulable).unwrap_or_default(),
        pressures: Pressure::ALL.into_iter().filter(|(_, kind)| is(kind)).map(|(pressure, _)| pressure).collect(),
        taints: taints
            .iter()
            .filter_map(|taint| {
                let effect = match taint.effect.as_str() {
                    "NoSchedule" => Effect::NoSchedule,
                    "PreferNoSchedule" => Effect::PreferNoSchedule,
                    "NoExecute" => Effect::NoExecute,
                    _ => return None,
                };
                Some(Taint { key: taint.key.clone(), value: taint.value.clone().unwrap_or_default(), effect })
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_kept_of_a_node_is_enough_to_judge_it() {
        let mut node: Node = serde_json::from_value(json!({
            "metadata": {
                "name": "pear", "labels": {"pool": "builds"}, "annotations": {"long": "text"},
                "managedFields": [{"manager": "orchard"}],
            },
            "spec": {
                "unschedulable": true, "podCIDR": "10.0.0.0/24",
                "taints": [
                    {"key": "gpu", "value": "yes", "effect": "NoExecute"},
                    {"key": "spot", "effect": "PreferNoSchedule"},
                    {"key": "from-the-future", "effect": "NoThought"},
                ],
            },
            "status": {
                "images": [{"names": ["registry.test/orchard/cider:1"]}],
                "conditions": [
                    {"type": "Ready", "status": "True"},
                    {"type": "DiskPressure", "status": "True"},
                    {"type": "MemoryPressure", "status": "False"},
                    {"type": "PIDPressure", "status": "Unknown"},
                ],
            },
        }))
        .unwrap();
        let taint = |key: &str, value: &str, effect| Taint { key: key.to_owned(), value: value.to_owned(), effect };
        let expected = worker_health::Node {
            name: "pear".to_owned(),
            labels: [("pool".to_owned(), "builds".to_owned())].into(),
            ready: true,
            unschedulable: true,
            pressures: vec![Pressure::Disk],
            taints: vec![taint("gpu", "yes", Effect::NoExecute), taint("spot", "", Effect::PreferNoSchedule)],
        };
        assert_eq!(of(&node), expected);
        forget_the_rest(&mut node);
        assert_eq!(of(&node), expected);
        let kept = serde_json::to_string(&node).unwrap();
        assert!(!kept.contains("cider") && !kept.contains("long") && !kept.contains("orchard"), "{kept}");
    }

    #[test]
    fn a_node_whose_kubelet_is_not_heard_or_that_is_being_deleted_is_not_ready() {
        for (metadata, status, ready) in [
            (json!({}), json!({"conditions": [{"type": "Ready", "status": "True"}]}), true),
            (json!({}), json!({"conditions": [{"type": "Ready", "status": "Unknown"}]}), false),
            (json!({}), json!({}), false),
            (
                json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}),
                json!({"conditions": [{"type": "Ready", "status": "True"}]}),
                false,
            ),
        ] {
            let node: Node = serde_json::from_value(json!({"metadata": metadata, "status": status})).unwrap();
            assert_eq!(of(&node).ready, ready, "{metadata} {status}");
        }
    }
}
