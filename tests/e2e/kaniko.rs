//! Method kaniko, by the executor that the cluster was given. Where it was given none the method is
//! refused, and the other tests are skipped with a printed reason.

use serde_json::json;

use super::{
    cluster,
    failing_builds::{each_fails, told},
    registry::pushed,
    rows,
    tenant::{Tenant, phase, status, tenant},
};

/// Runs a test where kaniko is offered.
async fn with_kaniko(name: &str, test: impl AsyncFnOnce(&Tenant)) {
    if cluster::kaniko_image().await.is_none() {
        eprintln!("skipped: the operator has no image of kaniko; start it with KANIKO_EXECUTOR=<file> make up");
        return;
    }
    tenant(name, "baseline", test).await;
}

async fn log_of_newest(tenant: &Tenant, build: &image_factory::crd::Build) -> String {
    let attempt = tenant.attempts(build).await.pop().expect("a row");
    rows::log(&tenant.pool, rows::id(&attempt)).await.join("\n")
}

#[tokio::test]
async fn without_an_image_kaniko_is_refused_by_name() {
    if let Some(image) = cluster::kaniko_image().await {
        eprintln!("skipped: the operator has {image}; start it without KANIKO_EXECUTOR");
        return;
    }
    tenant("no-kaniko", "baseline", async |tenant| {
        tenant.apply(&tenant.manifest("cider", "kaniko", "FROM BASE\n")).await;
        let build = tenant.finished("cider", 1).await;
        let failure = status(&build)["failure"].clone();
        assert_eq!(told(&failure), ("MethodNotAvailable", "compile", None), "{failure:#}");
        assert!(failure["message"].as_str().unwrap_or_default().contains("builders.kaniko.image"), "{failure:#}");
    })
    .await;
}

#[tokio::test]
async fn kaniko_builds_two_stages_and_the_second_time_takes_them_from_the_cache() {
    let dockerfile = "FROM BASE AS press\n\
        ARG VARIETY=unknown\n\
        COPY apples.txt /apples.txt\n\
        RUN tr a-z A-Z < /apples.txt > /juice.txt && echo \"$VARIETY pressed\"\n\
        \n\
        FROM BASE AS bottle\n\
        COPY --from=press /juice.txt /juice.txt\n\
        RUN touch /cork && chgrp 42 /cork && chmod 2755 /cork && rm /bin/true\n\
        CMD [\"cat\", \"/juice.txt\"]\n\
        \n\
        FROM BASE\n\
        RUN exit 1\n";
    with_kaniko("kaniko", async |tenant| {
        let mut manifest = tenant.manifest("cider", "kaniko", dockerfile);
        let spec = &mut manifest["spec"];
        let files = &mut spec["source"]["inline"]["files"];
        files["orchard/Presses"] = files["Dockerfile"].take();
        files["Dockerfile"] = json!("FROM nowhere.invalid/not-this-one");
        files["orchard/apples.txt"] = json!("gala\n");
        spec["context"] = json!("orchard");
        spec["dockerfile"] = json!("Presses");
        spec["target"] = json!("bottle");
        spec["buildArgs"] = json!({"VARIETY": "gala $(HOME)"});
        spec["cache"] = json!({"repo": format!("{}/{}/cache", cluster::registry(), tenant.namespace)});
        spec["output"]["tags"] = json!(["latest"]);
        spec["output"]["labels"] = json!({"org.example.grower": "$(HOSTNAME) & sons"});
        tenant.apply(&manifest).await;
        let build = tenant.finished("cider", 1).await;
        assert_eq!(phase(&build), "Success");
        let log = log_of_newest(tenant, &build).await;
        assert!(log.contains("gala $(HOME) pressed") && !log.contains("Using caching version of cmd"), "{log}");

        let image = pushed(&tenant.image("cider", "1")).await;
        assert_eq!(status(&build)["image"]["digest"], image.digest);
        assert_eq!(image.digest, pushed(&tenant.image("cider", "latest")).await.digest, "both tags are one image");
        assert_eq!(image.config["config"]["Labels"]["org.example.grower"], "$(HOSTNAME) & sons");
        assert_eq!(image.config["config"]["Cmd"], json!(["cat", "/juice.txt"]));

        manifest["metadata"]["annotations"] = json!({"imagefactory.dev/rerun": "again"});
        tenant.apply(&manifest).await;
        let build = tenant.finished("cider", 2).await;
        assert_eq!(phase(&build), "Success");
        let log = log_of_newest(tenant, &build).await;
        assert!(log.contains("Using caching version of cmd: RUN touch /cork"), "{log}");
        assert!(!log.lines().any(|line| line == "gala $(HOME) pressed"), "nothing ran again: {log}");

        // What stands in the image is told by another builder.
        let look = format!(
            "FROM {}\nRUN cat /juice.txt && ls -l /cork && ls -d /image-factory* /kaniko /bin/true; ls / | tr '\\n' ' '\n",
            tenant.image("cider", "1")
        );
        tenant.apply(&tenant.manifest("look", "container", &look)).await;
        let build = tenant.finished("look", 1).await;
        assert_eq!(phase(&build), "Success");
        let log = log_of_newest(tenant, &build).await;
        assert!(log.contains("\nGALA\n") && log.contains("-rwxr-sr-x"), "the file and its bits are there: {log}");
        // /bin/true was in the base image and was deleted.
        for absent in ["/image-factory*", "/kaniko", "/bin/true"] {
            assert!(log.contains(&format!("ls: {absent}: No such file")), "{absent} is not in the image: {log}");
        }
    })
    .await;
}

#[tokio::test]
async fn kanikos_failures_are_told_as_those_of_the_other_methods() {
    with_kaniko("kaniko-fails", async |tenant| {
        let host = cluster::registry();
        let silent = format!("{}:9", host.split(':').next().unwrap_or_default());
        let run = tenant.manifest("run", "kaniko", "FROM BASE\nRUN echo \"expected 4, found 5\" && exit 3\n");
        let base = tenant.manifest("base", "kaniko", &format!("FROM {host}/cider/never-pushed:7\n"));
        let syntax = tenant.manifest("syntax", "kaniko", "FROM BASE\nPRESS apples\n");
        let mut push = tenant.manifest("push", "kaniko", "FROM BASE\n");
        push["spec"]["output"]["image"] = json!(format!("{silent}/cider/push:1"));
        let mut slow = tenant.manifest("slow", "kaniko", "FROM BASE\nRUN echo \"at work\" && sleep 300\n");
        slow["spec"]["timeout"] = json!("5s");
        let cases = [
            (run, ("BuildFailed", "build", Some(3)), "exit status 3"),
            (base, ("BuildFailed", "build", Some(1)), "cider/never-pushed"),
            (syntax, ("BuildFailed", "build", Some(1)), "PRESS"),
            (push, ("PushFailed", "push", Some(1)), silent.as_str()),
            (slow, ("TimedOut", "build", None), "spec.timeout"),
        ];
        each_fails(tenant, &cases).await;
    })
    .await;
}

/// What kaniko's README says of a RUN holds, so the documentation has to say it; but it stays out of the log.
#[tokio::test]
async fn a_run_of_kaniko_that_prints_the_push_credentials_shows_no_password() {
    with_kaniko("kaniko-peeks", async |tenant| {
        let password = cluster::variable("REGISTRY_PRIVATE_PASSWORD");
        tenant.push_secret("push", &password).await;
        let dockerfile = "FROM BASE\nRUN cat /image-factory-credentials/config.json; echo; echo \"that was all\"\n";
        let mut manifest = tenant.manifest("cider", "kaniko", dockerfile);
        manifest["spec"]["output"]["image"] = json!(tenant.private_image("cider"));
        manifest["spec"]["output"]["credentialsSecret"] = json!({"name": "push"});
        tenant.apply(&manifest).await;
        let build = tenant.finished("cider", 1).await;
        assert_eq!(phase(&build), "Success");
        let log = log_of_newest(tenant, &build).await;
        assert!(log.contains("that was all") && log.contains("\"auth\":\"***\""), "{log}");
        assert!(!log.contains(&password), "the password is in the log");
    })
    .await;
}
