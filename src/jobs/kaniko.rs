//! Method kaniko: the executor unpacks the base image over its own container and runs each RUN in it, as root with a
//! short list of capabilities and without privileges. So a RUN sees what the container does, the push credentials too.

use image_factory_core::{
    mirrors::Mirror,
    pod::{BUILD_CONTAINER, DIGEST_FILE, SOURCE, VOLUME},
    reference::{HUB, HUB_INDEX},
};
use k8s_openapi::api::core::v1::{Capabilities, Container, SeccompProfile, SecurityContext};

use super::{
    Builder, Launch, Settings, destinations, dockerfile_flags, requested, secrets, shared_volume, under_agent, variable,
};
use crate::crd::options::Options;

/// What files of any owner need, what a RUN under another user needs, and the set-group-ID bit of files that are
/// unpacked or installed, which the kernel takes away without FSETID.
const CAPABILITIES: [&str; 8] = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETFCAP", "SETGID", "SETUID"];

pub(super) fn builder(launch: &Launch, settings: &Settings, insecure: &[String]) -> Builder {
    Builder {
        sidecars: Vec::new(),
        build: Container {
            name: BUILD_CONTAINER.to_owned(),
            image: Some(settings.images.kaniko.clone()),
            command: Some(under_agent(launch, &[], &[execute(launch, settings, insecure)])),
            env: Some(vec![variable("DOCKER_CONFIG", &secrets::docker_config(&launch.spec))]),
            resources: Some(requested(launch, settings)),
            security_context: Some(SecurityContext {
                run_as_user: Some(0),
                // A RUN under another user may call a set-user-ID program.
                allow_privilege_escalation: None,
                capabilities: Some(Capabilities {
                    add: Some(CAPABILITIES.map(str::to_owned).to_vec()),
                    drop: Some(vec!["ALL".to_owned()]),
                }),
                seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
                ..SecurityContext::default()
            }),
            volume_mounts: Some(vec![shared_volume()]),
            ..Container::default()
        },
        volumes: Vec::new(),
        files: Vec::new(),
        digest_from: format!("file:{DIGEST_FILE}"),
    }
}

/// The executor's flags: <https://github.com/osscontainertools/kaniko#additional-flags>.
fn execute(launch: &Launch, settings: &Settings, insecure: &[String]) -> Vec<String> {
    let spec = &launch.spec;
    let context = format!("{SOURCE}/{}", spec.context);
    let mut argv: Vec<String> = [
        "/kaniko/executor",
        // It refuses to run where it does not recognise the runtime, and this is surely a container.
        "--force",
        "--log-format=text",
        "--log-timestamp",
        // Of the credentials around it only the named Secret counts, never the node's in a cloud.
        "--credential-helpers=",
    ]
    .map(str::to_owned)
    .to_vec();
    argv.extend(image(&spec.options));
    argv.push(format!("--ignore-path={VOLUME}"));
    argv.extend(spec.options.ignore_paths.iter().map(|path| format!("--ignore-path={path}")));
    argv.push(format!("--context=dir://{context}"));
    if let Some(dockerfile) = spec.dockerfile() {
        argv.push(format!("--dockerfile={context}/{dockerfile}"));
    }
    argv.extend(destinations(launch).iter().map(|name| format!("--destination={name}")));
    argv.push(format!("--digest-file={DIGEST_FILE}"));
    argv.extend(dockerfile_flags(spec));
    // Without a repository of the user's it would make one beside the image.
    if let Some(repo) = spec.cache_repo() {
        argv.push("--cache".to_owned());
        argv.push(format!("--cache-repo={repo}"));
        argv.extend(spec.options.cache_ttl.iter().map(|ttl| format!("--cache-ttl={ttl}")));
        if spec.options.cache_copy_layers {
            argv.push("--cache-copy-layers".to_owned());
        }
        if spec.options.compressed_caching == Some(false) {
            argv.push("--compressed-caching=false".to_owned());
        }
    }
    argv.extend(settings.mirrors.iter().map(registry_map));
    for host in insecure {
        argv.push(format!("--insecure-registry={host}"));
        argv.push(format!("--skip-tls-verify-registry={host}"));
    }
    argv
}

/// It knows Docker Hub by its older name alone.
fn registry_map(Mirror { registry, location }: &Mirror) -> String {
    let registry = if registry == HUB { HUB_INDEX } else { registry };
    format!("--registry-map={registry}={location}")
}

/// What the options say of the image.
fn image(options: &Options) -> Vec<String> {
    // By default changes are found by size, time, mode and owner, without hashing the whole file system around each RUN,
    // and without --use-new-run, which misses that a RUN deleted a file of the base image.
    let mut argv = vec![format!("--snapshot-mode={}", options.snapshot_mode.unwrap_or_default().as_str())];
    argv.extend(options.format.map(|format| format!("--image-format={}", format.as_str())));
    let switches = [
        (options.use_new_run, "--use-new-run"),
        (options.reproducible, "--reproducible"),
        (options.squash, "--single-snapshot"),
    ];
    argv.extend(switches.into_iter().filter(|(is_on, _)| *is_on).map(|(_, flag)| flag.to_owned()));
    argv
}
