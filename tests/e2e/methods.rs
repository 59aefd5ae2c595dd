//! One source by every method that can build it: moving a Build is a change of one word wherever both methods can do what
//! it asks for, and each has a run of its own.

use serde_json::{Value, json};

use super::{
    cluster,
    registry::{pushed, text_of},
    rows,
    tenant::{Tenant, phase, status, tenant},
};

const DOCKERFILE: &str = "FROM BASE AS press\n\
    ARG VARIETY=none\n\
    COPY apples.txt /apples.txt\n\
    RUN --mount=type=secret,id=recipe test -s /run/secrets/recipe && tr a-z A-Z < /apples.txt > /juice.txt\n\
    \n\
    FROM BASE AS bottle\n\
    ARG VARIETY=none\n\
    COPY --from=press /juice.txt /juice.txt\n\
    RUN echo \"$VARIETY\" > /label.txt\n\
    CMD [\"cat\", \"/juice.txt\"]\n\
    \n\
    FROM bottle\n\
    RUN exit 1\n";

const TEMPLATE: &str = "source \"null\" \"press\" {\n  communicator = \"none\"\n}\nbuild {\n  \
    sources = [\"source.null.press\"]\n  provisioner \"shell-local\" {\n    \
    inline = [\"tr a-z A-Z < apples.txt > juice.txt\"]\n  }\n  \
    post-processors {\n    post-processor \"artifice\" {\n      files = [\"juice.txt\"]\n    }\n    \
    post-processor \"manifest\" {}\n  }\n}\n";

/// What the pushed image has under a path, in its topmost layer that has it.
async fn read(image: &str, path: &str) -> String {
    let pushed = pushed(image).await;
    for (layer, _) in pushed.layers.iter().rev() {
        if super::registry::paths(image, layer).await.iter().any(|found| found == path) {
            return text_of(image, layer, path).await;
        }
    }
    unreachable!("{image} has no {path}")
}

async fn built(tenant: &Tenant, manifest: &Value, run: i32) {
    tenant.apply(manifest).await;
    let build = tenant.finished("cider", run).await;
    let method = &manifest["spec"]["method"];
    assert_eq!(phase(&build), "Success", "{method}: {:#}", status(&build));
    let attempt = tenant.attempts(&build).await.pop().expect("a row");
    assert_eq!(&rows::build_configs(&tenant.pool, rows::id(&attempt)).await["build_method"], method);
    assert_eq!(status(&build)["image"]["digest"], pushed(&tenant.image("cider", "1")).await.digest, "{method}");
}

#[tokio::test]
async fn one_source_is_built_by_each_method_and_a_dockerfile_moves_by_one_word() {
    let (has_kaniko, has_paketo) = (cluster::kaniko_image().await.is_some(), cluster::paketo_image().await.is_some());
    for (method, variable, _) in
        [("kaniko", "KANIKO_EXECUTOR", has_kaniko), ("paketo", "CNB_LIFECYCLE", has_paketo)].iter().filter(|row| !row.2)
    {
        eprintln!("skipped: method {method}, which the operator has no image for; start it with {variable}");
    }
    tenant("every-method", "privileged", async |tenant| {
        tenant.secret("kitchen", "Opaque", json!({"recipe": "three-apples"})).await;
        let image = tenant.image("cider", "1");
        let mut manifest = tenant.manifest("cider", "container", DOCKERFILE);
        let spec = &mut manifest["spec"];
        spec["source"]["inline"]["files"]["apples.txt"] = json!("gala\n");
        spec["target"] = json!("bottle");
        spec["buildArgs"] = json!({"VARIETY": "gala & $(HOME)"});
        spec["secrets"] = json!([{"id": "recipe", "secretRef": {"name": "kitchen", "key": "recipe"}}]);
        spec["output"]["labels"] = json!({"org.example.grower": "sons"});
        spec["output"]["tags"] = json!(["latest"]);
        let mut run = 0;
        for method in ["container", "kaniko", "buildx"].into_iter().filter(|method| *method != "kaniko" || has_kaniko) {
            run += 1;
            manifest["spec"]["method"] = json!(method);
            built(tenant, &manifest, run).await;
            assert_eq!(read(&image, "juice.txt").await, "GALA\n", "{method}");
            assert_eq!(read(&image, "label.txt").await, "gala & $(HOME)\n", "{method}");
            let config = pushed(&image).await.config;
            assert_eq!(config["config"]["Cmd"], json!(["cat", "/juice.txt"]), "{method}");
            assert_eq!(config["config"]["Labels"]["org.example.grower"], "sons", "{method}");
        }

        // The other two read no Dockerfile.
        let spec = manifest["spec"].as_object_mut().expect("an object");
        for field in ["target", "buildArgs", "secrets"] {
            spec.remove(field);
        }
        if has_paketo {
            run += 1;
            manifest["spec"]["method"] = json!("paketo");
            built(tenant, &manifest, run).await;
            assert_eq!(read(&image, "layers/orchard_press/juice/juice.txt").await, "GALA\n");
        }
        manifest["spec"]["method"] = json!("packer");
        manifest["spec"]["packer"] = json!({"template": TEMPLATE});
        built(tenant, &manifest, run + 1).await;
        assert_eq!(read(&image, "juice.txt").await, "GALA\n");
    })
    .await;
}

/// The cluster's operator knows a mirror of a registry that there is not.
#[tokio::test]
async fn a_base_is_taken_from_the_mirror_by_each_builder_of_dockerfiles_and_known_by_its_own_name() {
    let has_kaniko = cluster::kaniko_image().await.is_some();
    tenant("mirrored", "privileged", async |tenant| {
        let mut manifest = tenant.manifest("cider", "container", "FROM orchard.invalid/busybox:1\nRUN echo x > /x\n");
        let methods = ["container", "kaniko", "buildx"].into_iter().filter(|method| *method != "kaniko" || has_kaniko);
        for (method, run) in methods.zip(1..) {
            manifest["spec"]["method"] = json!(method);
            built(tenant, &manifest, run).await;
            let build = tenant.finished("cider", run).await;
            let id = rows::id(&tenant.attempts(&build).await.pop().expect("a row"));
            assert_eq!(
                rows::base_image(&tenant.pool, id).await,
                (Some("orchard.invalid/busybox".to_owned()), Some("1".to_owned())),
                "{method}"
            );
        }
    })
    .await;
}
