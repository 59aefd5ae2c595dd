//! A claimed attempt becomes a Job: pure, one file a method.
//!
//! The Pod is a sequence of init containers (`prepare`, with buildx the daemon beside it, `build`)
//! before `inspect`, its only main container. A method says how its `build` container looks; all
//! else is the same for every method and stands here.

mod buildx;
mod container;
pub mod heads;
mod kaniko;
mod labels;
pub mod managed;
mod packer;
pub mod paketo;
mod secrets;
pub mod source;

use std::{collections::BTreeMap, time::Duration};

use image_factory_core::{
    ids,
    method::Method,
    mirrors::Mirror,
    pod::{AGENT, CREDENTIALS, INSPECT_CONTAINER, PREPARE_CONTAINER, SOURCE, VOLUME},
    reference::Reference,
};
use k8s_openapi::{
    api::{
        batch::v1::{Job, JobSpec},
        core::v1::{
            Capabilities, Container, EmptyDirVolumeSource, EnvVar, PodSpec, PodTemplateSpec, ResourceRequirements,
            SeccompProfile, SecurityContext, Toleration, Volume, VolumeMount,
        },
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta, apis::meta::v1::OwnerReference},
};
use kube::Resource;
use uuid::Uuid;

use crate::{
    config::{Images, LaunchMode},
    crd::build::{Build, BuildSpec},
};

/// How much longer than its timeout a Pod may live: the agent ends the build in time, this is for a
/// Pod whose agent can't.
const DEADLINE_MARGIN: Duration = Duration::from_mins(5);
/// The operator's Job and its Pod go by themselves after a day, should the operator never clean.
const BACKSTOP_TTL_SECONDS: i32 = 24 * 60 * 60;
/// For the agent to end its builder and write its report.
const GRACE_SECONDS: i64 = 30;
/// The user of the operator's image, and of the containers that need no other.
const USER: i64 = 65532;
const VOLUME_NAME: &str = "image-factory";

/// An attempt that is launched, from its rows.
#[derive(Clone, Debug)]
pub struct Launch {
    pub id: Uuid,
    pub namespace: String,
    pub build: String,
    pub build_uid: String,
    pub project: String,
    pub worker: Worker,
    pub spec: BuildSpec,
}

/// The worker that has claimed it, and which nodes are the worker's.
#[derive(Clone, Debug, Default)]
pub struct Worker {
    pub name: String,
    pub node_selector: BTreeMap<String, String>,
    pub tolerations: Vec<Toleration>,
}

/// The operator's part in every Job.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    pub launch_mode: LaunchMode,
    pub images: Images,
    pub insecure_registries: Vec<String>,
    /// Where images are looked for first, by the methods that read a Dockerfile.
    pub mirrors: Vec<Mirror>,
    /// For the container that does the work, where the spec says nothing.
    pub requests: BTreeMap<String, Quantity>,
    pub limits: BTreeMap<String, Quantity>,
    /// Plugins that a Packer template may ask for, by the first parts of their addresses.
    pub packer_plugins: Vec<String>,
    pub sources: source::Settings,
}

/// What a method adds to the common Pod.
struct Builder {
    /// Containers before `build`: native sidecars that run beside it, or what brings it something.
    sidecars: Vec<Container>,
    build: Container,
    volumes: Vec<Volume>,
    /// Files of our own making that `prepare` puts on the volume: name and content.
    files: Vec<(&'static str, String)>,
    /// Where `inspect` reads the digest: `file:…`, `buildx:…` or `lifecycle:…`; of what it pushes itself, `packer:…`.
    digest_from: String,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    MethodNotAvailable(String),
}

/// Why a method can't be run here; `None` where it can.
pub fn unavailable(method: Method, images: &Images) -> Option<String> {
    match method {
        Method::Buildx | Method::Container => None,
        Method::Kaniko if !images.kaniko.is_empty() => None,
        Method::Kaniko => Some(
            "spec.method kaniko is not available here: the operator is configured without an image of kaniko \
             (builders.kaniko.image of its chart); use buildx or container"
                .to_owned(),
        ),
        Method::Paketo if !images.paketo.is_empty() => None,
        Method::Paketo => Some(
            "spec.method paketo is not available here: the operator is configured without a builder for it \
             (builders.paketo.image of its chart); use kaniko, buildx or container"
                .to_owned(),
        ),
        Method::Packer if !images.packer.is_empty() => None,
        Method::Packer => Some(
            "spec.method packer is not available here: the operator is configured without an image of Packer \
             (builders.packer.image of its chart)"
                .to_owned(),
        ),
    }
}

/// The Job of an attempt. The same attempt gives the same Job.
///
/// # Errors
/// When the method can't be run.
pub fn job(launch: &Launch, settings: &Settings) -> Result<Job, Error> {
    let insecure = insecure_hosts(launch, settings);
    if let Some(why) = unavailable(launch.spec.method, &settings.images) {
        return Err(Error::MethodNotAvailable(why));
    }
    let mut builder = match launch.spec.method {
        Method::Kaniko => kaniko::builder(launch, settings, &insecure),
        Method::Buildx => buildx::builder(launch, settings, &insecure),
        Method::Container => container::builder(launch, settings, &insecure),
        Method::Paketo => paketo::builder(launch, settings, &insecure),
        Method::Packer => packer::builder(launch, settings),
    };
    // What the user gives the builder; buildpacks get it through the lifecycle alone.
    if launch.spec.method != Method::Paketo {
        let user = launch.spec.environment.iter().map(|(name, value)| variable(name, value));
        builder.build.env.get_or_insert_default().extend(user);
        builder.build.volume_mounts.get_or_insert_default().extend(secrets::mounts(&launch.spec));
    }
    let name = ids::job_name(&launch.build, launch.id);
    let labels = labels::of(launch);
    let inspect = inspect(launch, settings, &insecure, &builder.digest_from);
    let source = source::source(launch, &settings.sources);
    let mut init_containers = vec![prepare(launch, settings, &builder.files, &source)];
    init_containers.extend(builder.sidecars);
    init_containers.push(builder.build);
    let mut volumes = vec![scratch(VOLUME_NAME)];
    volumes.extend(builder.volumes);
    // No volume outgrows what the build may write at all.
    let size_limit = requested(launch, settings).limits.and_then(|limits| limits.get("ephemeral-storage").cloned());
    for empty_dir in volumes.iter_mut().filter_map(|volume| volume.empty_dir.as_mut()) {
        if empty_dir.size_limit.is_none() {
            empty_dir.size_limit.clone_from(&size_limit);
        }
    }
    volumes.extend(source.volumes);
    volumes.extend(secrets::volumes(&launch.spec));
    let deadline = launch.spec.timeout() + DEADLINE_MARGIN;
    let worker = &launch.worker;
    let mut pod = PodSpec {
        init_containers: Some(init_containers),
        containers: vec![inspect],
        volumes: Some(volumes),
        restart_policy: Some("Never".to_owned()),
        node_selector: (!worker.node_selector.is_empty()).then(|| worker.node_selector.clone()),
        tolerations: (!worker.tolerations.is_empty()).then(|| worker.tolerations.clone()),
        active_deadline_seconds: i64::try_from(deadline.as_secs()).ok(),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        ..PodSpec::default()
    };
    if launch.spec.method == Method::Paketo {
        paketo::finish(&launch.spec, &mut pod);
    }
    Ok(Job {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(launch.namespace.clone()),
            labels: Some(labels.clone()),
            owner_references: Some(vec![owner(launch)]),
            ..ObjectMeta::default()
        },
        spec: Some(JobSpec {
            backoff_limit: Some(0),
            managed_by: (settings.launch_mode == LaunchMode::Operator).then(|| managed::MANAGER.to_owned()),
            pod_replacement_policy: Some("Failed".to_owned()),
            ttl_seconds_after_finished: Some(BACKSTOP_TTL_SECONDS),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels),
                    annotations: Some(BTreeMap::from([(
                        "kubectl.kubernetes.io/default-container".to_owned(),
                        image_factory_core::pod::BUILD_CONTAINER.to_owned(),
                    )])),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod),
            },
            ..JobSpec::default()
        }),
        status: None,
    })
}

/// Registries that may be spoken to over plain http or with an unverified certificate.
fn insecure_hosts(launch: &Launch, settings: &Settings) -> Vec<String> {
    let mut hosts = settings.insecure_registries.clone();
    if launch.spec.output.insecure {
        hosts.push(output(launch).host().to_owned());
    }
    hosts.sort();
    hosts.dedup();
    hosts
}

fn output(launch: &Launch) -> Reference<'_> {
    Reference::new(&launch.spec.output.image)
}

/// Every name the image is pushed under, `spec.output.image` first.
fn destinations(launch: &Launch) -> Vec<String> {
    let output = output(launch);
    let mut names = vec![output.with_tag(output.tag)];
    names.extend(launch.spec.output.tags.iter().filter(|tag| *tag != output.tag).map(|tag| output.with_tag(tag)));
    names
}

fn owner(launch: &Launch) -> OwnerReference {
    OwnerReference {
        api_version: Build::api_version(&()).into_owned(),
        kind: Build::kind(&()).into_owned(),
        name: launch.build.clone(),
        uid: launch.build_uid.clone(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}

fn prepare(launch: &Launch, settings: &Settings, files: &[(&str, String)], source: &source::Source) -> Container {
    let spec = &launch.spec;
    let mut args = vec!["prepare".to_owned(), format!("--context={}", spec.context)];
    if let Some(dockerfile) = spec.dockerfile() {
        args.push(format!("--dockerfile={dockerfile}"));
    }
    for (name, content) in files {
        args.push(format!("--file={name}={content}"));
    }
    args.extend(source.args.iter().cloned());
    let mut mounts = vec![shared_volume()];
    mounts.extend(source.mounts.iter().cloned());
    if spec.method == Method::Packer {
        args.extend(packer::prepare(spec, settings));
        args.extend(secrets::needed_credentials(launch).map(|needed| format!("--needs-secret={needed}")));
        mounts.extend(secrets::credentials_mount(spec));
    }
    Container {
        name: PREPARE_CONTAINER.to_owned(),
        image: Some(settings.images.operator.clone()),
        args: Some(args.iter().map(|arg| literal(arg)).collect()),
        env: Some(source.env.clone()),
        volume_mounts: Some(mounts),
        // Git holds what it fetches in memory while it checks it.
        resources: Some(resources([("cpu", "10m"), ("memory", "32Mi")], [("memory", "1Gi")])),
        security_context: Some(restricted()),
        ..Container::default()
    }
}

fn inspect(launch: &Launch, settings: &Settings, insecure: &[String], digest_from: &str) -> Container {
    let spec = &launch.spec;
    let output = output(launch);
    let mut args = vec![
        "inspect".to_owned(),
        format!("--image={}", output.with_tag(output.tag)),
        format!("--digest-from={digest_from}"),
    ];
    args.extend(spec.output.tags.iter().filter(|tag| *tag != output.tag).map(|tag| format!("--tag={tag}")));
    if let Some(dockerfile) = spec.dockerfile() {
        args.push(format!("--dockerfile={SOURCE}/{}/{dockerfile}", spec.context));
        args.extend(spec.target.iter().map(|target| format!("--target={target}")));
        args.extend(spec.build_args.iter().map(|(name, value)| format!("--build-arg={name}={value}")));
        args.extend(settings.mirrors.iter().map(|mirror| format!("--registry-mirror={mirror}")));
    }
    args.extend(spec.platforms.iter().map(|platform| format!("--platform={platform}")));
    if spec.method == Method::Packer {
        args.extend(packer::inspect(spec));
    }
    args.extend(insecure.iter().map(|host| format!("--insecure-registry={host}")));
    let credentials = secrets::credentials_mount(&launch.spec);
    if credentials.is_some() {
        args.push(format!("--docker-config={CREDENTIALS}"));
    }
    Container {
        name: INSPECT_CONTAINER.to_owned(),
        image: Some(settings.images.operator.clone()),
        args: Some(args.iter().map(|arg| literal(arg)).collect()),
        volume_mounts: Some([shared_volume()].into_iter().chain(credentials).collect()),
        resources: Some(resources([("cpu", "10m"), ("memory", "32Mi")], [("memory", "256Mi")])),
        security_context: Some(restricted()),
        ..Container::default()
    }
}

/// `agent run … -- <commands>`: how a `build` container starts. `options` are the agent's own.
fn under_agent(launch: &Launch, options: &[String], commands: &[Vec<String>]) -> Vec<String> {
    under_agent_as("run", launch, options, commands)
}

fn under_agent_as(task: &str, launch: &Launch, options: &[String], commands: &[Vec<String>]) -> Vec<String> {
    let mut argv = vec![AGENT.to_owned(), task.to_owned()];
    argv.push(format!("--timeout-seconds={}", launch.spec.timeout().as_secs()));
    argv.extend(options.iter().chain(&secrets::agent_options(launch)).map(|option| literal(option)));
    argv.push("--".to_owned());
    for (index, command) in commands.iter().enumerate() {
        if index > 0 {
            argv.push("--then".to_owned());
        }
        argv.extend(command.iter().map(|arg| literal(arg)));
    }
    argv
}

/// Kubernetes expands `$(NAME)` in arguments and environment; a doubled `$` stands for itself:
/// <https://kubernetes.io/docs/reference/generated/kubernetes-api/v1.33/#container-v1-core>.
fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

fn variable(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(literal(value)), value_from: None }
}

/// The flags that every builder of a Dockerfile spells alike.
fn dockerfile_flags(spec: &BuildSpec) -> Vec<String> {
    let mut flags: Vec<String> = spec.target.iter().map(|target| format!("--target={target}")).collect();
    flags.extend(spec.build_args.iter().map(|(name, value)| format!("--build-arg={name}={value}")));
    flags.extend(spec.output.labels.iter().map(|(key, value)| format!("--label={key}={value}")));
    flags.extend(secrets::flags(spec));
    flags
}

/// A volume that lives as long as the Pod.
fn scratch(name: &str) -> Volume {
    Volume { name: name.to_owned(), empty_dir: Some(EmptyDirVolumeSource::default()), ..Volume::default() }
}

fn shared_volume() -> VolumeMount {
    VolumeMount { name: VOLUME_NAME.to_owned(), mount_path: VOLUME.to_owned(), ..VolumeMount::default() }
}

/// The restricted profile: what runs our own code.
fn restricted() -> SecurityContext {
    SecurityContext {
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        run_as_non_root: Some(true),
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities { add: None, drop: Some(vec!["ALL".to_owned()]) }),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
        ..SecurityContext::default()
    }
}

/// Resources of the container that does the work: the user's, and the operator's for what the user
/// does not mention. A request without a limit is its own limit wherever the operator has one, so
/// that nothing is without bounds; a limit without a request is its own request, as Kubernetes has it.
fn requested(launch: &Launch, settings: &Settings) -> ResourceRequirements {
    let asked = launch.spec.resources.clone().unwrap_or_default();
    let mut requests = asked.requests.clone();
    for (name, amount) in &settings.requests {
        if !asked.limits.contains_key(name) {
            requests.entry(name.clone()).or_insert_with(|| amount.clone());
        }
    }
    let mut limits = asked.limits;
    for (name, amount) in &settings.limits {
        limits.entry(name.clone()).or_insert_with(|| asked.requests.get(name).unwrap_or(amount).clone());
    }
    let some = |amounts: BTreeMap<String, Quantity>| (!amounts.is_empty()).then_some(amounts);
    ResourceRequirements { requests: some(requests), limits: some(limits), claims: None }
}

fn resources<const R: usize, const L: usize>(
    requests: [(&str, &str); R],
    limits: [(&str, &str); L],
) -> ResourceRequirements {
    let quantities = |pairs: &[(&str, &str)]| {
        Some(pairs.iter().map(|(name, amount)| ((*name).to_owned(), Quantity((*amount).to_owned()))).collect())
    };
    ResourceRequirements { requests: quantities(&requests), limits: quantities(&limits), claims: None }
}

#[cfg(test)]
mod tests;
