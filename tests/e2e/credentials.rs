//! Secrets of a build's namespace: the right to push and to pull, and what a RUN may read. Each by every
//! method that the operator offers, against a registry that asks for a password and one whose
//! certificate nobody trusts. No value of a Secret may appear in a log or an image.

use image_factory::crd::Build;
use serde_json::{Value, json};

use super::{
    cluster,
    failing_builds::{failure, told},
    registry, rows,
    tenant::{Tenant, phase, status, tenant},
};

async fn methods() -> Vec<&'static str> {
    let mut methods = vec!["buildx", "container"];
    match cluster::kaniko_image().await {
        Some(_) => methods.push("kaniko"),
        None => eprintln!("without kaniko: the operator has no image of it"),
    }
    methods
}

/// A Build that pushes to the registry with the password, by the Secret of this name.
fn private(tenant: &Tenant, name: &str, method: &str, dockerfile: &str, secret: &str) -> Value {
    let mut manifest = tenant.manifest(name, method, dockerfile);
    manifest["spec"]["output"]["image"] = json!(tenant.private_image(name));
    manifest["spec"]["output"]["credentialsSecret"] = json!({"name": secret});
    manifest
}

async fn log(tenant: &Tenant, build: &Build) -> String {
    let attempt = tenant.attempts(build).await.pop().expect("a row");
    rows::log(&tenant.pool, rows::id(&attempt)).await.join("\n")
}

#[tokio::test]
async fn the_named_secret_pushes_and_pulls_private_images() {
    let methods = methods().await;
    tenant("private", "privileged", async |tenant| {
        let password = cluster::variable("REGISTRY_PRIVATE_PASSWORD");
        tenant.push_secret("push", &password).await;
        for method in &methods {
            let dockerfile = format!("FROM BASE\nRUN echo {method} > /pressed-by\n");
            tenant.apply(&private(tenant, method, method, &dockerfile, "push")).await;
        }
        for method in &methods {
            let build = tenant.finished(method, 1).await;
            assert_eq!(phase(&build), "Success", "{:#}", status(&build));
            let digest = registry::private_digest(&tenant.private_image(method)).await;
            assert_eq!(status(&build)["image"]["digest"], digest);
            // Each takes what the one before has pushed for its base.
            let base = format!("FROM {}\nRUN cat /pressed-by\n", tenant.private_image(method));
            tenant.apply(&private(tenant, &format!("on-{method}"), method, &base, "push")).await;
        }
        for method in &methods {
            let build = tenant.finished(&format!("on-{method}"), 1).await;
            assert_eq!(phase(&build), "Success", "{:#}", status(&build));
            let log = log(tenant, &build).await;
            assert!(log.contains(method) && !log.contains(&password), "{log}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_wrong_password_or_none_is_denied_at_the_push() {
    let methods = methods().await;
    tenant("denied", "privileged", async |tenant| {
        tenant.push_secret("push", "not-the-password").await;
        for method in &methods {
            tenant.apply(&private(tenant, &format!("wrong-{method}"), method, "FROM BASE\nRUN true\n", "push")).await;
            let mut none = private(tenant, &format!("none-{method}"), method, "FROM BASE\nRUN true\n", "push");
            none["spec"]["output"]["credentialsSecret"] = Value::Null;
            tenant.apply(&none).await;
        }
        for method in &methods {
            for way in ["wrong", "none"] {
                let build = tenant.finished(&format!("{way}-{method}"), 1).await;
                let failure = failure(tenant, &build).await;
                let (reason, stage, _) = told(&failure);
                assert_eq!((reason, stage), ("PushDenied", "push"), "{way} {method}: {failure:#}");
                let log = log(tenant, &build).await;
                assert!(!log.contains("not-the-password"), "{log}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_base_image_that_wants_a_password_is_no_failure_of_the_push() {
    let methods = methods().await;
    tenant("private-base", "privileged", async |tenant| {
        let base = format!("FROM {}\nRUN true\n", tenant.private_image("never-asked-for"));
        for method in &methods {
            let mut manifest = tenant.manifest(method, method, &base);
            // The operator's own list of insecure registries does not have the private one.
            manifest["spec"]["output"]["image"] = json!(tenant.private_image(method));
            manifest["spec"]["output"]["credentialsSecret"] = json!({"name": "push"});
            tenant.apply(&manifest).await;
        }
        for method in &methods {
            let build = tenant.finished(method, 1).await;
            let failure = failure(tenant, &build).await;
            assert_eq!(told(&failure), ("SecretNotFound", "compile", None), "{method}: {failure:#}");
        }
        tenant.push_secret("push", &cluster::variable("REGISTRY_PRIVATE_PASSWORD")).await;
        for method in &methods {
            let rerun = json!({"metadata": {"annotations": {"imagefactory.dev/rerun": "with the Secret"}}});
            tenant.merge(method, &rerun).await;
        }
        for method in &methods {
            let build = tenant.finished(method, 2).await;
            let failure = failure(tenant, &build).await;
            let (reason, stage, _) = told(&failure);
            assert_eq!((reason, stage), ("BuildFailed", "build"), "{method}: {failure:#}");
            assert!(failure["message"].as_str().unwrap_or_default().contains("never-asked-for"), "{failure:#}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_secret_or_a_key_that_is_missing_is_named_before_anything_is_built() {
    tenant("no-secret", "baseline", async |tenant| {
        tenant.secret("recipes", "Opaque", json!({"perry": "pears"})).await;
        let key = |key: &str| json!([{"id": "recipe", "secretRef": {"name": "recipes", "key": key}}]);
        let mut no_push = tenant.manifest("no-push", "container", "FROM BASE\n");
        no_push["spec"]["output"]["credentialsSecret"] = json!({"name": "push"});
        let mut wrong_type = tenant.manifest("wrong-type", "container", "FROM BASE\n");
        wrong_type["spec"]["output"]["credentialsSecret"] = json!({"name": "recipes"});
        let mut no_key = tenant.manifest("no-key", "container", "FROM BASE\n");
        no_key["spec"]["secrets"] = key("cider");
        let cases = [
            (no_push, ["spec.output.credentialsSecret", "Secret push", ".dockerconfigjson"]),
            (wrong_type, ["spec.output.credentialsSecret", "Secret recipes", ".dockerconfigjson"]),
            (no_key.clone(), ["spec.secrets[recipe]", "Secret recipes", "key cider"]),
        ];
        for (manifest, _) in &cases {
            tenant.apply(manifest).await;
        }
        for (manifest, words) in &cases {
            let build = tenant.finished(manifest["metadata"]["name"].as_str().expect("a name"), 1).await;
            let failure = failure(tenant, &build).await;
            assert_eq!(told(&failure), ("SecretNotFound", "compile", None), "{failure:#}");
            let message = failure["message"].as_str().unwrap_or_default();
            assert!(words.iter().all(|word| message.contains(word)), "{message}");
            assert!(!log(tenant, &build).await.contains("STEP"), "buildah was not started");
        }
        no_key["spec"]["secrets"] = key("perry");
        tenant.apply(&no_key).await;
        assert_eq!(phase(&tenant.finished("no-key", 2).await), "Success");
    })
    .await;
}

#[tokio::test]
async fn a_secret_is_read_by_a_run_and_is_in_neither_log_nor_image() {
    const FIRST: &str = "twelve parts of apple, $ecret";
    const SECOND: &str = "one part of quince";
    let dockerfile = "FROM BASE\n\
        RUN --mount=type=secret,id=recipe cat /run/secrets/recipe && base64 /run/secrets/recipe && wc -l < /run/secrets/recipe > /lines\n\
        RUN echo \"has $(cat /lines) lines\" && ls /run/secrets/recipe; true\n";
    let methods = methods().await;
    tenant("secret", "privileged", async |tenant| {
        tenant.secret("recipes", "Opaque", json!({"cider": format!("{FIRST}\n{SECOND}\n")})).await;
        let secrets = json!([{"id": "recipe", "secretRef": {"name": "recipes", "key": "cider"}}]);
        for method in &methods {
            let mut manifest = tenant.manifest(method, method, dockerfile);
            manifest["spec"]["secrets"] = secrets.clone();
            tenant.apply(&manifest).await;
        }
        for method in &methods {
            let build = tenant.finished(method, 1).await;
            assert_eq!(phase(&build), "Success", "{:#}", status(&build));
            let log = log(tenant, &build).await;
            assert!(log.contains("has 2 lines") && log.contains("***"), "{method}: {log}");
            for hidden in [FIRST, SECOND, "dHdlbHZlIHBhcnRz"] {
                assert!(!log.contains(hidden), "{method}: {hidden} is in the log: {log}");
            }
            let image = registry::pushed(&tenant.image(method, "1")).await;
            let config = image.config.to_string();
            assert!(!config.contains("twelve parts") && !config.contains("dHdlbHZl"), "{config}");
            // All of the image's own files are searched for what the secret has.
            let search = format!(
                "FROM {}\nRUN --mount=type=secret,id=recipe find / -xdev -type f ! -path '/proc/*' ! -path '/sys/*' \
                 ! -path '/run/*' -exec grep -lFf /run/secrets/recipe {{}} + ; echo \"searched $(cat /lines)\"\n",
                tenant.image(method, "1")
            );
            let mut manifest = tenant.manifest(&format!("search-{method}"), "container", &search);
            manifest["spec"]["secrets"] = secrets.clone();
            tenant.apply(&manifest).await;
        }
        for method in &methods {
            let build = tenant.finished(&format!("search-{method}"), 1).await;
            let log = log(tenant, &build).await;
            let after = log.split("STEP 2/2").nth(1).unwrap_or_default();
            let found: Vec<&str> = after.lines().filter(|line| line.starts_with('/')).collect();
            assert!(after.contains("searched 2") && found.is_empty(), "{method}: {log}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_certificate_that_nobody_trusts_is_accepted_only_where_the_build_says_insecure() {
    let methods = methods().await;
    tenant("tls", "privileged", async |tenant| {
        let image = |name: &str| format!("{}/{}/{name}:1", cluster::variable("REGISTRY_TLS"), tenant.namespace);
        for method in &methods {
            for insecure in [true, false] {
                let name = format!("{}-{method}", if insecure { "insecure" } else { "strict" });
                let mut manifest = tenant.manifest(&name, method, "FROM BASE\nRUN echo pressed > /pressed\n");
                manifest["spec"]["output"] = json!({"image": image(&name), "insecure": insecure});
                tenant.apply(&manifest).await;
            }
        }
        for method in &methods {
            let build = tenant.finished(&format!("insecure-{method}"), 1).await;
            assert_eq!(phase(&build), "Success", "{method}: {:#}", status(&build));
            let build = tenant.finished(&format!("strict-{method}"), 1).await;
            let failure = failure(tenant, &build).await;
            let (reason, stage, _) = told(&failure);
            assert_eq!((reason, stage), ("PushFailed", "push"), "{method}: {failure:#}");
            assert!(failure["message"].as_str().unwrap_or_default().contains("certificate"), "{method}: {failure:#}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_environment_reaches_the_builder() {
    tenant("environment", "baseline", async |tenant| {
        // buildah hands the variables of proxies on to a RUN.
        let mut manifest = tenant.manifest("cider", "container", "FROM BASE\nRUN echo \"by $FTP_PROXY\"\n");
        manifest["spec"]["environment"] = json!({"FTP_PROXY": "the $(HOME) road"});
        tenant.apply(&manifest).await;
        let build = tenant.finished("cider", 1).await;
        assert_eq!(phase(&build), "Success");
        let log = log(tenant, &build).await;
        assert!(log.contains("by the $(HOME) road"), "{log}");
    })
    .await;
}

#[tokio::test]
async fn the_environment_reaches_kaniko() {
    if cluster::kaniko_image().await.is_none() {
        return eprintln!("without kaniko: the operator has no image of it");
    }
    tenant("kaniko-proxy", "baseline", async |tenant| {
        // Nobody listens there: the base image is not reached, which says by which way it was tried.
        let mut manifest = tenant.manifest("cider", "kaniko", "FROM BASE\nRUN true\n");
        manifest["spec"]["environment"] =
            json!({"HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"});
        tenant.apply(&manifest).await;
        let build = tenant.finished("cider", 1).await;
        assert_eq!(phase(&build), "Failed", "{:#}", status(&build));
        let log = log(tenant, &build).await;
        assert!(log.contains("proxyconnect") && log.contains("127.0.0.1:9"), "{log}");
    })
    .await;
}

#[tokio::test]
async fn the_environment_stays_out_of_instructions_and_out_of_the_image_by_every_method() {
    tenant("no-environment", "privileged", async |tenant| {
        let methods = methods().await;
        for method in &methods {
            let dockerfile = "FROM BASE\nRUN echo \"grown as <${VARIETY-nothing}>\"\n";
            let mut manifest = tenant.manifest(method, method, dockerfile);
            manifest["spec"]["environment"] = json!({"VARIETY": "gala"});
            tenant.apply(&manifest).await;
        }
        for method in &methods {
            let build = tenant.finished(method, 1).await;
            assert_eq!(phase(&build), "Success", "{method}: {:#}", status(&build));
            let log = log(tenant, &build).await;
            assert!(log.contains("grown as <nothing>"), "{method}: {log}");
            let image = registry::pushed(&tenant.image(method, "1")).await;
            assert!(!image.config.to_string().contains("gala"), "{method}: {:#}", image.config);
        }
    })
    .await;
}
