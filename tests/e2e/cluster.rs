//! Where the cluster, its Postgres and its registry are: what `.local/env` says. A machine without
//! them fails the tests, with the sentence that says what to do.

use k8s_openapi::api::apps::v1::Deployment;
use kube::{Api, Client, Config, api::ListParams};
use sqlx::{PgPool, postgres::PgPoolOptions};

pub fn variable(name: &str) -> String {
    #[expect(clippy::disallowed_methods, reason = "tests are configured by .local/env alone")]
    let value = std::env::var(name);
    value.unwrap_or_else(|_| {
        unreachable!("{name} is not set: these tests need a cluster. Run `make up` first, then `. .local/env`")
    })
}

/// Host and port of the registry that Pods and this process reach by the same name.
pub fn registry() -> String {
    variable("REGISTRY")
}

pub async fn config() -> Config {
    // Fails when another test was first, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    variable("KUBECONFIG");
    Config::infer().await.expect("KUBECONFIG can be read")
}

pub async fn client() -> Client {
    Client::try_from(config().await).expect("a client can be made")
}

/// A connection of its own for each test: the server is shared by all that run at once.
pub fn database() -> PgPool {
    PgPoolOptions::new().max_connections(1).connect_lazy(&variable("DATABASE_URL")).expect("DATABASE_URL can be read")
}

/// The image by which the deployed operator runs method kaniko; none where it doesn't.
pub async fn kaniko_image() -> Option<String> {
    operators_image("IMAGE_FACTORY_KANIKO_IMAGE").await
}

/// The builder by which it runs method paketo.
pub async fn paketo_image() -> Option<String> {
    operators_image("IMAGE_FACTORY_PAKETO_IMAGE").await
}

async fn operators_image(variable: &str) -> Option<String> {
    let deployments: Api<Deployment> = Api::namespaced(client().await, "image-factory");
    let ours = ListParams::default().labels("app.kubernetes.io/name=image-factory");
    let found = deployments.list(&ours).await.expect("Deployments can be listed").items.pop();
    let pod = found.and_then(|deployment| deployment.spec?.template.spec).expect("the operator is deployed");
    let variables = pod.containers.into_iter().flat_map(|container| container.env.unwrap_or_default());
    let mut images = variables.filter(|found| found.name == variable);
    images.next().and_then(|found| found.value).filter(|image| !image.is_empty())
}
