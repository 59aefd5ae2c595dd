//! The main path: from `kubectl apply` to a pushed image and its rows, by each method. The cluster, the
//! rows and the registry must agree.

use image_factory_core::inputs;
use image_factory_core::labels;
use jiff::Timestamp;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod, events::v1::Event};
use kube::{Api, ResourceExt, api::ListParams};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    registry::pushed,
    rows,
    tenant::{APPLIER, Tenant, condition, phase, status, tenant},
    users, watching,
};

const PRESS: &str = r#"FROM BASE AS press
COPY apples.txt /apples.txt
RUN for i in $(seq 1 20); do echo "pressing $i"; done; tr a-z A-Z < /apples.txt > /juice.txt

FROM BASE
COPY --from=press /juice.txt /juice.txt
CMD ["cat", "/juice.txt"]
"#;

#[tokio::test]
async fn buildx_builds_two_stages_and_pushes_what_rows_status_and_registry_agree_on() {
    two_stages("buildx", "privileged").await;
}

#[tokio::test]
async fn container_builds_two_stages_and_pushes_what_rows_status_and_registry_agree_on() {
    two_stages("container", "baseline").await;
}

async fn two_stages(method: &str, level: &str) {
    tenant(&format!("{method}-stages"), level, async |tenant| {
        let mut manifest = tenant.manifest("cider", method, PRESS);
        manifest["spec"]["project"] = json!("press");
        manifest["spec"]["source"]["inline"]["files"]["apples.txt"] = json!("gala\n");
        // A test beside this one may declare a worker that fits.
        manifest["spec"]["worker"] = json!({"name": "cluster"});
        tenant.apply(&manifest).await;
        let build = tenant.finished("cider", 1).await;
        assert_eq!(phase(&build), "Success");

        let id = one_success(tenant, &build, &manifest).await;
        let pod = one_pod(tenant, id, &build, method, "press").await;
        whole_log(tenant, id, &pod).await;
        if method == "buildx" {
            digest_of_buildx(tenant, id, &pod).await;
        }
        two_events(tenant).await;

        let config = rows::build_configs(&tenant.pool, id).await;
        assert_eq!(config["dockerfile"], manifest["spec"]["source"]["inline"]["files"]["Dockerfile"]);
        assert_eq!(config["build_context"], ".");
        assert_eq!(config["cache_enabled"], true);
        for column in
            ["target_stage", "platforms", "cache_from", "cache_to", "cache_repo", "builder", "packer_template"]
        {
            assert_eq!(config[column], Value::Null, "{column}");
        }
        let image = pushed(&tenant.image("cider", "1")).await;
        assert_eq!(image.config["config"]["Cmd"], json!(["cat", "/juice.txt"]));
    })
    .await;
}

#[tokio::test]
async fn container_builds_a_stage_of_a_folder_with_arguments_labels_and_two_tags() {
    let dockerfile = r#"FROM BASE AS press
ARG VARIETY=unknown
ENV VARIETY=$VARIETY
COPY apples.txt /apples.txt
RUN echo "pressing $VARIETY" && grep gala /apples.txt

FROM press AS bottle
RUN echo "this stage is not asked for" && exit 1
"#;
    tenant("container", "baseline", async |tenant| {
        let mut manifest = tenant.manifest("cider", "container", dockerfile);
        let files = &mut manifest["spec"]["source"]["inline"]["files"];
        files["orchard/Presses"] = files["Dockerfile"].take();
        files["orchard/apples.txt"] = json!("gala\n");
        files["Dockerfile"] = json!("FROM nowhere.invalid/not-this-one");
        manifest["spec"]["context"] = json!("orchard");
        manifest["spec"]["dockerfile"] = json!("Presses");
        manifest["spec"]["target"] = json!("press");
        manifest["spec"]["buildArgs"] = json!({"VARIETY": "gala $(HOME) $HOME"});
        manifest["spec"]["worker"] = json!({"name": "cluster"});
        manifest["spec"]["output"]["tags"] = json!(["latest"]);
        manifest["spec"]["output"]["labels"] = json!({"org.example.grower": "$(HOSTNAME) & sons"});
        tenant.apply(&manifest).await;
        let build = tenant.finished("cider", 1).await;
        assert_eq!(phase(&build), "Success");

        let id = one_success(tenant, &build, &manifest).await;
        let pod = one_pod(tenant, id, &build, "container", "default").await;
        whole_log(tenant, id, &pod).await;
        two_events(tenant).await;

        let config = rows::build_configs(&tenant.pool, id).await;
        assert_eq!(config["dockerfile"], manifest["spec"]["source"]["inline"]["files"]["orchard/Presses"]);
        assert_eq!(config["build_context"], "orchard");
        assert_eq!(config["target_stage"], "press");
        assert_eq!(config["build_args"], manifest["spec"]["buildArgs"]);

        let image = pushed(&tenant.image("cider", "1")).await;
        assert_eq!(image.digest, pushed(&tenant.image("cider", "latest")).await.digest, "both tags are one image");
        assert_eq!(image.config["config"]["Labels"]["org.example.grower"], "$(HOSTNAME) & sons");
        let environment = image.config["config"]["Env"].as_array().expect("the image has an environment");
        assert!(environment.contains(&json!("VARIETY=gala $(HOME) $HOME")), "{environment:?}");
    })
    .await;
}

/// Rows, status and registry of a Build with exactly one run, which succeeded; gives the attempt's id.
async fn one_success(tenant: &Tenant, build: &image_factory::crd::Build, manifest: &Value) -> Uuid {
    let pool = &tenant.pool;
    let attempts = tenant.attempts(build).await;
    assert_eq!(attempts.len(), 1, "one run, one attempt");
    let row = &attempts[0];
    let id = rows::id(row);
    assert_eq!(rows::history(pool, id).await, "queued → in_progress → success");

    let spec = serde_json::to_value(&build.spec).expect("a spec is JSON");
    let image = manifest["spec"]["output"]["image"].as_str().expect("an image");
    let (repository, tag) = image.rsplit_once(':').expect("an image with a tag");
    let expected = json!({
        "status": "success", "tenant": tenant.namespace, "project": spec["project"], "repository": repository,
        "tag": tag, "worker": "cluster", "build_number": 1, "run": 1, "attempt": 1, "priority": 0,
        "resource_namespace": tenant.namespace, "resource_name": build.name_any(), "resource_uid": build.uid(),
        "inputs_hash": inputs::hash(&spec), "observed_generation": 1, "observed_rerun": null,
        "error_message": null, "git_commit": null, "git_branch": null,
        "not_before": null, "cancel_requested_at": null, "cancel_reason": null, "cleanup_at": null,
    });
    for (column, value) in expected.as_object().expect("an object") {
        assert_eq!(&row[column], value, "builds.{column}");
    }
    let time = |column: &str| -> Timestamp {
        let text = row[column].as_str().unwrap_or_else(|| unreachable!("builds.{column} is null"));
        text.parse().expect("a time")
    };
    assert!(time("queued_at") <= time("started_at"));
    assert!(time("started_at") <= time("job_created_at"));
    assert!(time("job_created_at") < time("completed_at"));
    assert!(time("completed_at") < time("cleanup_due_at"));

    let trigger = rows::build_triggers(pool, id).await;
    let expected =
        if users::are_recorded(&tenant.client).await { Some(users::username(&tenant.client).await) } else { None };
    assert_eq!(trigger["trigger_type"], "manual");
    assert_eq!(row["triggered_by_user_id"], trigger["created_by_user_id"]);
    let said = users::trigger(tenant, &trigger).await;
    assert_eq!(said, (expected.clone().unwrap_or_else(|| APPLIER.to_owned()), expected));
    let config = rows::build_configs(pool, id).await;
    assert_eq!(config["build_method"], spec["method"]);
    assert_eq!(config["spec"], spec);
    assert_eq!((&config["environment"], &config["secrets"], &config["metadata"]), (&json!({}), &json!([]), &json!({})));

    let registry = pushed(image).await;
    let result = rows::build_results(pool, id).await;
    let expected = json!({
        "status": "success", "exit_code": 0, "output_image_url": image, "output_image_digest": registry.digest,
        "output_image_id": row["image_id"], "project_id": row["project_id"], "failure_reason": null,
        "failure_stage": null, "retry_count": 0, "is_retry": false, "original_build_id": null,
        "cleanup_status": "pending",
    });
    for (column, value) in expected.as_object().expect("an object") {
        assert_eq!(&result[column], value, "build_results.{column}");
    }
    let milliseconds =
        |column: &str| result[column].as_i64().unwrap_or_else(|| unreachable!("build_results.{column} is null"));
    let (total, waited) = (milliseconds("total_duration_milliseconds"), milliseconds("queue_wait_milliseconds"));
    let (executed, pushing) =
        (milliseconds("build_execution_milliseconds"), milliseconds("artifact_push_milliseconds"));
    assert!(executed > 0 && pushing <= executed && waited + executed <= total, "{result:#}");
    let spent = time("completed_at").as_millisecond() - time("queued_at").as_millisecond();
    assert!((total - spent).abs() <= 1, "{total} ms are the {spent} ms from the queue to the end");

    let artifacts = rows::artifacts(pool, id).await;
    let further = manifest["spec"]["output"]["tags"].as_array().cloned().unwrap_or_default();
    let mut names = vec![image.to_owned()];
    names.extend(further.iter().map(|tag| format!("{repository}:{}", tag.as_str().expect("a tag is text"))));
    assert_eq!(artifacts.len(), names.len());
    for name in names {
        let artifact = artifacts.iter().find(|artifact| artifact["artifact_name"] == json!(name)).expect("one a tag");
        let is_own = artifact["image_id"] == row["image_id"];
        assert_eq!(is_own, name == image, "each tag is an image of its own");
        let expected = json!({
            "artifact_type": "docker_image", "artifact_location": format!("{name}@{}", registry.digest),
            "sha256_digest": registry.digest, "artifact_size_bytes": registry.layer_bytes,
            "project_id": row["project_id"],
        });
        for (column, value) in expected.as_object().expect("an object") {
            assert_eq!(&artifact[column], value, "build_artifacts.{column}");
        }
    }

    let shown = status(build);
    let expected = json!({
        "observedGeneration": 1, "buildId": row["id"], "buildNumber": 1, "run": 1, "attempt": 1, "worker": "cluster",
        "image": {"reference": image, "digest": registry.digest, "sizeBytes": registry.layer_bytes},
        "queue": null, "failure": null,
    });
    for (field, value) in expected.as_object().expect("an object") {
        assert_eq!(&shown[field], value, "status.{field}");
    }
    for (field, column) in [("queuedAt", "queued_at"), ("startedAt", "started_at"), ("completedAt", "completed_at")] {
        let at: Timestamp = shown[field].as_str().and_then(|text| text.parse().ok()).expect("a time");
        assert_eq!(at, time(column), "status.{field}");
    }
    let conditions = ["Succeeded", "Finished", "Reconciling", "Stalled"].map(|kind| condition(build, kind));
    assert_eq!(conditions, [Some("True".to_owned()), Some("True".to_owned()), None, None]);
    id
}

/// The one Job and its one Pod: whose they are, and that the Pod has no right to speak to the cluster.
async fn one_pod(tenant: &Tenant, id: Uuid, build: &image_factory::crd::Build, method: &str, project: &str) -> String {
    let jobs: Vec<Job> = tenant.jobs_of(id).await;
    let pods: Vec<Pod> = tenant.pods_of(id).await;
    let ([job], [pod]) = (jobs.as_slice(), pods.as_slice()) else {
        unreachable!("one Job and one Pod, not {} and {}", jobs.len(), pods.len())
    };
    assert_eq!(status(build)["job"], job.name_any());
    let [owner] = job.owner_references() else { unreachable!("the Job has one owner") };
    assert_eq!((owner.kind.as_str(), owner.name.as_str()), ("Build", build.name_any().as_str()));
    assert_eq!((Some(owner.uid.clone()), owner.controller), (build.uid(), Some(true)));
    for labelled in [job.labels(), pod.labels()] {
        for (label, value) in [
            (labels::BUILD_ID, id.to_string()),
            (labels::BUILD, build.name_any()),
            (labels::PROJECT, project.to_owned()),
            (labels::METHOD, method.to_owned()),
            (labels::WORKER, "cluster".to_owned()),
        ] {
            assert_eq!(labelled.get(label), Some(&value), "{label}");
        }
    }
    assert_eq!(pod.annotations().get("kubectl.kubernetes.io/default-container").map(String::as_str), Some("build"));
    let spec = serde_json::to_value(&pod.spec).expect("a Pod is JSON");
    assert_eq!(spec["automountServiceAccountToken"], false);
    let text = spec.to_string();
    assert!(!text.contains("serviceAccountToken\"") && !text.contains("serviceaccount"), "no token is mounted: {text}");
    assert!(!text.contains("hostPath") && spec["hostNetwork"].is_null() && spec["hostPID"].is_null(), "{text}");
    pod.name_any()
}

/// What the containers printed is what is stored: every line, in order, once, and none of our own.
async fn whole_log(tenant: &Tenant, id: Uuid, pod: &str) {
    let mut printed = tenant.container_log(pod, "prepare").await;
    let build = tenant.container_log(pod, "build").await;
    assert!(!printed.is_empty() && build.len() > 5, "{printed:?} {build:?}");
    printed.extend(build);
    let stored = rows::log(&tenant.pool, id).await;
    assert_eq!(stored.join("\n"), printed.join("\n"));
    let (levels, cursors): (Vec<String>, i64) = sqlx::query_as(
        "select array(select distinct log_level from build_logs where build_id = $1 and log_level in ('WARN', 'ERROR')),
                (select count(*) from build_log_cursors where build_id = $1 and finished)",
    )
    .bind(id)
    .fetch_one(&tenant.pool)
    .await
    .expect("the log can be read");
    assert_eq!((levels, cursors), (vec![], 2), "no warning, and both containers were read to their end");
}

/// The row's digest is the one that `inspect` read from buildx's metadata file, and the one that BuildKit says it pushed.
/// The file itself is on the Pod's own volume, and out of sight once the Pod has ended.
async fn digest_of_buildx(tenant: &Tenant, id: Uuid, pod: &str) {
    let digest = rows::build_results(&tenant.pool, id).await["output_image_digest"].clone();
    let document = tenant.container_log(pod, "inspect").await.join("\n");
    let document: Value = serde_json::from_str(&document).expect("inspect prints JSON");
    assert_eq!(document["digest"], digest);
    let says = format!("pushing manifest for {}@", tenant.image("cider", "1"));
    let log = rows::log(&tenant.pool, id).await;
    let pushed =
        log.iter().find_map(|line| line.split_once(&says)?.1.split(' ').next()).expect("it says what it pushes");
    assert_eq!(json!(pushed), digest, "{log:#?}");
}

/// People see in `kubectl describe` that the build started and that it succeeded; once each.
async fn two_events(tenant: &Tenant) {
    let events: Api<Event> = Api::namespaced(tenant.client.clone(), &tenant.namespace);
    watching::eventually("the Event of the success", async || {
        let mut ours: Vec<Event> = events.list(&ListParams::default()).await.expect("Events can be listed").items;
        ours.retain(|event| event.regarding.as_ref().and_then(|object| object.kind.as_deref()) == Some("Build"));
        let mut reasons: Vec<_> = ours.iter().filter_map(|event| event.reason.as_deref()).collect();
        reasons.sort_unstable();
        (reasons.len() > 1).then(|| assert_eq!(reasons, ["Started", "Succeeded"]))
    })
    .await;
}
