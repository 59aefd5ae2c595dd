//! Ends that only a fault makes: signals to the builder, an agent that is killed, a tag that someone else pushes
//! meanwhile, a node that is gone. The cluster's one node is this machine, so its processes can be reached.

use std::fs;

use image_factory::crd::BuildWorker;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::process::Command;

use super::{
    failing_builds::{each_fails, failure, told},
    nodes::beside_nodes,
    registry, rows,
    tenant::{APPLIER, Tenant, tenant},
    watching,
};

/// An instruction that sends this signal to the process the agent has started: its ancestor whose parent is the first.
fn to_the_builder(signal: &str) -> String {
    format!(
        "FROM BASE\nRUN echo \"at work\"; p=$$; \
         while q=$(awk '/^PPid/ {{ print $2 }}' /proc/$p/status); [ \"$q\" != 1 ]; do p=$q; done; \
         kill -{signal} $p; sleep 60\n"
    )
}

/// Go's runtime catches SIGSEGV and ends by itself, buildah SIGTERM.
#[tokio::test]
async fn a_signal_that_ends_the_builder_or_an_instruction_is_told() {
    tenant("signals", "privileged", async |tenant| {
        let builder = |name: &str, signal: &str| tenant.manifest(name, "container", &to_the_builder(signal));
        let cases = [
            (builder("killed", "KILL"), ("BuildFailed", "build", Some(137)), "buildah was ended by SIGKILL"),
            (builder("asked", "TERM"), ("BuildFailed", "build", Some(1)), "exit status 1"),
            (builder("crashed", "SEGV"), ("BuildFailed", "build", Some(2)), "the builder ended with exit code 2"),
            (
                tenant.manifest("itself", "buildx", "FROM BASE\nRUN sh -c 'kill -SEGV $$' || exit $?\n"),
                ("BuildFailed", "build", Some(139)),
                "exit code: 139",
            ),
        ];
        each_fails(tenant, &cases).await;
    })
    .await;
}

/// The process id, on this machine, of the first process of the Pod's container `build`.
fn agent_of(pod: &Pod) -> String {
    let uid = pod.uid().expect("a Pod has a UID");
    let written = [uid.clone(), uid.replace('-', "_")];
    let processes = fs::read_dir("/proc").expect("the node is this machine").flatten();
    let found = processes.map(|entry| entry.path()).find(|path| {
        let read = |file: &str| fs::read_to_string(path.join(file)).unwrap_or_default();
        let is_first = read("status").lines().any(|line| line.starts_with("NSpid:") && line.ends_with("\t1"));
        let cgroup = read("cgroup");
        is_first
            && written.iter().any(|uid| cgroup.contains(uid))
            && read("cmdline").contains("image-factory-agent\0run")
    });
    let path = found.expect("the agent runs on this machine");
    path.file_name().expect("a process has an id").to_string_lossy().into_owned()
}

#[tokio::test]
async fn an_agent_that_is_killed_is_lost_and_so_may_be_lines() {
    tenant("agent-lost", "baseline", async |tenant| {
        let dockerfile = "FROM BASE\nRUN echo \"at work\" && sleep 300\n";
        let build = tenant.apply(&tenant.manifest("cider", "container", dockerfile)).await;
        let id = tenant.prints(&build, "at work").await;
        let agent = agent_of(&tenant.pods_of(id).await[0]);
        let killed = Command::new("kill").args(["-KILL", &agent]).status().await.expect("kill can be run");
        assert!(killed.success());
        let failure = failure(tenant, &tenant.finished("cider", 1).await).await;
        assert_eq!(told(&failure), ("AgentLost", "build", Some(137)), "{failure:#}");
        assert_eq!(failure["message"], "the build container ended with exit code 137 (SIGKILL) and left no report");
        let log = rows::log(&tenant.pool, id).await;
        let last = "the agent left no report: whether lines of this log are lost is unknown";
        assert_eq!(log.last().map(String::as_str), Some(last), "{log:#?}");
    })
    .await;
}

/// Gives `inspect`, which has not begun, another image.
async fn inspect_by(tenant: &Tenant, pod: &str, image: &str) {
    let patch = json!({"spec": {"containers": [{"name": "inspect", "image": image}]}});
    let patched = tenant.pods().patch(pod, &PatchParams::default(), &Patch::Strategic(patch)).await;
    patched.expect("the API server accepts it");
}

#[tokio::test]
async fn a_tag_that_someone_else_pushed_before_it_was_confirmed_fails_at_verification() {
    tenant("mismatch", "baseline", async |tenant| {
        let build =
            tenant.apply(&tenant.manifest("cider", "container", "FROM BASE\nRUN echo begun && sleep 3\n")).await;
        let id = tenant.prints(&build, "begun").await;
        let pod = tenant.pods_of(id).await.remove(0);
        let (name, image) = (pod.name_any(), pod.spec.expect("a Pod has a spec").containers[0].image.clone());
        // It waits for an image that is nowhere until the other has pushed.
        inspect_by(tenant, &name, &tenant.image("never-pushed", "7")).await;
        watching::until(&tenant.pods(), &name, "the builder's end", |pod: Option<&Pod>| {
            let statuses = pod.and_then(|pod| pod.status.as_ref()?.init_container_statuses.as_ref());
            let build = statuses.into_iter().flatten().find(|status| status.name == "build");
            build.is_some_and(|status| status.state.as_ref().is_some_and(|state| state.terminated.is_some()))
        })
        .await;
        let own = registry::pushed(&tenant.image("cider", "1")).await.digest;
        let others = registry::push_over(&tenant.image("cider", "1")).await;
        inspect_by(tenant, &name, &image.expect("it has an image")).await;

        let failure = failure(tenant, &tenant.finished("cider", 1).await).await;
        assert_eq!(told(&failure), ("DigestMismatch", "verification", Some(1)), "{failure:#}");
        let message = failure["message"].as_str().unwrap_or_default();
        assert!(message.contains(&own) && message.contains(&others), "{message}");
    })
    .await;
}

/// Kubernetes deletes the Pods of a node that is no longer there.
#[tokio::test]
async fn a_build_whose_node_is_taken_away_fails_for_that() {
    tenant("node-lost", "baseline", async |tenant| {
        beside_nodes(tenant, async |[node]| {
            let workers: Api<BuildWorker> = Api::namespaced(tenant.client.clone(), &tenant.namespace);
            let spec = node.worker(json!({"type": "kubernetes", "concurrentBuilds": 1}));
            let worker = json!({
                "apiVersion": "imagefactory.dev/v1alpha1", "kind": "BuildWorker", "metadata": {"name": "far"}, "spec": spec,
            });
            let params = PatchParams::apply(APPLIER).force();
            workers.patch("far", &params, &Patch::Apply(&worker)).await.expect("the API server accepts it");
            let mut manifest = tenant.manifest("cider", "container", "FROM BASE\nRUN true\n");
            manifest["spec"]["worker"] = json!({"name": "far"});
            manifest["spec"]["retries"] = json!({"limit": 0});
            let build = tenant.apply(&manifest).await;
            watching::eventually("its Pod to be given to the node", async || {
                let id = rows::id(tenant.attempts(&build).await.last()?);
                tenant.pods_of(id).await.pop()?.spec?.node_name.filter(|name| *name == node.name)
            })
            .await;
            node.delete().await;
            let failure = failure(tenant, &tenant.finished("cider", 1).await).await;
            assert_eq!(told(&failure), ("NodeLost", "build", None), "{failure:#}");
        })
        .await;
    })
    .await;
}
