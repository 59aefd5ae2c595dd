//! Nodes that a test makes and keeps alive itself: no container runs there, but Pods are given to them.

use std::{
    panic::{AssertUnwindSafe, resume_unwind},
    time::Duration,
};

use futures::{FutureExt, future::join_all};
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Node};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::tenant::{APPLIER, Tenant};

/// Kubernetes takes a node whose lease is older than 50 s for lost.
const RENEWAL: Duration = Duration::from_secs(10);
/// Keeps the Pods of other tests away.
const TAINT: &str = "e2e.imagefactory.dev/made-by-a-test";

pub struct MadeNode {
    client: Client,
    /// Its label and taint, which the other nodes of the test have too.
    pool: String,
    pub name: String,
}

/// Runs a test beside nodes of its own, which are labelled and tainted with its namespace.
pub async fn beside_nodes<const N: usize>(tenant: &Tenant, test: impl AsyncFnOnce([&MadeNode; N])) {
    let nodes: [MadeNode; N] = std::array::from_fn(|number| MadeNode {
        client: tenant.client.clone(),
        pool: tenant.namespace.clone(),
        name: format!("{}-{number}", tenant.namespace),
    });
    for node in &nodes {
        node.create().await;
    }
    let outcome = tokio::select! {
        outcome = AssertUnwindSafe(test(nodes.each_ref())).catch_unwind() => outcome,
        _ = join_all(nodes.iter().map(MadeNode::stay_alive)) => unreachable!("a node stays alive for ever"),
    };
    for node in &nodes {
        // One that a test has taken away is away.
        node.delete().await;
    }
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
}

impl MadeNode {
    async fn create(&self) {
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": self.name, "labels": {"pool": self.pool, "kubernetes.io/os": "none"}},
            "spec": {"taints": [{"key": TAINT, "value": self.pool, "effect": "NoSchedule"}]},
        });
        let nodes: Api<Node> = Api::all(self.client.clone());
        let params = PatchParams::apply(APPLIER).force();
        nodes.patch(&self.name, &params, &Patch::Apply(&node)).await.expect("the node can be made");
        self.renew().await;
        self.becomes("True").await;
    }

    /// What its kubelet would say of it.
    pub async fn becomes(&self, ready: &str) {
        let room = json!({"cpu": "4", "memory": "8Gi", "pods": "20", "ephemeral-storage": "100Gi"});
        let change = json!({"status": {
            "capacity": room, "allocatable": room,
            "conditions": [{"type": "Ready", "status": ready, "reason": "Test", "message": "as the test says"}],
        }});
        let nodes: Api<Node> = Api::all(self.client.clone());
        let patched = nodes.patch_status(&self.name, &PatchParams::default(), &Patch::Strategic(&change)).await;
        patched.expect("its status can be written");
    }

    /// What is left of its Pods goes with it.
    pub async fn delete(&self) {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let _ = nodes.delete(&self.name, &DeleteParams::default()).await;
    }

    async fn stay_alive(&self) {
        let mut turn = tokio::time::interval(RENEWAL);
        loop {
            turn.tick().await;
            self.renew().await;
        }
    }

    async fn renew(&self) {
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": self.name},
            "spec": {
                "holderIdentity": self.name, "leaseDurationSeconds": 40,
                "renewTime": image_factory::clock::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string(),
            },
        });
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), "kube-node-lease");
        let params = PatchParams::apply(APPLIER).force();
        leases.patch(&self.name, &params, &Patch::Apply(&lease)).await.expect("its lease can be renewed");
    }

    /// A worker of these nodes alone.
    pub fn worker(&self, mut more: Value) -> Value {
        more["nodeSelector"] = json!({"pool": self.pool});
        more["tolerations"] = json!([{"key": TAINT, "value": self.pool, "effect": "NoSchedule"}]);
        more
    }
}
