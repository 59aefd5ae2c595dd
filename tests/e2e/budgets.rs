//! What a build costs the API server, counted from its own audit log: the budget of writes is six.

use std::{collections::BTreeMap, fs};

use serde_json::Value;

use super::{cluster, tenant::tenant, watching};

const OPERATOR: &str = "system:serviceaccount:image-factory:image-factory";

/// The operator's finished requests in a namespace, as `verb resource[/subresource]` with their number.
fn requests(namespace: &str) -> BTreeMap<String, u32> {
    let log = fs::read_to_string(cluster::variable("AUDIT_LOG")).expect("the audit log can be read");
    let mut counts = BTreeMap::new();
    for line in log.lines() {
        // The last line may be half written.
        let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
        let object = &event["objectRef"];
        let ours = event["user"]["username"] == OPERATOR && object["namespace"] == namespace;
        if !ours || event["stage"] != "ResponseComplete" {
            continue;
        }
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut request = format!("{} {}", word(&event["verb"]), word(&object["resource"]));
        if let Some(subresource) = object["subresource"].as_str() {
            request = format!("{request}/{subresource}");
        }
        *counts.entry(request).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn a_successful_build_costs_at_most_six_writes_and_two_reads_beside_its_log() {
    tenant("budget", "baseline", async |tenant| {
        let dockerfile = "FROM BASE\nRUN echo counted\n";
        tenant.apply(&tenant.manifest("counted", "container", dockerfile)).await;
        let build = tenant.finished("counted", 1).await;
        assert_eq!(build.status.as_ref().and_then(|status| status.attempt), Some(1));
        // The Event of the end comes after the status.
        let counts = watching::eventually("the Event of the end", async || {
            let counts = requests(&tenant.namespace);
            (counts.get("create events") == Some(&2)).then_some(counts)
        })
        .await;

        let writes: BTreeMap<&str, u32> = counts
            .iter()
            .filter(|(request, _)| !request.starts_with("get "))
            .map(|(request, count)| (request.as_str(), *count))
            .collect();
        assert!(writes.values().sum::<u32>() <= 6, "{counts:?}");
        assert_eq!(writes["create jobs"], 1, "{counts:?}");
        assert!(writes["patch builds/status"] <= 3, "{counts:?}");
        assert_eq!(writes.len(), 3, "nothing else is written: {counts:?}");

        let reads: BTreeMap<&str, u32> = counts
            .iter()
            .filter(|(request, _)| request.starts_with("get ") && *request != "get pods/log")
            .map(|(request, count)| (request.as_str(), *count))
            .collect();
        let once = BTreeMap::from([("get builds", 1), ("get namespaces", 1)]);
        assert_eq!(reads, once, "each is read once, before the run is made: {counts:?}");
    })
    .await;
}
