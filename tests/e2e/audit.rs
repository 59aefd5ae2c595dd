//! Who asked what of the API server, from its own audit log.

use std::{collections::BTreeMap, fs};

use jiff::Timestamp;
use serde_json::Value;

use super::cluster;

/// Patches of a status that are apart from a build's budget: one at each multiple of ten seconds, for how far it has come.
pub fn step_patches(since: Timestamp, until: Timestamp) -> u32 {
    u32::try_from(until.as_second() / 10 - since.as_second() / 10).expect("time goes on")
}

/// A user's finished requests in a namespace, as `verb resource[/subresource]` with their number.
pub fn requests(user: &str, namespace: &str) -> BTreeMap<String, u32> {
    let log = fs::read_to_string(cluster::variable("AUDIT_LOG")).expect("the audit log can be read");
    let mut counts = BTreeMap::new();
    for line in log.lines() {
        // The last line may be half written.
        let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
        let object = &event["objectRef"];
        let asked = event["user"]["username"] == user && object["namespace"] == namespace;
        if !asked || event["stage"] != "ResponseComplete" {
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
