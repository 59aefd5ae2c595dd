//! Method container: buildah with chroot isolation, as root with a short list of capabilities and
//! without privileges. It pushes in a command of its own.

use image_factory_core::{
    mirrors::{self, Mirror},
    pod::{BUILD_CONTAINER, DIGEST_FILE, OUT, SOURCE, VOLUME},
};
use k8s_openapi::api::core::v1::{Capabilities, Container, SecurityContext, VolumeMount};

use super::{
    Builder, Launch, Settings, destinations, dockerfile_flags, requested, scratch, secrets, shared_volume, under_agent,
    variable,
};

const REGISTRIES_FILE: &str = "registries.conf";
const STORAGE_VOLUME: &str = "storage";
const STORAGE: &str = "/var/lib/containers/storage";
/// What chroot isolation needs beside what files of any owner need.
const CAPABILITIES: [&str; 11] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

pub(super) fn builder(launch: &Launch, settings: &Settings, insecure: &[String]) -> Builder {
    let destinations = destinations(launch);
    let mut commands = vec![build(launch, &destinations)];
    let mut env = vec![
        variable("HOME", OUT),
        variable("STORAGE_DRIVER", "vfs"),
        variable("BUILDAH_ISOLATION", "chroot"),
        variable("CONTAINERS_REGISTRIES_CONF", &format!("{VOLUME}/{REGISTRIES_FILE}")),
    ];
    env.extend(secrets::credentials_file(&launch.spec).map(|file| variable("REGISTRY_AUTH_FILE", &file)));
    commands.extend(destinations.iter().enumerate().map(|(index, name)| push(name, index == 0)));
    Builder {
        sidecars: Vec::new(),
        build: Container {
            name: BUILD_CONTAINER.to_owned(),
            image: Some(settings.images.container.clone()),
            command: Some(under_agent(launch, &[], &commands)),
            env: Some(env),
            resources: Some(requested(launch, settings)),
            security_context: Some(SecurityContext {
                run_as_user: Some(0),
                allow_privilege_escalation: None,
                capabilities: Some(Capabilities {
                    add: Some(CAPABILITIES.map(str::to_owned).to_vec()),
                    drop: Some(vec!["ALL".to_owned()]),
                }),
                // RuntimeDefault forbids unshare, which buildah needs.
                seccomp_profile: None,
                ..SecurityContext::default()
            }),
            volume_mounts: Some(vec![
                shared_volume(),
                VolumeMount {
                    name: STORAGE_VOLUME.to_owned(),
                    mount_path: STORAGE.to_owned(),
                    ..VolumeMount::default()
                },
            ]),
            ..Container::default()
        },
        volumes: vec![scratch(STORAGE_VOLUME)],
        files: vec![(REGISTRIES_FILE, registries(insecure, &settings.mirrors))],
        digest_from: format!("file:{DIGEST_FILE}"),
    }
}

fn build(launch: &Launch, destinations: &[String]) -> Vec<String> {
    let spec = &launch.spec;
    let context = format!("{SOURCE}/{}", spec.context);
    // Not --squash, which takes the base image's layers too.
    let layers = if spec.options.squash { "--layers=false" } else { "--layers" };
    let mut argv: Vec<String> = ["buildah", "build", layers].map(str::to_owned).to_vec();
    argv.extend(spec.options.format.map(|format| format!("--format={}", format.as_str())));
    if spec.options.reproducible {
        argv.push("--timestamp=0".to_owned());
    }
    if let Some(dockerfile) = spec.dockerfile() {
        argv.push(format!("--file={context}/{dockerfile}"));
    }
    argv.extend(destinations.iter().map(|name| format!("--tag={name}")));
    argv.extend(dockerfile_flags(spec));
    if !spec.cache_enabled() {
        argv.push("--no-cache".to_owned());
    }
    if let Some(repo) = spec.cache_repo() {
        argv.push(format!("--cache-from={repo}"));
        argv.push(format!("--cache-to={repo}"));
        argv.extend(spec.options.cache_ttl.iter().map(|ttl| format!("--cache-ttl={ttl}")));
    }
    argv.push(context);
    argv
}

fn push(name: &str, first: bool) -> Vec<String> {
    let mut argv: Vec<String> = ["buildah", "push"].map(str::to_owned).to_vec();
    if first {
        argv.push(format!("--digestfile={DIGEST_FILE}"));
    }
    argv.extend([name.to_owned(), format!("docker://{name}")]);
    argv
}

/// registries.conf: short names mean docker.io, as with the other builders. A registry has one table, and each of its
/// mirrors says for itself whether it is insecure.
/// <https://github.com/containers/image/blob/main/docs/containers-registries.conf.5.md>
fn registries(insecure: &[String], mirrors: &[Mirror]) -> String {
    let place = |table: &str, location: &str, host: &str| {
        let insecure = if insecure.iter().any(|known| known == host) { "insecure = true\n" } else { "" };
        format!("[[{table}]]\nlocation = \"{location}\"\n{insecure}")
    };
    let mut toml = "unqualified-search-registries = [\"docker.io\"]\n".to_owned();
    for (registry, mirrors) in mirrors::by_registry(mirrors, insecure) {
        toml += &place("registry", registry, registry);
        for mirror in mirrors {
            toml += &place("registry.mirror", &mirror.location, mirror.host());
        }
    }
    toml
}
