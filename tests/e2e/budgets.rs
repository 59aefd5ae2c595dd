//! What a build costs the API server, counted from its own audit log: the budget of writes is six.

use std::collections::BTreeMap;

use image_factory::clock;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use tokio::sync::Mutex;

use super::{audit, chart, tenant::tenant, watching};

const OPERATOR: &str = "system:serviceaccount:image-factory:image-factory";

/// Who leads. Another test kills operators, and a build with two costs more than one with one.
pub async fn leader(client: &Client) -> Option<String> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), chart::NAMESPACE);
    let lease = leases.get_opt("image-factory").await.expect("the lease can be read");
    lease.and_then(|lease| lease.spec).and_then(|spec| spec.holder_identity)
}

/// The requests about one build that had one operator from its beginning to its end, and how many patches of them may be
/// for its steps alone.
async fn of_one_build(tries: u32) -> (BTreeMap<String, u32>, u32) {
    for _ in 0..tries {
        let counted = Mutex::new(None);
        tenant("budget", "baseline", async |tenant| {
            let (before, since) = (leader(&tenant.client).await, clock::now());
            let dockerfile = "FROM BASE\nRUN echo counted\n";
            tenant.apply(&tenant.manifest("counted", "container", dockerfile)).await;
            let build = tenant.finished("counted", 1).await;
            assert_eq!(build.status.as_ref().and_then(|status| status.attempt), Some(1));
            // The Event of the end comes after the status; a killed operator may not have come to it.
            let counts = watching::eventually("the Event of the end", async || {
                let counts = audit::requests(OPERATOR, &tenant.namespace);
                let ended = counts.get("create events") >= Some(&2);
                (ended || leader(&tenant.client).await != before).then_some(counts)
            })
            .await;
            if leader(&tenant.client).await == before {
                *counted.lock().await = Some((counts, audit::step_patches(since, clock::now())));
            }
        })
        .await;
        if let Some(counts) = counted.into_inner() {
            return counts;
        }
    }
    unreachable!("in {tries} tries no build had one operator from its beginning to its end");
}

#[tokio::test]
async fn a_successful_build_costs_at_most_six_writes_and_two_reads_beside_its_log() {
    let (counts, step_patches) = of_one_build(5).await;
    let writes: BTreeMap<&str, u32> = counts
        .iter()
        .filter(|(request, _)| !request.starts_with("get "))
        .map(|(request, count)| (request.as_str(), *count))
        .collect();
    assert!(writes.values().sum::<u32>() <= 6 + step_patches, "{counts:?}");
    assert_eq!(writes["create jobs"], 1, "{counts:?}");
    assert!(writes["patch builds/status"] <= 3 + step_patches, "{counts:?}");
    assert_eq!(writes.len(), 3, "nothing else is written: {counts:?}");

    let reads: BTreeMap<&str, u32> = counts
        .iter()
        .filter(|(request, _)| request.starts_with("get ") && *request != "get pods/log")
        .map(|(request, count)| (request.as_str(), *count))
        .collect();
    let once = BTreeMap::from([("get builds", 1), ("get namespaces", 1)]);
    assert_eq!(reads, once, "each is read once, before the run is made: {counts:?}");
}
