//! Method paketo, by a builder of the lifecycle that the cluster was given: its own buildpack presses apples, another is
//! brought as an image. Where no lifecycle was given the method is refused, and the other tests are skipped with a
//! printed reason.

use image_factory::crd::Build;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use super::{
    cluster,
    failing_builds::{each_fails, failure, told},
    registry::{private_digest, pushed},
    rows,
    tenant::{Tenant, condition, phase, status, tenant},
};

/// Runs a test where paketo is offered, in a namespace that enforces the restricted profile.
async fn with_paketo(name: &str, test: impl AsyncFnOnce(&Tenant)) {
    if cluster::paketo_image().await.is_none() {
        eprintln!("skipped: the operator has no builder of buildpacks; start it with CNB_LIFECYCLE=<folder> make up");
        return;
    }
    tenant(name, "restricted", test).await;
}

fn manifest(tenant: &Tenant, name: &str, files: Value) -> Value {
    let mut manifest = tenant.manifest(name, "paketo", "");
    manifest["spec"]["source"]["inline"]["files"] = files;
    manifest
}

fn bottle() -> String {
    format!("{}/cnb/bottle:2.1.0", cluster::registry())
}

async fn newest(tenant: &Tenant, build: &Build) -> Uuid {
    rows::id(tenant.attempts(build).await.last().expect("a row"))
}

#[derive(Debug, sqlx::FromRow)]
struct Step {
    name: String,
    status: String,
    cached: bool,
    stdout: Option<String>,
    layer_digest: Option<String>,
}

async fn steps(pool: &PgPool, id: Uuid) -> Vec<Step> {
    let rows = sqlx::query_as(
        "select step_name as name, status, cached, stdout, layer_digest from build_steps where build_id = $1 order by step_number",
    );
    rows.bind(id).fetch_all(pool).await.expect("steps can be read")
}

fn outline(steps: &[Step]) -> Vec<String> {
    let cached = |step: &Step| if step.cached { " *" } else { "" };
    steps.iter().map(|step| format!("{} {}{}", step.status, step.name, cached(step))).collect()
}

#[tokio::test]
async fn without_a_builder_paketo_is_refused_by_name() {
    if let Some(image) = cluster::paketo_image().await {
        eprintln!("skipped: the operator has {image}; start it without CNB_LIFECYCLE");
        return;
    }
    tenant("no-paketo", "restricted", async |tenant| {
        tenant.apply(&manifest(tenant, "juice", json!({"apples.txt": "gala\n"}))).await;
        let build = tenant.finished("juice", 1).await;
        let failure = status(&build)["failure"].clone();
        assert_eq!(told(&failure), ("MethodNotAvailable", "compile", None), "{failure:#}");
        assert!(failure["message"].as_str().unwrap_or_default().contains("builders.paketo.image"), "{failure:#}");
    })
    .await;
}

#[tokio::test]
async fn buildpacks_of_the_builder_and_of_an_image_build_in_a_restricted_namespace() {
    with_paketo("paketo", async |tenant| {
        let script = "echo \"told: $VARIETY, $FROM_PROJECT\"; echo \"as $(id -u):$(id -g) in $PWD\"";
        let project = "[_]\nschema-version = \"0.2\"\n[io.buildpacks]\nexclude = [\"*.md\"]\n\
            [[io.buildpacks.build.env]]\nname = \"VARIETY\"\nvalue = \"russet\"\n\
            [[io.buildpacks.build.env]]\nname = \"FROM_PROJECT\"\nvalue = \"of the project\"\n";
        let files = json!({"garden/apples.txt": "gala\n", "garden/press.sh": script, "garden/project.toml": project});
        let mut manifest = manifest(tenant, "juice", files);
        let spec = &mut manifest["spec"];
        spec["context"] = json!("garden");
        spec["buildpacks"] = json!([bottle()]);
        spec["environment"] = json!({"VARIETY": "gala $(HOME) $$"});
        spec["cache"] = json!({"repo": format!("{}/{}/cache", cluster::registry(), tenant.namespace)});
        spec["output"]["tags"] = json!(["latest"]);
        spec["output"]["labels"] = json!({"org.example.grower": "$(HOSTNAME) & \"sons\""});
        tenant.apply(&manifest).await;
        let build = tenant.finished("juice", 1).await;
        assert_eq!(phase(&build), "Success", "{:#}", status(&build));
        let id = newest(tenant, &build).await;
        let log = rows::log(&tenant.pool, id).await.join("\n");
        assert!(log.contains("told: gala $(HOME) $$, of the project"), "{log}");
        assert!(log.contains("as 1001:1000 in /workspace"), "{log}");
        assert!(log.contains("project.toml: not honoured: io.buildpacks.exclude"), "{log}");
        assert!(log.contains(&format!("buildpack orchard/bottle@2.1.0 from {}", bottle())), "{log}");

        let image = pushed(&tenant.image("juice", "1")).await;
        assert_eq!(status(&build)["image"]["digest"], image.digest);
        assert_eq!(image.digest, pushed(&tenant.image("juice", "latest")).await.digest, "both tags are one image");
        let config = &image.config["config"];
        assert_eq!(config["Labels"]["org.example.grower"], "$(HOSTNAME) & \"sons\"");
        assert_eq!(config["Entrypoint"], json!(["/cnb/process/pour"]), "the default process: {config:#}");

        let ran = steps(&tenant.pool, id).await;
        let phases = [
            "ANALYZING",
            "DETECTING",
            "RESTORING",
            "BUILDING",
            "orchard/bottle@2.1.0",
            "orchard/press@1.0.0",
            "EXPORTING",
        ];
        assert_eq!(outline(&ran), phases.map(|name| format!("success {name}")), "{log}");
        assert!(ran[5].stdout.as_deref().is_some_and(|said| said.contains("---> Pressing gala")), "{ran:#?}");
        for step in &ran[4..6] {
            let digest = step.layer_digest.as_deref().expect("a buildpack with one layer tells it");
            assert!(image.layers.iter().any(|(layer, _)| layer == digest), "{step:#?}");
        }
        let base = rows::base_image(&tenant.pool, id).await;
        assert_eq!(base, (Some(format!("{}/cnb/run", cluster::registry())), Some("1".to_owned())));
        let result = rows::build_results(&tenant.pool, id).await;
        assert!(result["artifact_push_milliseconds"].is_i64(), "{result:#}");
        assert!(rows::build_metrics(&tenant.pool, id).await["peak_memory_usage_mb"].is_number());

        manifest["metadata"]["annotations"] = json!({"imagefactory.dev/rerun": "again"});
        tenant.apply(&manifest).await;
        let build = tenant.finished("juice", 2).await;
        assert_eq!(phase(&build), "Success", "{:#}", status(&build));
        let id = newest(tenant, &build).await;
        let log = rows::log(&tenant.pool, id).await.join("\n");
        assert!(log.contains("---> Juice as before"), "the layer came from the cache: {log}");
        let ran = steps(&tenant.pool, id).await;
        assert_eq!(outline(&ran)[5], "success orchard/press@1.0.0 *", "{log}");

        manifest["spec"]["cache"]["enabled"] = json!(false);
        tenant.apply(&manifest).await;
        let build = tenant.finished("juice", 3).await;
        assert_eq!(phase(&build), "Success", "{:#}", status(&build));
        let log = rows::log(&tenant.pool, newest(tenant, &build).await).await.join("\n");
        assert!(log.contains("---> Pressing gala"), "nothing was reused: {log}");
    })
    .await;
}

#[tokio::test]
async fn failures_of_the_lifecycle_are_told_by_phase_and_buildpack() {
    with_paketo("paketo-fails", async |tenant| {
        let silent = format!("{}:9", cluster::registry().split(':').next().unwrap_or_default());
        let apples = |more: &str, text: &str| json!({"apples.txt": "gala\n", more: text});
        let nothing = manifest(tenant, "nothing", json!({"pears.txt": "anjou\n"}));
        let breaks = manifest(tenant, "detection", apples("detect-breaks", ""));
        let press = manifest(tenant, "press", apples("press-breaks", ""));
        let mut slow = manifest(tenant, "slow", apples("press.sh", "echo \"at work\"; sleep 300"));
        slow["spec"]["timeout"] = json!("8s");
        let mut push = manifest(tenant, "push", apples("a", ""));
        push["spec"]["output"]["image"] = json!(format!("{silent}/juice:1"));
        let mut missing = manifest(tenant, "missing", apples("a", ""));
        missing["spec"]["output"]["credentialsSecret"] = json!({"name": "nobody"});
        let mut empty = manifest(tenant, "empty", apples("a", ""));
        empty["spec"]["buildpacks"] = json!([format!("{}/cnb/run:1", cluster::registry())]);
        let mut unwanted = manifest(tenant, "unwanted", apples("no-bottle", ""));
        unwanted["spec"]["buildpacks"] = json!([bottle()]);
        let cases = [
            (nothing, ("DetectFailed", "build", Some(20)), "orchard/press@1.0.0 did not"),
            (breaks, ("DetectFailed", "build", Some(21)), "orchard/press@1.0.0 (3) failed at it"),
            (press, ("BuildFailed", "build", Some(3)), "orchard/press@1.0.0: failed to build: exit status 3"),
            (slow, ("TimedOut", "build", None), "spec.timeout"),
            (push, ("PushFailed", "push", Some(32)), silent.as_str()),
            (missing, ("SecretNotFound", "compile", None), "Secret nobody"),
            (empty, ("InvalidSpec", "compile", None), "spec.buildpacks[0]"),
            (unwanted, ("DetectFailed", "build", Some(20)), "orchard/bottle@2.1.0 did not"),
        ];
        each_fails(tenant, &cases).await;
    })
    .await;
}

/// The refusal is a row, and there is no Job.
#[tokio::test]
async fn images_that_are_not_allowed_are_refused() {
    with_paketo("paketo-refused", async |tenant| {
        let host = cluster::registry();
        let of_buildah = format!("{host}/buildah:1");
        let alike = format!("{host}/cnb-alike/builder:1");
        for (name, field, value, words) in [
            ("builder", "builder", json!(of_buildah), of_buildah.as_str()),
            ("alike", "builder", json!(alike), alike.as_str()),
            ("buildpack", "buildpacks", json!([bottle(), of_buildah]), "spec.buildpacks[1]"),
        ] {
            let mut manifest = manifest(tenant, name, json!({"apples.txt": "gala\n"}));
            manifest["spec"][field] = value;
            tenant.apply(&manifest).await;
            let build = tenant.finished(name, 1).await;
            let failure = status(&build)["failure"].clone();
            assert_eq!(told(&failure), ("BuilderNotAllowed", "compile", None), "{failure:#}");
            let message = failure["message"].as_str().unwrap_or_default();
            assert!(message.contains(words) && message.contains(&format!("{host}/cnb/")), "{failure:#}");
            assert_eq!(condition(&build, "Stalled").as_deref(), Some("True"));
            let id = newest(tenant, &build).await;
            assert_eq!(rows::history(&tenant.pool, id).await, "queued → failed");
            assert_eq!(tenant.jobs_of(id).await.len(), 0);
        }
    })
    .await;
}

/// The lifecycle pushes with them; a buildpack that looks for them finds nothing, in files or in processes.
#[tokio::test]
async fn buildpacks_do_not_see_the_credentials_that_the_image_is_pushed_with() {
    with_paketo("paketo-peeks", async |tenant| {
        let password = cluster::variable("REGISTRY_PRIVATE_PASSWORD");
        tenant.push_secret("push", &password).await;
        let script = "cat /image-factory-credentials/* /image-factory-push/* 2>/dev/null | grep -q . && echo \"there is a file\"\n\
            for environ in /proc/[0-9]*/environ; do\n\
            if cat $environ 2>/dev/null | tr '\\0' '\\n' | grep -q CNB_REGISTRY_AUTH; then echo \"seen in $environ\"; fi\n\
            done\n\
            cat /proc/1/environ >/dev/null 2>&1 && echo \"the agent can be read\"\n\
            cat /proc/1/mem >/dev/null 2>&1 && echo \"its memory can be read\"\n\
            echo \"that was all\"\n";
        let mut manifest = manifest(tenant, "juice", json!({"apples.txt": "gala\n", "press.sh": script}));
        manifest["spec"]["output"]["image"] = json!(tenant.private_image("juice"));
        manifest["spec"]["output"]["credentialsSecret"] = json!({"name": "push"});
        tenant.apply(&manifest).await;
        let build = tenant.finished("juice", 1).await;
        assert_eq!(phase(&build), "Success", "{:#}", status(&build));
        assert_eq!(status(&build)["image"]["digest"], private_digest(&tenant.private_image("juice")).await);
        let log = rows::log(&tenant.pool, newest(tenant, &build).await).await.join("\n");
        assert!(log.contains("that was all"), "{log}");
        for seen in ["there is a file", "seen in", "can be read", password.as_str()] {
            assert!(!log.contains(seen), "{seen}: {log}");
        }

        let mut without = manifest.clone();
        without["metadata"]["name"] = json!("denied");
        without["spec"]["output"].as_object_mut().expect("an object").remove("credentialsSecret");
        tenant.apply(&without).await;
        let build = tenant.finished("denied", 1).await;
        let failure = failure(tenant, &build).await;
        let (reason, stage, _) = told(&failure);
        assert_eq!((reason, stage), ("PushDenied", "push"), "{failure:#}");
    })
    .await;
}

/// What a buildpack leaves running would meet the credentials that the next phase is given, and could end it.
#[tokio::test]
async fn what_a_buildpack_leaves_running_does_not_reach_the_next_phase() {
    with_paketo("paketo-lurks", async |tenant| {
        // In a session of its own it is in no group of the phase's; without the output it holds no pipe of it.
        let lurker = "while :; do for comm in /proc/[0-9]*/comm; do read -r name < $comm || continue\n\
            [ \"$name\" != exporter ] || { pid=${comm#/proc/}; kill -9 ${pid%/comm}; }\n\
            done; done";
        let script = "setsid sh ./lurk.sh < /dev/null > /dev/null 2>&1 &\n\
            sleep 1; kill -0 $! && echo \"it lurks\"\n";
        let files = json!({"apples.txt": "gala\n", "press.sh": script, "lurk.sh": lurker});
        tenant.apply(&manifest(tenant, "juice", files)).await;
        let build = tenant.finished("juice", 1).await;
        assert_eq!(phase(&build), "Success", "{:#}", status(&build));
        let log = rows::log(&tenant.pool, newest(tenant, &build).await).await.join("\n");
        assert!(log.contains("it lurks"), "{log}");
    })
    .await;
}
