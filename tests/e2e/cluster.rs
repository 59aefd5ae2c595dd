//! Where the cluster, its Postgres and its registry are: what `.local/env` says. A machine without
//! them fails the tests, with the sentence that says what to do.

use kube::{Client, Config};
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
