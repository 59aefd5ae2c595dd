//! What the rows say of a pushed image is what the registry says, which the test asks itself: manifest, configuration
//! and every layer, unpacked. And what a second build of it reused is what both manifests have.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    cluster,
    registry::{Pushed, pushed, unpacked_bytes},
    rows,
    tenant::{Tenant, phase, tenant},
};

const CELLAR: &str = r#"ARG TAG=none
FROM HOST/busybox:$TAG AS press
COPY apples.txt /apples.txt
RUN tr a-z A-Z < /apples.txt > /juice.txt && seq 1 200000 > /pulp.txt

FROM press AS never
RUN exit 1

FROM HOST/busybox:${TAG:-none} AS bottle
COPY --from=press /juice.txt /juice.txt
COPY label.txt /label.txt
ENV CELLAR_TOKEN=hunter2 VINTAGE=2026
WORKDIR /cellar
ENTRYPOINT ["cat"]
CMD ["/juice.txt"]
"#;

#[tokio::test]
async fn the_rows_of_an_image_by_buildx_are_what_the_registry_says() {
    cellar("buildx", "privileged").await;
}

#[tokio::test]
async fn the_rows_of_an_image_by_container_are_what_the_registry_says() {
    cellar("container", "baseline").await;
}

#[tokio::test]
async fn the_rows_of_an_image_by_kaniko_are_what_the_registry_says() {
    if cluster::kaniko_image().await.is_none() {
        eprintln!("skipped: the operator has no image of kaniko; start it with KANIKO_EXECUTOR=<file> make up");
        return;
    }
    cellar("kaniko", "baseline").await;
}

async fn cellar(method: &str, level: &str) {
    tenant(&format!("{method}-facts"), level, async |tenant| {
        let mut manifest = tenant.manifest("cider", method, &CELLAR.replace("HOST", &cluster::registry()));
        let files = &mut manifest["spec"]["source"]["inline"]["files"];
        files["apples.txt"] = json!("gala\n");
        files["label.txt"] = json!("first\n");
        manifest["spec"]["target"] = json!("bottle");
        manifest["spec"]["buildArgs"] = json!({"TAG": "1"});
        manifest["spec"]["output"]["tags"] = json!(["latest"]);
        tenant.apply(&manifest).await;
        let build = tenant.finished("cider", 1).await;
        assert_eq!(phase(&build), "Success");
        let first = rows::id(&tenant.attempts(&build).await[0]);
        let image = pushed(&tenant.image("cider", "1")).await;
        let base = pushed(&format!("{}/busybox:1", cluster::registry())).await.layers.len();
        assert!(base > 0 && image.layers.len() > base, "{image:?}");
        described(tenant, first, &image, base).await;
        layers_are(tenant, first, &image, base).await;
        costs(tenant, method, first, &image, &BTreeSet::new(), base).await;

        // One line changes.
        manifest["spec"]["source"]["inline"]["files"]["label.txt"] = json!("second\n");
        tenant.apply(&manifest).await;
        let build = tenant.finished("cider", 2).await;
        assert_eq!(phase(&build), "Success");
        let second = rows::id(tenant.attempts(&build).await.last().expect("a row"));
        let changed = pushed(&tenant.image("cider", "1")).await;
        assert_ne!(changed.digest, image.digest);
        described(tenant, second, &changed, base).await;
        layers_are(tenant, second, &changed, base).await;
        let before = image.layers.iter().map(|(digest, _)| digest.clone()).collect();
        costs(tenant, method, second, &changed, &before, base).await;
    })
    .await;
}

async fn json_of(tenant: &Tenant, query: &'static str, id: Uuid) -> Vec<Value> {
    sqlx::query_scalar(query).bind(id).fetch_all(&tenant.pool).await.expect("rows can be read")
}

fn compare(what: &str, row: &Value, expected: &Value) {
    for (column, value) in expected.as_object().expect("an object") {
        assert_eq!(&row[column], value, "{what}.{column}");
    }
}

/// `build_images`, and `image_metadata` of both tags.
async fn described(tenant: &Tenant, build: Uuid, image: &Pushed, base: usize) {
    let unpacked: u64 = unpacked_bytes(&tenant.image("cider", "1"), image).await;
    let environment: Vec<String> = image.config["config"]["Env"]
        .as_array()
        .expect("an environment")
        .iter()
        .map(|variable| variable.as_str().unwrap_or_default().replace("hunter2", "***"))
        .collect();
    assert!(environment.contains(&"CELLAR_TOKEN=***".to_owned()), "{environment:?}");
    let configuration = json!({
        "entrypoint": ["cat"], "cmd": ["/juice.txt"], "env_vars": environment, "working_dir": "/cellar",
        "compressed_size_bytes": image.layer_bytes, "uncompressed_size_bytes": unpacked,
    });
    let own = json_of(tenant, "select to_jsonb(i) from build_images i where build_id = $1", build).await;
    let [own] = own.as_slice() else { unreachable!("one platform: {own:?}") };
    compare("build_images", own, &configuration);
    let digests: Vec<&String> = image.layers.iter().map(|(digest, _)| digest).collect();
    let sizes: Vec<i64> = image.layers.iter().map(|(_, size)| *size).collect();
    let expected = json!({
        "platform": "linux/amd64", "manifest_digest": image.digest, "config_digest": image.config_digest,
        "layer_count": digests.len(), "layer_digests": digests, "layer_sizes_bytes": sizes, "base_layer_count": base,
        "base_image_name": format!("{}/busybox", cluster::registry()), "base_image_tag": "1",
    });
    compare("build_images", own, &expected);

    let query = "select to_jsonb(m) || jsonb_build_object('tag', i.tag) from build_artifacts a
                 join images i on i.id = a.image_id join image_metadata m on m.image_id = i.id where a.build_id = $1 order by i.tag";
    let tags = json_of(tenant, query, build).await;
    assert_eq!(tags.iter().map(|row| row["tag"].clone()).collect::<Vec<_>>(), ["1", "latest"]);
    for row in &tags {
        compare("image_metadata", row, &configuration);
        let expected = json!({
            "docker_manifest_digest": image.digest, "docker_config_digest": image.config_digest,
            "total_layer_count": digests.len(), "packages_count": null, "last_scanned_at": null,
        });
        compare("image_metadata", row, &expected);
    }
}

/// `image_layers` of both tags.
async fn layers_are(tenant: &Tenant, build: Uuid, image: &Pushed, base: usize) {
    for tag in ["1", "latest"] {
        let rows: Vec<Value> = sqlx::query_scalar(
            "select to_jsonb(l) from image_layers l join build_artifacts a on a.image_id = l.image_id join images i on i.id = a.image_id
             where a.build_id = $1 and i.tag = $2 order by l.layer_number",
        )
        .bind(build)
        .bind(tag)
        .fetch_all(&tenant.pool)
        .await
        .expect("layers can be read");
        assert_eq!(rows.len(), image.layers.len());
        for (place, (row, (digest, size))) in rows.iter().zip(&image.layers).enumerate() {
            let is_base = place < base;
            let expected = json!({
                "layer_number": place + 1, "layer_digest": digest, "layer_size_bytes": size, "is_base_layer": is_base,
                "base_image_name": is_base.then(|| format!("{}/busybox", cluster::registry())),
                "base_image_tag": is_base.then_some("1"),
            });
            compare("image_layers", row, &expected);
        }
    }
}

/// `build_metrics` and the counts of the layers, where `before` are the layers of the build before.
async fn costs(tenant: &Tenant, method: &str, build: Uuid, image: &Pushed, before: &BTreeSet<String>, base: usize) {
    let row = rows::build_metrics(&tenant.pool, build).await;
    let unpacked = unpacked_bytes(&tenant.image("cider", "1"), image).await;
    let reused =
        image.layers.iter().enumerate().filter(|(place, (digest, _))| *place < base || before.contains(digest)).count();
    let expected = json!({
        "total_layers": image.layers.len(), "reused_layers": reused, "new_layers": image.layers.len() - reused,
        "final_image_size_bytes": image.layer_bytes,
    });
    compare("build_metrics", &row, &expected);
    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    let ratio = image.layer_bytes as f64 / unpacked as f64;
    let stored = row["compression_ratio"].as_f64().expect("a ratio");
    assert!((stored - ratio).abs() < 0.000_1, "{stored} of {ratio}");
    for column in ["total_duration_seconds", "peak_memory_usage_mb", "cpu_usage_percent"] {
        assert!(row[column].as_f64().is_some_and(|number| number > 0.0), "{column}: {row:#}");
    }
    let result = rows::build_results(&tenant.pool, build).await;
    let (run, push) = (&result["build_execution_milliseconds"], &result["artifact_push_milliseconds"]);
    let rounded = |milliseconds: i64| json!((milliseconds + 500) / 1_000);
    let run = run.as_i64().expect("the run was timed");
    let (building, pushing) = match push.as_i64() {
        Some(push) => (rounded(run - push), rounded(push)),
        None => (Value::Null, Value::Null),
    };
    assert!(method == "kaniko" || pushing != Value::Null, "{method} tells its push");
    let expected = json!({"docker_build_duration_seconds": building, "docker_push_duration_seconds": pushing});
    compare("build_metrics", &row, &expected);

    let counts: Vec<(String, i32)> = sqlx::query_as(
        "select l.layer_digest, l.used_in_builds_count from layers l join builds b on b.tenant_id = l.tenant_id where b.id = $1",
    )
    .bind(build)
    .fetch_all(&tenant.pool)
    .await
    .expect("layers can be read");
    for (digest, builds) in counts {
        let in_image = image.layers.iter().any(|(own, _)| *own == digest);
        assert_eq!(builds, i32::from(in_image) + i32::from(before.contains(&digest)), "{digest}");
    }
}
