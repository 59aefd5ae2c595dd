//! The way to the operator's API, and who one is there. Without an address the way is the one kubectl
//! port-forward takes, through the API server, so that it is there wherever kubectl works. One is who
//! the kubeconfig says, by its token. A certificate can be shown to the API server alone: then a token
//! of a service account that reads builds is asked for, good for our API and for ten minutes.

use anyhow::{Context, anyhow, bail};
use clap::Args;
use http::{HeaderValue, header::AUTHORIZATION};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::{Pod, ServiceAccount},
};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{ListParams, PostParams},
    client::{Body, ConfigExt},
    config::KubeConfigOptions,
};
use reqwest::Url;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tower::{BoxError, Layer, ServiceExt, service_fn};

use crate::http::AUDIENCE;

const OPERATOR: &str = "app.kubernetes.io/name=image-factory";
/// The least that Kubernetes gives.
const TOKEN_SECONDS: i64 = 600;

#[derive(Args)]
pub struct Reach {
    /// Address of the operator's HTTP server. Without it, its Pod is reached through the API server, as
    /// kubectl port-forward does. Use https, unless nobody is on the way: a token is sent
    #[arg(long, env = "IMAGE_FACTORY_SERVER")]
    server: Option<Url>,
    /// Context of the kubeconfig
    #[arg(long)]
    context: Option<String>,
    /// Where the operator runs, for the way through the API server
    #[arg(long, default_value = "image-factory")]
    operator_namespace: String,
    /// Where the kubeconfig has no token but a certificate: as which service account, namespace/name, to
    /// read. You need the right to create serviceaccounts/token for it
    #[arg(long, default_value = "image-factory/image-factory-reader")]
    service_account: String,
}

pub struct Server {
    reach: Reach,
    config: Config,
    client: Client,
}

/// A base address that works for as long as this lives.
pub struct Way {
    pub url: Url,
    pub authorization: HeaderValue,
    /// What passes the bytes on.
    _forward: JoinSet<()>,
}

impl Server {
    pub async fn new(reach: Reach) -> anyhow::Result<Self> {
        let config = match &reach.context {
            Some(context) => {
                let options = KubeConfigOptions { context: Some(context.clone()), ..KubeConfigOptions::default() };
                Config::from_kubeconfig(&options).await.context("failed to read the kubeconfig")?
            }
            None => Config::infer().await.context("failed to find a cluster: set KUBECONFIG")?,
        };
        let client = Client::try_from(config.clone()).context("failed to configure the client of the API server")?;
        Ok(Self { reach, config, client })
    }

    /// The namespace that is meant where none is named.
    pub fn namespace(&self) -> &str {
        &self.config.default_namespace
    }

    /// # Errors
    /// When there is no way to the operator, or no token to show it.
    pub async fn way(&self) -> anyhow::Result<Way> {
        let authorization = self.authorization().await?;
        let mut forward = JoinSet::new();
        let url = match &self.reach.server {
            Some(url) => url.clone(),
            None => self.forward(&mut forward).await?,
        };
        Ok(Way { url, authorization, _forward: forward })
    }

    async fn authorization(&self) -> anyhow::Result<HeaderValue> {
        let Some(layer) = self.config.auth_layer().context("failed to read the kubeconfig's user")? else {
            return self.requested().await;
        };
        // What the client would send with a request, a token read from a file or by a plugin included.
        let sent = service_fn(|request: http::Request<Body>| async move {
            Ok::<_, BoxError>(http::Response::new(request.headers().get(AUTHORIZATION).cloned()))
        });
        let sent = layer.layer(sent).oneshot(http::Request::new(Body::empty())).await;
        let sent = sent.map_err(|error| anyhow!(error)).context("failed to get the kubeconfig's token")?;
        match sent.into_body() {
            Some(value) if value.as_bytes().starts_with(b"Bearer ") => Ok(value),
            _ => bail!("the kubeconfig's user has a password: one with a token or a certificate is needed"),
        }
    }

    async fn requested(&self) -> anyhow::Result<HeaderValue> {
        let account = &self.reach.service_account;
        let (namespace, name) = account.split_once('/').context("--service-account must be namespace/name")?;
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let spec = TokenRequestSpec {
            audiences: vec![AUDIENCE.to_owned()],
            expiration_seconds: Some(TOKEN_SECONDS),
            ..TokenRequestSpec::default()
        };
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let made = accounts.create_token_request(name, &PostParams::default(), &request).await.with_context(|| {
            format!(
                "failed to make a token of service account {account}, which is needed because the kubeconfig has \
                 none, only a certificate: use one with a token, or name by --service-account one that you may make \
                 tokens of"
            )
        })?;
        let token = made.status.context("the API server made no token")?.token;
        let mut value = HeaderValue::from_str(&format!("Bearer {token}")).context("the token is none")?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// Takes connections on an address of this machine alone, and passes each on to the operator.
    async fn forward(&self, forward: &mut JoinSet<()>) -> anyhow::Result<Url> {
        let namespace = &self.reach.operator_namespace;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let found = pods.list(&ListParams::default().labels(OPERATOR)).await.with_context(|| {
            format!("failed to look for the operator in namespace {namespace}: where it runs elsewhere, say so by --operator-namespace; without the right to, reach it by --server")
        })?;
        let (pod, port) = found
            .iter()
            .filter(|pod| is_ready(pod))
            .find_map(|pod| Some((pod.name_any(), port(pod)?)))
            .with_context(|| format!("no operator is ready in namespace {namespace}"))?;
        let listener = TcpListener::bind("127.0.0.1:0").await.context("failed to listen on this machine")?;
        let url = format!("http://{}", listener.local_addr()?).parse()?;
        forward.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((connection, _)) = listener.accept().await {
                let (pods, pod) = (pods.clone(), pod.clone());
                connections.spawn(async move {
                    if let Err(error) = pass_on(&pods, &pod, port, connection).await {
                        eprintln!("the way to Pod {pod} of the operator broke: {error:#}");
                    }
                });
            }
        });
        Ok(url)
    }
}

async fn pass_on(pods: &Api<Pod>, pod: &str, port: u16, mut connection: TcpStream) -> anyhow::Result<()> {
    let mut forwarder =
        pods.portforward(pod, &[port]).await.context("needs the right to create pods/portforward, or --server")?;
    let mut stream = forwarder.take_stream(port).context("no stream was opened")?;
    // How it ends is seen by whoever talks.
    let _ = copy_bidirectional(&mut connection, &mut stream).await;
    Ok(())
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn port(pod: &Pod) -> Option<u16> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
    let http = ports.find(|port| port.name.as_deref() == Some("http"))?;
    u16::try_from(http.container_port).ok()
}
