//! Method packer: what its manifest names becomes an image and rows, in a namespace that allows nothing; what can't work
//! in a Pod is refused with a sentence.

use image_factory::crd::Build;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{
    cluster,
    failing_builds::{failure, told},
    registry::{Pushed, pushed, text_of},
    rows,
    tenant::{Tenant, phase, status, tenant},
};

const PRESS: &str = r#"
variable "variety" {
  type = string
}

variable "crates" {
  type    = list(string)
  default = []
}

source "null" "press" {
  communicator = "none"
}

source "file" "label" {
  content = "variety: ${var.variety}\ncrates: ${join(" ", var.crates)}\n"
  target  = "out/label.txt"
}

build {
  sources = ["source.null.press", "source.file.label"]

  provisioner "shell-local" {
    only   = ["null.press"]
    inline = [
      "mkdir -p out",
      "echo pressing ${var.variety} as user $(id -u), in a season called $SEASON",
      "tr a-z A-Z < apples.txt > out/disk.img",
    ]
  }

  post-processors {
    post-processor "artifice" {
      only  = ["null.press"]
      files = ["out/disk.img"]
    }
    post-processor "manifest" {}
  }
}
"#;

/// A Build of this template, in a folder with apples.
fn manifest(tenant: &Tenant, name: &str, packer: &Value) -> Value {
    let mut manifest = tenant.manifest(name, "packer", "");
    manifest["spec"]["source"] = json!({"inline": {"files": {"orchard/apples.txt": "gala\n"}}});
    manifest["spec"]["context"] = json!("orchard");
    manifest["spec"]["packer"] = packer.clone();
    manifest
}

async fn newest(tenant: &Tenant, build: &Build) -> Uuid {
    rows::id(&tenant.attempts(build).await.pop().expect("a row"))
}

fn sha256(text: &str) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(text)))
}

fn paths(image: &Pushed) -> Vec<&str> {
    let history = image.config["history"].as_array().expect("a history");
    let made = history.iter().filter_map(|entry| entry["created_by"].as_str());
    made.map(|text| text.trim_start_matches("packer ")).collect()
}

#[tokio::test]
async fn what_packers_manifest_names_is_an_image_and_rows_and_needs_no_privilege() {
    tenant("packer", "restricted", async |tenant| {
        let variables = json!({"variety": "gala $(HOME) ${x}, or so", "crates": "[\"one\", \"two\"]"});
        let mut manifest = manifest(tenant, "cider", &json!({"template": PRESS, "variables": variables}));
        manifest["spec"]["environment"] = json!({"SEASON": "autumn"});
        manifest["spec"]["output"]["tags"] = json!(["latest"]);
        manifest["spec"]["output"]["labels"] = json!({"org.example.grower": "$(HOSTNAME) & sons"});
        tenant.apply(&manifest).await;
        let build = tenant.finished("cider", 1).await;
        assert_eq!(phase(&build), "Success", "{:#}", status(&build));
        let id = newest(tenant, &build).await;

        let name = tenant.image("cider", "1");
        let image = pushed(&name).await;
        assert_eq!(image.digest, pushed(&tenant.image("cider", "latest")).await.digest, "both tags are one image");
        assert_eq!(status(&build)["image"]["digest"], image.digest);
        assert_eq!(paths(&image), ["out/disk.img", "out/label.txt", "packer-artifacts.json"]);
        assert_eq!(image.config["config"]["Labels"]["org.example.grower"], "$(HOSTNAME) & sons");
        let label = "variety: gala $(HOME) ${x}, or so\ncrates: one two\n";
        for ((layer, _), (path, text)) in
            image.layers.iter().zip([("out/disk.img", "GALA\n"), ("out/label.txt", label)])
        {
            assert_eq!(text_of(&name, layer, path).await, text);
        }

        let artifacts = rows::artifacts(&tenant.pool, id).await;
        let attempt = tenant.attempts(&build).await.pop().expect("a row");
        let of_kind = |kind: &str| artifacts.iter().filter(|row| row["artifact_type"] == kind).collect::<Vec<_>>();
        assert_eq!(of_kind("docker_image").len(), 2, "{artifacts:#?}");
        let files = of_kind("packer_artifact");
        for (row, (path, text)) in files.iter().zip([("out/disk.img", "GALA\n"), ("out/label.txt", label)]) {
            let expected = json!({
                "artifact_name": path, "artifact_size_bytes": text.len(), "sha256_digest": sha256(text),
                "artifact_location": format!("{name}@{}", image.digest), "image_id": attempt["image_id"],
                "is_available": true, "project_id": attempt["project_id"],
            });
            for (column, value) in expected.as_object().expect("an object") {
                assert_eq!(&row[column], value, "build_artifacts.{column}");
            }
        }
        assert_eq!(files.len(), 2, "{artifacts:#?}");

        let result = rows::build_results(&tenant.pool, id).await;
        assert_eq!((&result["output_image_digest"], &result["status"]), (&json!(image.digest), &json!("success")));
        assert!(result["artifact_push_milliseconds"].as_i64() > Some(0), "{result:#}");
        let metrics = rows::build_metrics(&tenant.pool, id).await;
        let layers = ["total_layers", "new_layers", "reused_layers"].map(|column| metrics[column].clone());
        assert_eq!(layers, [3, 3, 0], "{metrics:#}");
        for column in ["docker_build_duration_seconds", "docker_push_duration_seconds", "peak_memory_usage_mb"] {
            assert!(metrics[column].is_i64(), "{column}: {metrics:#}");
        }
        let config = rows::build_configs(&tenant.pool, id).await;
        assert_eq!((&config["packer_template"], &config["build_method"]), (&json!(PRESS), &json!("packer")));

        let log = rows::log(&tenant.pool, id).await.join("\n");
        assert!(log.contains("as user 65532, in a season called autumn"), "{log}");
        let steps: Vec<(String, String)> =
            sqlx::query_as("select step_name, status from build_steps where build_id = $1 order by step_number")
                .bind(id)
                .fetch_all(&tenant.pool)
                .await
                .expect("steps can be read");
        let script = ("Running local shell script".to_owned(), "success".to_owned());
        assert!(steps.contains(&script) && steps.iter().all(|(_, status)| status == "success"), "{steps:#?}");

        // The same files are the same image.
        tenant.merge("cider", &json!({"metadata": {"annotations": {"imagefactory.dev/rerun": "again"}}})).await;
        let build = tenant.finished("cider", 2).await;
        assert_eq!(status(&build)["image"]["digest"], image.digest, "{:#}", status(&build));
        let metrics = rows::build_metrics(&tenant.pool, newest(tenant, &build).await).await;
        assert_eq!((&metrics["new_layers"], &metrics["reused_layers"]), (&json!(0), &json!(3)));
    })
    .await;
}

#[tokio::test]
async fn templates_of_the_source_are_a_file_a_folder_or_json_and_secrets_are_files() {
    let old = json!({
        "variables": {"variety": "none"},
        "builders": [{"type": "file", "content": "{{user `variety`}}\n", "target": "label.txt"}],
        "post-processors": [{"type": "manifest", "output": "made.json"}],
    })
    .to_string();
    let source = "source \"null\" \"press\" {\n  communicator = \"none\"\n}\n";
    let build = "build {\n  sources = [\"source.null.press\"]\n  provisioner \"shell-local\" {\n    \
        inline = [\"cat /image-factory-secrets/recipe; wc -c < /image-factory-secrets/recipe > size.txt\"]\n  }\n  \
        post-processors {\n    post-processor \"artifice\" {\n      files = [\"size.txt\"]\n    }\n    \
        post-processor \"manifest\" {}\n  }\n}\n";
    tenant("packer-paths", "restricted", async |tenant| {
        tenant.secret("kitchen", "Opaque", json!({"recipe": "three-apples-one-pear"})).await;
        let variables = json!({"variety": "boskoop"});
        for (name, packer) in [
            ("file", json!({"path": "images/old.json", "variables": variables})),
            ("inline", json!({"template": old, "variables": variables})),
            ("folder", json!({"path": "images"})),
        ] {
            let mut manifest = manifest(tenant, name, &packer);
            let files = &mut manifest["spec"]["source"]["inline"]["files"];
            files["images/old.json"] = json!(old);
            files["images/a.pkr.hcl"] = json!(source);
            files["images/b.pkr.hcl"] = json!(build);
            manifest["spec"]["secrets"] = json!([{"id": "recipe", "secretRef": {"name": "kitchen", "key": "recipe"}}]);
            tenant.apply(&manifest).await;
        }
        for (name, file, text, template) in [
            ("file", "label.txt", "boskoop\n", "images/old.json"),
            ("inline", "label.txt", "boskoop\n", old.as_str()),
            ("folder", "size.txt", "21\n", "images"),
        ] {
            let build = tenant.finished(name, 1).await;
            assert_eq!(phase(&build), "Success", "{name}: {:#}", status(&build));
            let image = pushed(&tenant.image(name, "1")).await;
            assert_eq!(paths(&image), [file, "packer-artifacts.json"]);
            assert_eq!(text_of(&tenant.image(name, "1"), &image.layers[0].0, file).await, text);
            let id = newest(tenant, &build).await;
            assert_eq!(rows::build_configs(&tenant.pool, id).await["packer_template"], template);
            let log = rows::log(&tenant.pool, id).await.join("\n");
            assert!(!log.contains("three-apples"), "{log}");
            assert_eq!(log.contains("null.press: ***"), name == "folder", "{log}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_provisioner_that_fails_is_the_step_that_failed() {
    let template = "source \"null\" \"press\" {\n  communicator = \"none\"\n}\nbuild {\n  \
        sources = [\"source.null.press\"]\n  provisioner \"shell-local\" {\n    \
        inline = [\"echo pressing\", \"echo no apples left >&2\", \"exit 3\"]\n  }\n  \
        post-processor \"manifest\" {}\n}\n";
    tenant("packer-fails", "restricted", async |tenant| {
        tenant.apply(&manifest(tenant, "cider", &json!({"template": template}))).await;
        let build = tenant.finished("cider", 1).await;
        let failure = failure(tenant, &build).await;
        assert_eq!(told(&failure), ("BuildFailed", "build", Some(3)), "{failure:#}");
        let message = failure["message"].as_str().unwrap_or_default();
        assert!(message.starts_with("Running local shell script: Script exited with non-zero"), "{message}");
        let tail = failure["logTail"].to_string();
        assert!(tail.contains("no apples left"), "{tail}");
        let failed: (String, Option<String>) =
            sqlx::query_as("select step_name, error_code from build_steps where build_id = $1 and status = 'failed'")
                .bind(newest(tenant, &build).await)
                .fetch_one(&tenant.pool)
                .await
                .expect("one step failed");
        assert_eq!(failed, ("Running local shell script".to_owned(), Some("3".to_owned())));
    })
    .await;
}

#[tokio::test]
async fn what_can_not_work_in_a_pod_is_refused_with_its_reason_and_what_was_not_made_is_told() {
    let manifest_block = "build {\n  sources = [\"source.null.press\"]\n  post-processor \"manifest\" {}\n}\n";
    let null = "source \"null\" \"press\" {\n  communicator = \"none\"\n}\n";
    let plugin = |source: &str| {
        format!(
            "packer {{\n  required_plugins {{\n    press = {{ version = \">= 1\", source = \"{source}\" }}\n  }}\n}}\n{null}{manifest_block}"
        )
    };
    tenant("packer-refused", "restricted", async |tenant| {
        let refused = [
            (
                "docker",
                json!({"template": "source \"docker\" \"press\" {\n  image = \"busybox\"\n  commit = true\n}\n"}),
                ("InvalidSpec", "compile"),
                "source docker.press needs a Docker daemon",
            ),
            (
                "silent",
                json!({"template": format!("{null}build {{\n  sources = [\"source.null.press\"]\n}}\n")}),
                ("InvalidSpec", "compile"),
                "add post-processor \"manifest\" {} to its build block",
            ),
            ("nowhere", json!({"path": "press.pkr.hcl"}), ("InvalidSpec", "compile"), "which the source does not have"),
            (
                "foreign",
                json!({"template": plugin("example.net/press/press")}),
                ("BuilderNotAllowed", "compile"),
                "example.net/press/press",
            ),
            // Allowed here, and Debian's Packer has no way to install it.
            (
                "allowed",
                json!({"template": plugin("example.com/orchard/press")}),
                ("BuildFailed", "build"),
                "`packer init` installs",
            ),
            (
                "nothing",
                json!({"template": format!("{null}{manifest_block}")}),
                ("BuildFailed", "build"),
                "there is nothing to keep",
            ),
            (
                "undeclared",
                json!({"template": format!("{null}{manifest_block}"), "variables": {"pears": "1"}}),
                ("BuildFailed", "build"),
                "Undefined -var variable",
            ),
        ];
        for (name, packer, ..) in &refused {
            tenant.apply(&manifest(tenant, name, packer)).await;
        }
        let mut private = manifest(tenant, "private", &json!({"template": PRESS, "variables": {"variety": "gala"}}));
        private["spec"]["output"]["image"] = json!(tenant.private_image("cider"));
        tenant.apply(&private).await;
        private["metadata"]["name"] = json!("keyless");
        private["spec"]["output"]["credentialsSecret"] = json!({"name": "missing"});
        tenant.apply(&private).await;
        for (name, _, (reason, stage), words) in refused {
            let failure = failure(tenant, &tenant.finished(name, 1).await).await;
            let found = (failure["reason"].as_str(), failure["stage"].as_str());
            assert_eq!(found, (Some(reason), Some(stage)), "{name}: {failure:#}");
            let message = failure["message"].as_str().unwrap_or_default();
            assert!(message.contains(words), "{name}: {message}");
        }
        let denied = failure(tenant, &tenant.finished("private", 1).await).await;
        assert_eq!((&denied["reason"], &denied["stage"]), (&json!("PushDenied"), &json!("push")), "{denied:#}");
        let missing = failure(tenant, &tenant.finished("keyless", 1).await).await;
        assert_eq!((&missing["reason"], &missing["stage"]), (&json!("SecretNotFound"), &json!("compile")));
        assert!(missing["message"].as_str().unwrap_or_default().contains("Secret missing"), "{missing:#}");
    })
    .await;
}

#[tokio::test]
async fn the_push_credentials_push_and_packer_does_not_see_them() {
    let template = "source \"null\" \"press\" {\n  communicator = \"none\"\n}\nbuild {\n  \
        sources = [\"source.null.press\"]\n  provisioner \"shell-local\" {\n    \
        inline = [\"ls -d /image-factory-* > seen.txt\"]\n  }\n  \
        post-processors {\n    post-processor \"artifice\" {\n      files = [\"seen.txt\"]\n    }\n    \
        post-processor \"manifest\" {}\n  }\n}\n";
    tenant("packer-private", "restricted", async |tenant| {
        tenant.push_secret("push", &cluster::variable("REGISTRY_PRIVATE_PASSWORD")).await;
        let mut manifest = manifest(tenant, "cider", &json!({"template": template}));
        let image = tenant.private_image("cider");
        manifest["spec"]["output"]["image"] = json!(image);
        manifest["spec"]["output"]["credentialsSecret"] = json!({"name": "push"});
        tenant.apply(&manifest).await;
        let build = tenant.finished("cider", 1).await;
        assert_eq!(phase(&build), "Success", "{:#}", status(&build));
        let digest = super::registry::private_digest(&image).await;
        assert_eq!(status(&build)["image"]["digest"], digest);
        let artifacts = rows::artifacts(&tenant.pool, newest(tenant, &build).await).await;
        let seen = artifacts.iter().find(|row| row["artifact_name"] == "seen.txt").expect("the file is kept");
        assert_eq!(seen["sha256_digest"], sha256("/image-factory-packer\n"), "only its home is mounted");
    })
    .await;
}
