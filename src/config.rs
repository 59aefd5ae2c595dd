//! Every flag and environment variable of the operator. Nothing else reads the environment.

pub mod inline;

use std::{
    net::SocketAddr,
    num::{NonZeroU16, NonZeroU32},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, ValueEnum};
use image_factory_core::{destination::Range, git::Protocol, mirrors::Mirror};

/// `image-factory operator`.
#[derive(Args, Clone, Debug)]
pub struct Operator {
    #[command(flatten)]
    pub database: Database,
    /// Namespace the operator runs in
    #[arg(long, env = "IMAGE_FACTORY_NAMESPACE", default_value = "image-factory")]
    pub namespace: String,
    /// Name of this process in Events; the Pod's name in a cluster
    #[arg(long, env = "POD_NAME", default_value = "image-factory")]
    pub instance: String,
    /// Address that serves the API under /api/v1, and /livez, /readyz and /metrics
    #[arg(long, env = "IMAGE_FACTORY_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// Address that serves /livez, /readyz and /metrics alone, whatever goes on at the other
    #[arg(long, env = "IMAGE_FACTORY_HEALTH_LISTEN", default_value = "0.0.0.0:8081")]
    pub health_listen: SocketAddr,
    /// Folder with tls.crt and tls.key, as a Secret of type kubernetes.io/tls is mounted, and kept current by whoever
    /// mounts it: the API is served by https too
    #[arg(long, env = "IMAGE_FACTORY_TLS_FOLDER")]
    pub tls_folder: Option<PathBuf>,
    /// Address that serves the API by https, where there is such a folder
    #[arg(long, env = "IMAGE_FACTORY_TLS_LISTEN", default_value = "0.0.0.0:8443")]
    pub tls_listen: SocketAddr,
    /// Address at which Git hosts reach this server, such as https://builds.example.com: webhooks tell where to deliver
    #[arg(long, env = "IMAGE_FACTORY_EXTERNAL_URL", value_parser = external_url)]
    pub external_url: Option<String>,
    /// Deliveries a second that one webhook takes; twice as many at once
    #[arg(long, env = "IMAGE_FACTORY_WEBHOOK_RATE", default_value = "50")]
    pub webhook_rate: NonZeroU32,
    #[command(flatten)]
    pub notifications: Notifications,
    #[command(flatten)]
    pub images: Images,
    /// Plugins that a Packer template may ask for, by the first parts of their addresses (comma separated)
    #[arg(long, env = "IMAGE_FACTORY_PACKER_PLUGINS", value_delimiter = ',')]
    pub packer_plugins: Vec<String>,
    /// Registries (host or host:port, comma separated) that every build may use over plain http or
    /// with an unverified certificate
    #[arg(long, env = "IMAGE_FACTORY_INSECURE_REGISTRIES", value_delimiter = ',')]
    pub insecure_registries: Vec<String>,
    /// Mirrors, as registry=host[:port][/path] (comma separated): where kaniko, buildx and container look first for the
    /// images of that registry
    #[arg(long, env = "IMAGE_FACTORY_REGISTRY_MIRRORS", value_delimiter = ',')]
    pub registry_mirrors: Vec<Mirror>,
    #[command(flatten)]
    pub resources: BuildResources,
    /// Git protocols (http, git; comma separated) that sources may use though they are not encrypted
    #[arg(long, env = "IMAGE_FACTORY_SOURCE_PROTOCOLS", value_delimiter = ',')]
    pub source_protocols: Vec<Protocol>,
    /// Certificate authorities in PEM, beside those of the operator's image, that Git servers by https may
    /// be signed by
    #[arg(long, env = "IMAGE_FACTORY_SOURCE_AUTHORITIES", value_name = "PEM", value_parser = authorities)]
    pub source_authorities: Option<String>,
    /// How large a source fetched from Git may be, history and work tree together, in MiB
    #[arg(long, env = "IMAGE_FACTORY_SOURCE_MEBIBYTES", default_value = "10240")]
    pub source_mebibytes: NonZeroU32,
    /// Who makes the Pod of a build's Job
    #[arg(long, env = "IMAGE_FACTORY_LAUNCH_MODE", value_enum, default_value_t)]
    pub launch_mode: LaunchMode,
    /// Builds that the built-in worker `cluster` runs at once
    #[arg(long, env = "IMAGE_FACTORY_WORKER_BUILDS", default_value = "10")]
    pub worker_builds: NonZeroU16,
    /// Builds that a tenant without a BuildConcurrencyPolicy runs at once
    #[arg(long, env = "IMAGE_FACTORY_TENANT_BUILDS", default_value = "10")]
    pub tenant_builds: NonZeroU16,
    /// Minutes after which a build that still waits in the queue fails, where its tenant's policy does not say. Not
    /// set: it waits for as long as it takes
    #[arg(long, env = "IMAGE_FACTORY_QUEUED_MINUTES")]
    pub queued_minutes: Option<NonZeroU16>,
    /// How long a build's Pod may wait for an image that can't be pulled, or a container that can't be created
    #[arg(long, env = "IMAGE_FACTORY_IMAGE_PULL_DEADLINE", default_value = "5m", value_parser = span)]
    pub image_pull_deadline: Duration,
    /// How long a build's Pod may wait for a node that takes it
    #[arg(long, env = "IMAGE_FACTORY_UNSCHEDULABLE_DEADLINE", default_value = "10m", value_parser = span)]
    pub unschedulable_deadline: Duration,
    /// An admission policy writes onto each Build who asked for it, over whatever a manifest says: rows name that user
    #[arg(long, env = "IMAGE_FACTORY_RECORD_USERS")]
    pub record_users: bool,
    /// Bytes of log that are kept for one build; the rest is drained and counted
    #[arg(long, env = "IMAGE_FACTORY_LOG_BYTES", default_value_t = 256 * 1024 * 1024)]
    pub log_bytes: u64,
    /// Days for which logs are kept at least; they are dropped by the week. Not set: for ever
    #[arg(long, env = "IMAGE_FACTORY_LOG_DAYS")]
    pub log_days: Option<NonZeroU16>,
    /// Days for which rows of what webhooks received and sent are kept. 0: for ever
    #[arg(long, env = "IMAGE_FACTORY_DELIVERY_DAYS", default_value = "30")]
    pub delivery_days: u16,
    /// Days for which rows of the slots of schedules are kept. 0: for ever
    #[arg(long, env = "IMAGE_FACTORY_SLOT_DAYS", default_value = "90")]
    pub slot_days: u16,
}

/// Who makes the Pod of a build's Job, and closes the Job when the build has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LaunchMode {
    /// The Job controller of Kubernetes
    #[default]
    Kubernetes,
    /// The operator itself: it needs the right to create and delete Pods, and to patch the status of Jobs
    Operator,
}

/// Where what became of builds may be sent.
#[derive(Args, Clone, Debug)]
pub struct Notifications {
    /// Send also over http, where anybody on the way can read it
    #[arg(long = "notify-unencrypted", env = "IMAGE_FACTORY_NOTIFY_UNENCRYPTED")]
    pub unencrypted: bool,
    /// Addresses that may be sent to though they are not public (10.1.0.0/16, comma separated)
    #[arg(long = "notify-ranges", env = "IMAGE_FACTORY_NOTIFY_RANGES", value_delimiter = ',')]
    pub ranges: Vec<Range>,
    /// Addresses that nothing is sent to though they look public: the cluster's own
    #[arg(long = "cluster-ranges", env = "IMAGE_FACTORY_CLUSTER_RANGES", value_delimiter = ',')]
    pub cluster_ranges: Vec<Range>,
}

/// What the container that does a build's work gets where its spec says nothing, as `name=quantity`.
#[derive(Args, Clone, Debug)]
pub struct BuildResources {
    /// Requests, comma separated
    #[arg(
        long = "build-requests",
        env = "IMAGE_FACTORY_BUILD_REQUESTS",
        value_delimiter = ',',
        value_parser = quantity,
        default_value = "cpu=100m,memory=256Mi,ephemeral-storage=256Mi"
    )]
    pub requests: Vec<(String, String)>,
    /// Limits, comma separated
    #[arg(
        long = "build-limits",
        env = "IMAGE_FACTORY_BUILD_LIMITS",
        value_delimiter = ',',
        value_parser = quantity,
        default_value = "memory=4Gi,ephemeral-storage=20Gi"
    )]
    pub limits: Vec<(String, String)>,
}

fn span(text: &str) -> Result<Duration, String> {
    let span = text.parse::<kube::core::Duration>().ok().filter(|span| !span.is_negative());
    let span = span.map(Duration::from).filter(|span| !span.is_zero());
    span.ok_or_else(|| format!("{text:?} is no span of time such as 90s, 5m or 1h30m"))
}

/// They travel as one argument of `prepare`, and the kernel takes none over 128 KiB.
const MAX_AUTHORITIES_BYTES: usize = 96 * 1024;

fn authorities(text: &str) -> Result<String, String> {
    if text.len() > MAX_AUTHORITIES_BYTES {
        return Err(format!(
            "it has more than {MAX_AUTHORITIES_BYTES} bytes; leave out authorities that are public anyway"
        ));
    }
    if text.contains("PRIVATE KEY-----") {
        return Err("it has a private key, which nobody but the authority may have".to_owned());
    }
    if !text.contains("-----BEGIN CERTIFICATE-----") {
        return Err("it is no certificate in PEM (-----BEGIN CERTIFICATE-----)".to_owned());
    }
    Ok(text.to_owned())
}

fn external_url(text: &str) -> Result<String, String> {
    let url = text.trim_end_matches('/');
    let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")).unwrap_or_default();
    if host.is_empty()
        || host.starts_with('/')
        || !url.bytes().all(|byte| byte.is_ascii_graphic())
        || url.contains(['?', '#'])
    {
        return Err(format!("{text:?} is no address such as https://builds.example.com"));
    }
    Ok(url.to_owned())
}

fn quantity(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name @ ("cpu" | "memory" | "ephemeral-storage"), amount)) if !amount.is_empty() => {
            Ok((name.to_owned(), amount.to_owned()))
        }
        _ => Err(format!("{text:?} is no cpu=, memory= or ephemeral-storage= with a quantity")),
    }
}

/// Images of the containers of a build's Pod.
#[derive(Args, Clone, Debug, Default)]
pub struct Images {
    /// The operator's own image, which holds `prepare`, `inspect` and the agent
    #[arg(id = "image", long = "image", env = "IMAGE_FACTORY_IMAGE")]
    pub operator: String,
    /// kaniko's executor; empty where the method is not offered
    #[arg(id = "kaniko-image", long = "kaniko-image", env = "IMAGE_FACTORY_KANIKO_IMAGE", default_value = "")]
    pub kaniko: String,
    /// The buildx client
    #[arg(id = "buildx-image", long = "buildx-image", env = "IMAGE_FACTORY_BUILDX_IMAGE")]
    pub buildx: String,
    /// The BuildKit daemon
    #[arg(id = "buildkit-image", long = "buildkit-image", env = "IMAGE_FACTORY_BUILDKIT_IMAGE")]
    pub buildkit: String,
    /// What makes the list of an image's packages where a build of method buildx asks for it
    #[arg(
        id = "sbom-generator-image",
        long = "sbom-generator-image",
        env = "IMAGE_FACTORY_SBOM_GENERATOR_IMAGE",
        default_value = "docker.io/docker/buildkit-syft-scanner:stable-1"
    )]
    pub sbom_generator: String,
    /// The builder of buildpacks where a Build names none; empty where the method is not offered
    #[arg(id = "paketo-image", long = "paketo-image", env = "IMAGE_FACTORY_PAKETO_IMAGE", default_value = "")]
    pub paketo: String,
    /// What the builder and the buildpacks that a Build names must begin with: registries, folders of them or
    /// repositories (comma separated)
    #[arg(id = "paketo-allowed", long = "paketo-allowed", env = "IMAGE_FACTORY_PAKETO_ALLOWED", value_delimiter = ',')]
    pub paketo_allowed: Vec<String>,
    /// buildah, for method container
    #[arg(id = "container-image", long = "container-image", env = "IMAGE_FACTORY_CONTAINER_IMAGE")]
    pub container: String,
    /// Packer; empty where the method is not offered
    #[arg(id = "packer-image", long = "packer-image", env = "IMAGE_FACTORY_PACKER_IMAGE", default_value = "")]
    pub packer: String,
}

#[derive(Args, Clone, Debug)]
pub struct Database {
    /// Postgres, as postgres://user:password@host:port/database
    #[arg(long = "database-url", env = "DATABASE_URL", hide_env_values = true)]
    pub url: String,
    /// Connections in the pool
    #[arg(long = "database-connections", env = "IMAGE_FACTORY_DATABASE_CONNECTIONS", default_value = "20")]
    pub connections: NonZeroU16,
}
