//! `spec.options`, by what can be seen of them: in the image, in the registry, in the log. What both builders can do is
//! asked of both by the same manifest.

use image_factory::crd::Build;
use serde_json::{Value, json};

use super::{
    cluster,
    registry::{self, Pushed, pushed, text_of},
    rows,
    tenant::{Tenant, phase, status, tenant},
};

const PRESS: &str = "FROM BASE\n\
    COPY apples.txt /apples.txt\n\
    RUN echo \"at the press\" && mkdir /scratch && tr a-z A-Z < /apples.txt > /juice.txt && cp /juice.txt /scratch/pulp.txt\n\
    RUN rm /bin/true\n\
    CMD [\"cat\", \"/juice.txt\"]\n";

fn manifest(tenant: &Tenant, method: &str, options: &Value) -> Value {
    let mut manifest = tenant.manifest("cider", method, PRESS);
    manifest["spec"]["source"]["inline"]["files"]["apples.txt"] = json!("gala\n");
    manifest["spec"]["options"] = options.clone();
    manifest
}

/// The next run of the Build, which succeeds.
async fn built(tenant: &Tenant, manifest: &Value, run: i32) -> (Build, Pushed) {
    tenant.apply(manifest).await;
    let build = tenant.finished("cider", run).await;
    assert_eq!(phase(&build), "Success", "{:#}", status(&build));
    (build, pushed(&tenant.image("cider", "1")).await)
}

async fn newest_log(tenant: &Tenant, build: &Build) -> String {
    let attempt = tenant.attempts(build).await.pop().expect("a row");
    rows::log(&tenant.pool, rows::id(&attempt)).await.join("\n")
}

/// What a person asks for by the same words of either.
async fn shared(method: &str) {
    tenant(&format!("{method}-options"), "baseline", async |tenant| {
        let base = pushed(&format!("{}/busybox:1", cluster::registry())).await.layers.len();
        let (_, plain) = built(tenant, &manifest(tenant, method, &json!({})), 1).await;
        assert!(plain.layers.len() > base + 1, "{plain:?}");

        let options = json!({"squash": true, "format": "docker"});
        let (build, squashed) = built(tenant, &manifest(tenant, method, &options), 2).await;
        assert_eq!(squashed.layers.len(), base + 1, "one layer above the base: {squashed:?}");
        assert_eq!(squashed.layers[..base], plain.layers[..base], "the base's own layers stay");
        let (layer, _) = squashed.layers.last().expect("a layer");
        let image = tenant.image("cider", "1");
        assert_eq!(text_of(&image, layer, "juice.txt").await, "GALA\n");
        let paths = registry::paths(&image, layer).await;
        for path in ["apples.txt", "scratch/pulp.txt", "bin/.wh.true"] {
            assert!(paths.iter().any(|found| found.ends_with(path)), "{path} in {paths:?}");
        }
        let docker = "application/vnd.docker.distribution.manifest.v2+json";
        assert_eq!(registry::manifest(&image).await["mediaType"], docker);
        let id = rows::id(&tenant.attempts(&build).await.pop().expect("a row"));
        assert_eq!(rows::build_configs(&tenant.pool, id).await["metadata"], options);
        let steps: Vec<(String, String)> =
            sqlx::query_as("select instruction_type, status from build_steps where build_id = $1 order by step_number")
                .bind(id)
                .fetch_all(&tenant.pool)
                .await
                .expect("steps can be read");
        let expected = ["FROM", "COPY", "RUN", "RUN", "CMD"].map(|word| (word.to_owned(), "success".to_owned()));
        assert_eq!(steps, expected);

        let (_, plain) = built(tenant, &manifest(tenant, method, &json!({"format": "oci"})), 3).await;
        let oci = "application/vnd.oci.image.manifest.v1+json";
        assert_eq!(registry::manifest(&image).await["mediaType"], oci);

        let mut manifest = manifest(tenant, method, &json!({"reproducible": true}));
        let (_, first) = built(tenant, &manifest, 4).await;
        assert_eq!(first.layers.len(), plain.layers.len());
        manifest["metadata"]["annotations"] = json!({"imagefactory.dev/rerun": "again"});
        let (_, second) = built(tenant, &manifest, 5).await;
        assert_eq!(second.digest, first.digest, "the same files, the same digest");
    })
    .await;
}

#[tokio::test]
async fn container_squashes_chooses_the_format_and_builds_the_same_digest_twice() {
    shared("container").await;
}

#[tokio::test]
async fn kaniko_does_so_by_the_same_words() {
    if !has_kaniko().await {
        return;
    }
    shared("kaniko").await;
}

#[tokio::test]
async fn kaniko_alone_caches_copies_leaves_paths_out_and_finds_changes_in_other_ways() {
    if !has_kaniko().await {
        return;
    }
    tenant("kaniko-own", "baseline", async |tenant| {
        let options = json!({
            "snapshotMode": "full", "ignorePaths": ["/scratch"], "cacheCopyLayers": true, "compressedCaching": false,
            "cacheTtl": "12h",
        });
        let mut manifest = manifest(tenant, "kaniko", &options);
        manifest["spec"]["cache"] = json!({"repo": format!("{}/{}/cache", cluster::registry(), tenant.namespace)});
        let (_, image) = built(tenant, &manifest, 1).await;
        let (name, mut paths) = (tenant.image("cider", "1"), Vec::new());
        for (layer, _) in &image.layers {
            paths.extend(registry::paths(&name, layer).await);
        }
        let has = |paths: &[String], path: &str| paths.iter().any(|found| found == path);
        assert!(has(&paths, "juice.txt") && has(&paths, "usr/bin/.wh.true"), "{paths:?}");
        assert!(!paths.iter().any(|path| path.starts_with("scratch")), "{paths:?}");

        manifest["metadata"]["annotations"] = json!({"imagefactory.dev/rerun": "again"});
        let (build, _) = built(tenant, &manifest, 2).await;
        let log = newest_log(tenant, &build).await;
        assert!(log.contains("Using caching version of cmd: COPY apples.txt"), "{log}");
        assert!(log.contains("Using caching version of cmd: RUN rm /bin/true"), "{log}");

        manifest["spec"]["options"]["useNewRun"] = json!(true);
        manifest["spec"]["cache"]["enabled"] = json!(false);
        let (_, image) = built(tenant, &manifest, 3).await;
        let mut paths = Vec::new();
        for (layer, _) in &image.layers {
            paths.extend(registry::paths(&name, layer).await);
        }
        assert!(has(&paths, "juice.txt"), "{paths:?}");
        assert!(!has(&paths, "usr/bin/.wh.true"), "what the documentation warns of holds: {paths:?}");
    })
    .await;
}

async fn has_kaniko() -> bool {
    let found = cluster::kaniko_image().await.is_some();
    if !found {
        eprintln!("skipped: the operator has no image of kaniko; start it with KANIKO_EXECUTOR=<file> make up");
    }
    found
}
