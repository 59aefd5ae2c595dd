//! What a run uses, counted in the container that does the work, and what becomes of one that uses more than it may.

use image_factory_core::report::{AgentReport, Usage};
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use serde_json::{Value, json};

use super::{
    cluster,
    failing_builds::{failure, told},
    rows,
    tenant::{Tenant, phase, status, tenant},
    watching,
};

const MEBIBYTE: u64 = 1024 * 1024;

/// Takes so many MiB of memory for a while: dd fills a buffer of that size.
fn taking(mebibytes: u64) -> String {
    format!("FROM BASE\nRUN dd if=/dev/zero of=/dev/null bs={mebibytes}M count=4\n")
}

/// What the agent of the newest attempt says that was used.
async fn usage(tenant: &Tenant, name: &str) -> Usage {
    let build = tenant.builds().get(name).await.expect("the Build is there");
    let attempt = rows::id(&tenant.attempts(&build).await[0]);
    let pod: &Pod = &tenant.pods_of(attempt).await[0];
    let statuses = pod.status.as_ref().and_then(|status| status.init_container_statuses.as_ref());
    let build = statuses.into_iter().flatten().find(|status| status.name == "build").expect("it ran");
    let end = build.state.as_ref().and_then(|state| state.terminated.as_ref()).expect("it ended");
    AgentReport::decode(end.message.as_deref().unwrap_or_default().as_bytes()).expect("it left a report").usage
}

#[tokio::test]
async fn what_a_run_uses_is_counted_where_its_work_is_done() {
    tenant("usage", "privileged", async |tenant| {
        for method in ["buildx", "container"] {
            tenant.apply(&tenant.manifest(method, method, &taking(300))).await;
        }
        for method in ["buildx", "container"] {
            let build = tenant.finished(method, 1).await;
            assert_eq!(phase(&build), "Success", "{:#}", status(&build));
            let usage = usage(tenant, method).await;
            assert!(usage.memory_peak_bytes > Some(300 * MEBIBYTE), "{method}: {usage:?}");
            assert!(usage.cpu_microseconds > Some(10_000) && usage.milliseconds > Some(100), "{method}: {usage:?}");
            assert_eq!(usage.oom_kills, Some(0), "{method}: {usage:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_build_that_takes_more_memory_than_it_may_is_told_so() {
    tenant("out-of-memory", "privileged", async |tenant| {
        for method in ["buildx", "container"] {
            let mut manifest = tenant.manifest(method, method, &taking(900));
            manifest["spec"]["resources"] = json!({"requests": {"memory": "64Mi"}, "limits": {"memory": "256Mi"}});
            tenant.apply(&manifest).await;
        }
        for method in ["buildx", "container"] {
            let build = tenant.finished(method, 1).await;
            let failure = failure(tenant, &build).await;
            let (reason, stage, _) = told(&failure);
            assert_eq!((reason, stage), ("OutOfMemory", "build"), "{method}: {failure:#}");
            let message = failure["message"].as_str().unwrap_or_default();
            assert!(message.contains("spec.resources.limits.memory"), "{message}");
            let usage = usage(tenant, method).await;
            assert!(usage.oom_kills > Some(0), "{method}: {usage:?}");
            assert!(usage.memory_peak_bytes <= Some(256 * MEBIBYTE), "{method}: {usage:?}");
        }
    })
    .await;
}

/// Writes so many MiB to a disk; in the end they are there, and not only in memory.
fn writing(file: &str) -> String {
    format!("dd if=/dev/zero of={file} bs=1M count={WRITTEN} conv=fsync")
}

const WRITTEN: u64 = 20;

/// Whether the node counts what a container writes: a container that has written is asked what its own
/// control group says. Version 1 says nothing but a total of nothing where the kernel doesn't count.
async fn the_node_counts_writes(tenant: &Tenant) -> bool {
    let files = "/sys/fs/cgroup/io.stat /sys/fs/cgroup/blkio/blkio.throttle.io_service_bytes";
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "witness"},
        "spec": {
            "restartPolicy": "Never",
            "volumes": [{"name": "disk", "emptyDir": {}}],
            "containers": [{
                "name": "witness", "image": format!("{}/busybox:1", cluster::registry()),
                "command": ["sh", "-c", format!("{} && cat {files}; true", writing("/disk/written"))],
                "volumeMounts": [{"name": "disk", "mountPath": "/disk"}],
            }],
        },
    }))
    .expect("a Pod");
    tenant.pods().create(&PostParams::default(), &pod).await.expect("the Pod can be made");
    watching::until(&tenant.pods(), "witness", "its end", |pod: Option<&Pod>| {
        pod.and_then(|pod| pod.status.as_ref()?.phase.as_deref()).is_some_and(|phase| phase == "Succeeded")
    })
    .await;
    let said = tenant.container_log("witness", "witness").await;
    let counts = said.iter().any(|line| line.contains(" wbytes=") || line.contains(" Write "));
    eprintln!("the node counts what is written: {counts}, by {said:?}");
    counts
}

#[tokio::test]
async fn what_a_run_writes_to_a_disk_is_counted_or_null_where_the_node_does_not_count() {
    tenant("disk-writes", "privileged", async |tenant| {
        for method in ["buildx", "container"] {
            let dockerfile = format!("FROM BASE\nRUN {} && rm /written\n", writing("/written"));
            tenant.apply(&tenant.manifest(method, method, &dockerfile)).await;
        }
        let counts = the_node_counts_writes(tenant).await;
        for method in ["buildx", "container"] {
            let build = tenant.finished(method, 1).await;
            assert_eq!(phase(&build), "Success", "{:#}", status(&build));
            let attempt = rows::id(&tenant.attempts(&build).await[0]);
            let metrics = rows::build_metrics(&tenant.pool, attempt).await;
            let written = &metrics["disk_write_bytes"];
            if counts {
                assert!(written.as_u64() >= Some(WRITTEN * MEBIBYTE), "{method}: {metrics:#}");
            } else {
                assert_eq!(*written, Value::Null, "{method}: not counted is not nothing: {metrics:#}");
            }
        }
    })
    .await;
}
