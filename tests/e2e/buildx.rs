//! What of the API only method buildx has: several platforms, what is pushed beside an image, and keys for ssh.

use serde_json::{Value, json};

use super::{
    cluster,
    failing_builds::{failure, told},
    registry, rows,
    tenant::{Tenant, phase, tenant},
};

async fn succeeded(tenant: &Tenant, manifest: &Value) -> uuid::Uuid {
    tenant.apply(manifest).await;
    let name = manifest["metadata"]["name"].as_str().expect("a name");
    let build = tenant.finished(name, 1).await;
    assert_eq!(phase(&build), "Success", "{:#}", super::tenant::status(&build));
    rows::id(&tenant.attempts(&build).await[0])
}

#[tokio::test]
async fn an_image_for_several_platforms_is_an_index_with_each_of_them() {
    tenant("buildx-platforms", "privileged", async |tenant| {
        let mut manifest = tenant.manifest("cider", "buildx", "FROM scratch\nCOPY apples.txt /\nENV PRESS=cold\n");
        manifest["spec"]["source"]["inline"]["files"]["apples.txt"] = json!("gala\n");
        manifest["spec"]["platforms"] = json!(["linux/amd64", "linux/arm64/v8", "linux/arm/v6"]);
        let id = succeeded(tenant, &manifest).await;

        assert_eq!(rows::build_configs(&tenant.pool, id).await["platforms"], manifest["spec"]["platforms"]);
        let index = registry::manifest(&tenant.image("cider", "1")).await;
        let pushed: Vec<(String, &str)> = index["manifests"]
            .as_array()
            .expect("an index")
            .iter()
            .map(|entry| {
                let platform = &entry["platform"];
                let part = |name: &str| platform[name].as_str();
                let parts = [part("os"), part("architecture"), part("variant")];
                let name: Vec<&str> = parts.into_iter().flatten().collect();
                (name.join("/"), entry["digest"].as_str().expect("a digest"))
            })
            .collect();
        let told: Vec<(String, String)> = sqlx::query_as(
            "select platform, manifest_digest from build_images where build_id = $1 order by platform_number",
        )
        .bind(id)
        .fetch_all(&tenant.pool)
        .await
        .expect("rows can be read");
        let told: Vec<(String, &str)> = told.iter().map(|(name, digest)| (name.clone(), digest.as_str())).collect();
        assert_eq!(told, pushed);
        let names: Vec<&str> = told.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["linux/amd64", "linux/arm64", "linux/arm/v6"]);
        let steps: i64 = sqlx::query_scalar(
            "select count(*) from build_steps where build_id = $1 and instruction_type = 'COPY' and status = 'success'",
        )
        .bind(id)
        .fetch_one(&tenant.pool)
        .await
        .expect("rows can be read");
        assert!(steps >= 1, "the trace has its instructions");
    })
    .await;
}

#[tokio::test]
async fn packages_and_provenance_are_pushed_beside_the_image_and_are_rows() {
    tenant("buildx-attest", "privileged", async |tenant| {
        let mut manifest = tenant.manifest("cider", "buildx", "FROM BASE\nARG TOKEN\nRUN echo pressed > /juice\n");
        manifest["spec"]["buildArgs"] = json!({"TOKEN": "hunter2-hunter2"});
        manifest["spec"]["sbom"] = json!(true);
        manifest["spec"]["provenance"] = json!(true);
        let id = succeeded(tenant, &manifest).await;

        let repository = tenant.image("cider", "1");
        let index = registry::manifest(&repository).await;
        let entries = index["manifests"].as_array().expect("an index");
        let beside = entries.iter().find(|entry| entry["platform"]["os"] == "unknown").expect("attestations");
        let digest = beside["digest"].as_str().expect("a digest");
        let attestations = registry::manifest_by_digest(&repository, digest).await;
        let mut statements = 0;
        for layer in attestations["layers"].as_array().expect("statements") {
            let predicate = layer["annotations"]["in-toto.io/predicate-type"].as_str().expect("a type");
            let kind = if predicate.starts_with("https://spdx.dev/") { "sbom" } else { "provenance" };
            let digest = layer["digest"].as_str().expect("a digest");
            let (size, location): (i64, String) = sqlx::query_as(
                "select artifact_size_bytes, artifact_location from build_artifacts
                 where build_id = $1 and artifact_type = $2 and sha256_digest = $3",
            )
            .bind(id)
            .bind(kind)
            .bind(digest)
            .fetch_one(&tenant.pool)
            .await
            .expect("each is a row");
            assert_eq!(Some(size), layer["size"].as_i64());
            assert!(location.ends_with(&format!("/cider@{digest}")), "{location}");
            let statement = registry::blob(&repository, digest).await;
            let statement = String::from_utf8(statement).expect("JSON is text");
            assert!(!statement.contains("hunter2"), "a build argument's value is not told: {statement}");
            statements += 1;
        }
        assert_eq!(statements, 2, "{attestations:#}");
        assert_eq!(rows::artifacts(&tenant.pool, id).await.len(), 3, "and the image");
    })
    .await;
}

#[tokio::test]
async fn an_instruction_may_use_a_key_that_it_never_sees() {
    tenant("buildx-ssh", "privileged", async |tenant| {
        let key = std::fs::read_to_string(cluster::variable("GIT_SSH_KEY")).expect("the key can be read");
        tenant.secret("deploy", "Opaque", json!({"key": key})).await;
        let dockerfile = "FROM BASE\nRUN --mount=type=ssh test -S \"$SSH_AUTH_SOCK\" && echo there is an agent\n\
                          RUN test -z \"$SSH_AUTH_SOCK\" && ! ls /image-factory-ssh\n";
        let mut manifest = tenant.manifest("cider", "buildx", dockerfile);
        manifest["spec"]["ssh"] = json!({"secretRef": {"name": "deploy", "key": "key"}});
        let id = succeeded(tenant, &manifest).await;
        let log = rows::log(&tenant.pool, id).await;
        assert!(log.iter().any(|line| line.ends_with("there is an agent")), "{log:#?}");

        let mut manifest = tenant.manifest("perry", "buildx", "FROM BASE\n");
        manifest["spec"]["ssh"] = json!({"secretRef": {"name": "nowhere", "key": "key"}});
        tenant.apply(&manifest).await;
        let build = tenant.finished("perry", 1).await;
        let failure = failure(tenant, &build).await;
        assert_eq!(told(&failure).0, "SecretNotFound", "{failure:#}");
        let message = failure["message"].as_str().unwrap_or_default();
        assert!(message.contains("spec.ssh: Secret nowhere with key key was not found"), "{message}");
    })
    .await;
}
