//! Method buildx: the real buildx client in `build`, against a BuildKit daemon that runs beside it
//! as a native sidecar and goes with the Pod. The daemon is privileged; the client is not. It is the
//! daemon's container that does the work, so its agent counts what that uses, for the client's to report.

use image_factory_core::{
    mirrors::{self, Mirror},
    pod::{AGENT, BUILD_CONTAINER, BUILDKITD_CONTAINER, METADATA_FILE, OUT, SOURCE, USAGE_FILE, VOLUME},
};
use k8s_openapi::api::core::v1::{Container, SecurityContext, VolumeMount};

use super::{
    Builder, Launch, Settings, USER, destinations, dockerfile_flags, requested, resources, restricted, scratch,
    secrets, shared_volume, under_agent, variable,
};

const CONFIG_FILE: &str = "buildkitd.toml";
const STATE_VOLUME: &str = "buildkit";
const STATE: &str = "/var/lib/buildkit";

pub(super) fn builder(launch: &Launch, settings: &Settings, insecure: &[String]) -> Builder {
    let socket = format!("{VOLUME}/buildkitd.sock");
    Builder {
        sidecars: vec![daemon(launch, settings, &socket)],
        build: client(launch, settings, &socket),
        volumes: vec![scratch(STATE_VOLUME)],
        files: vec![(CONFIG_FILE, config(insecure, &settings.mirrors))],
        digest_from: format!("buildx:{METADATA_FILE}"),
    }
}

/// The daemon does the work: it gets the user's resources.
fn daemon(launch: &Launch, settings: &Settings, socket: &str) -> Container {
    let state = VolumeMount { name: STATE_VOLUME.to_owned(), mount_path: STATE.to_owned(), ..VolumeMount::default() };
    Container {
        name: BUILDKITD_CONTAINER.to_owned(),
        image: Some(settings.images.buildkit.clone()),
        command: Some([AGENT, "daemon", &format!("--usage={USAGE_FILE}"), "--"].map(str::to_owned).to_vec()),
        args: Some(vec![
            "buildkitd".to_owned(),
            format!("--config={VOLUME}/{CONFIG_FILE}"),
            format!("--addr=unix://{socket}"),
            // The client runs as this group.
            format!("--group={USER}"),
        ]),
        // BuildKit cuts a step's output off at 2 MiB or 100 KiB/s unless told otherwise; our own
        // limit is the build's, and says what it cut.
        env: Some(vec![variable("BUILDKIT_STEP_LOG_MAX_SIZE", "-1"), variable("BUILDKIT_STEP_LOG_MAX_SPEED", "-1")]),
        restart_policy: Some("Always".to_owned()),
        resources: Some(requested(launch, settings)),
        security_context: Some(SecurityContext { privileged: Some(true), ..SecurityContext::default() }),
        volume_mounts: Some(vec![shared_volume(), state]),
        ..Container::default()
    }
}

fn client(launch: &Launch, settings: &Settings, socket: &str) -> Container {
    let connect = ["/buildx", "create", "--name=image-factory", "--driver=remote", &format!("unix://{socket}")]
        .map(str::to_owned)
        .to_vec();
    let options = [format!("--wait-for-socket={socket}"), format!("--usage-of={USAGE_FILE}")];
    Container {
        name: BUILD_CONTAINER.to_owned(),
        image: Some(settings.images.buildx.clone()),
        command: Some(under_agent(launch, &options, &[connect, build(launch, settings)])),
        env: Some(vec![
            variable("HOME", OUT),
            variable("BUILDX_CONFIG", &format!("{OUT}/buildx")),
            variable("DOCKER_CONFIG", &secrets::docker_config(&launch.spec)),
        ]),
        resources: Some(resources([("cpu", "10m"), ("memory", "64Mi")], [("memory", "1Gi")])),
        security_context: Some(restricted()),
        volume_mounts: Some(vec![shared_volume()]),
        ..Container::default()
    }
}

fn build(launch: &Launch, settings: &Settings) -> Vec<String> {
    let spec = &launch.spec;
    let context = format!("{SOURCE}/{}", spec.context);
    let mut argv: Vec<String> =
        ["/buildx", "build", "--builder=image-factory", "--progress=plain", "--push"].map(str::to_owned).to_vec();
    argv.push(format!("--metadata-file={METADATA_FILE}"));
    argv.push(attestation("provenance", spec.provenance, "mode=min"));
    argv.push(attestation("sbom", spec.sbom, &format!("generator={}", settings.images.sbom_generator)));
    if !spec.platforms.is_empty() {
        argv.push(format!("--platform={}", spec.platforms.join(",")));
    }
    if let Some(dockerfile) = spec.dockerfile() {
        argv.push(format!("--file={context}/{dockerfile}"));
    }
    argv.extend(destinations(launch).iter().map(|name| format!("--tag={name}")));
    argv.extend(dockerfile_flags(spec));
    argv.extend(secrets::ssh_flag(spec));
    if !spec.cache_enabled() {
        argv.push("--no-cache".to_owned());
    }
    if let Some(cache) = spec.cache.as_ref().filter(|cache| cache.enabled) {
        argv.extend(cache.from.iter().map(|from| format!("--cache-from={from}")));
        argv.extend(cache.to.iter().map(|to| format!("--cache-to={to}")));
    }
    argv.push(context);
    argv
}

/// Of the provenance only what names no value of a build argument is told (`mode=min`):
/// <https://docs.docker.com/build/metadata/attestations/slsa-provenance/#mode>.
fn attestation(kind: &str, wanted: bool, how: &str) -> String {
    if wanted { format!("--{kind}={how}") } else { format!("--{kind}=false") }
}

/// buildkitd.toml: <https://docs.docker.com/build/buildkit/toml-configuration/>. A registry has one table.
fn config(insecure: &[String], mirrors: &[Mirror]) -> String {
    let table = |(host, mirrors): (&str, Vec<&Mirror>)| {
        let quoted: Vec<String> = mirrors.iter().map(|mirror| format!("\"{}\"", mirror.location)).collect();
        let mirrors = if quoted.is_empty() { String::new() } else { format!("  mirrors = [{}]\n", quoted.join(", ")) };
        let is_insecure = insecure.iter().any(|known| known == host);
        let insecure = if is_insecure { "  http = true\n  insecure = true\n" } else { "" };
        format!("[registry.\"{host}\"]\n{mirrors}{insecure}")
    };
    mirrors::by_registry(mirrors, insecure).into_iter().map(table).collect()
}
