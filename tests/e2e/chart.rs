//! The chart as helm renders it.

use serde::Deserialize;
use serde_json::Value;
use tokio::process::Command;

/// Where it is installed.
pub const NAMESPACE: &str = "image-factory";

/// What a template of the chart makes of a release in this launch mode.
pub async fn rendered(release: &str, template: &str, launch_mode: &str) -> Vec<Value> {
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/image-factory");
    let mut helm = Command::new("helm");
    helm.args(["template", release, chart, "--namespace", NAMESPACE, "--kube-version", "1.33.0"]);
    helm.args(["--show-only", template, "--set", "database.existingSecret=cellar"]);
    let rendered = helm.args(["--set", &format!("builds.launchMode={launch_mode}")]).output().await;
    let rendered = rendered.expect("helm can be run");
    assert!(rendered.status.success(), "{}", String::from_utf8_lossy(&rendered.stderr));
    let documents = serde_yaml::Deserializer::from_slice(&rendered.stdout);
    documents
        .map(|document| Value::deserialize(document).expect("YAML"))
        .filter(|document| !document.is_null())
        .collect()
}
