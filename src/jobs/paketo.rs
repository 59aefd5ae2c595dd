//! Method paketo: the lifecycle of the builder's image, phase by phase under the agent, without a privilege: the Pod is
//! one that the restricted profile admits. Buildpacks of the user's come out of their images by init containers that
//! run the agent in them. The push credentials are not mounted beside the buildpacks: `prepare` hands them over in
//! memory, and the agent takes them away before anything of the user's runs.

use image_factory_core::pod::{
    AGENT, BROUGHT, BUILD_CONTAINER, BUILDPACK_CONTAINER, CREDENTIALS, HANDED_CREDENTIALS, LIFECYCLE_REPORT, SOURCE,
};
use k8s_openapi::api::core::v1::{
    Container, LocalObjectReference, PodSecurityContext, PodSpec, SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::{
    Builder, Launch, Settings, USER, destinations, requested, resources, restricted, scratch, secrets, shared_volume,
    under_agent_as,
};
use crate::{config::Images, crd::BuildSpec};

const APP_VOLUME: &str = "workspace";
const LAYERS_VOLUME: &str = "layers";
const HANDOVER_VOLUME: &str = "handover";

/// Why an image that the Build names can't be used here; `None` where all can.
pub fn refusal(spec: &BuildSpec, images: &Images) -> Option<String> {
    let refused = |field: &str, image: &str| {
        image_factory_core::builder_images::refusal(field, image, &images.paketo, &images.paketo_allowed)
    };
    let builder = spec.builder.iter().find_map(|image| refused("spec.builder", image));
    builder.or_else(|| {
        let mut buildpacks = spec.buildpacks.iter().enumerate();
        buildpacks.find_map(|(index, image)| refused(&format!("spec.buildpacks[{index}]"), image))
    })
}

pub(super) fn builder(launch: &Launch, settings: &Settings, insecure: &[String]) -> Builder {
    let spec = &launch.spec;
    let image = spec.builder.as_ref().unwrap_or(&settings.images.paketo);
    let mut mounts = vec![
        shared_volume(),
        mount(APP_VOLUME, image_factory_core::lifecycle::APP),
        mount(LAYERS_VOLUME, image_factory_core::lifecycle::LAYERS),
    ];
    let mut volumes = vec![scratch(APP_VOLUME), scratch(LAYERS_VOLUME)];
    if spec.output.credentials_secret.is_some() {
        mounts.push(mount(HANDOVER_VOLUME, CREDENTIALS));
        volumes.push(in_memory(HANDOVER_VOLUME));
    }
    Builder {
        sidecars: spec.buildpacks.iter().enumerate().map(|(index, image)| bring(index, image)).collect(),
        build: Container {
            name: BUILD_CONTAINER.to_owned(),
            image: Some(image.clone()),
            command: Some(under_agent_as("lifecycle", launch, &options(launch, insecure), &[])),
            resources: Some(requested(launch, settings)),
            // The builder's image says which user its buildpacks expect.
            security_context: Some(SecurityContext {
                run_as_user: None,
                run_as_group: None,
                read_only_root_filesystem: None,
                ..restricted()
            }),
            volume_mounts: Some(mounts),
            ..Container::default()
        },
        volumes,
        files: Vec::new(),
        digest_from: format!("lifecycle:{LIFECYCLE_REPORT}"),
    }
}

/// What else of the Pod is not as with the other methods.
pub(super) fn finish(spec: &BuildSpec, pod: &mut PodSpec) {
    pod.security_context = Some(PodSecurityContext { fs_group: Some(USER), ..PodSecurityContext::default() });
    let Some(secret) = &spec.output.credentials_secret else { return };
    // Images that the user names may want the user's login.
    pod.image_pull_secrets = Some(vec![LocalObjectReference { name: secret.name.clone() }]);
    let Some(prepare) = pod.init_containers.as_mut().and_then(|containers| containers.first_mut()) else { return };
    prepare.args.get_or_insert_default().push("--hand-over-credentials".to_owned());
    let handed = secrets::credentials_mount(spec)
        .map(|credentials| VolumeMount { mount_path: HANDED_CREDENTIALS.to_owned(), ..credentials });
    prepare
        .volume_mounts
        .get_or_insert_default()
        .extend(handed.into_iter().chain([mount(HANDOVER_VOLUME, CREDENTIALS)]));
}

/// Nothing of the image is run: its files are copied to the volume.
fn bring(index: usize, image: &str) -> Container {
    Container {
        name: format!("{BUILDPACK_CONTAINER}{index}"),
        image: Some(image.to_owned()),
        command: Some(vec![AGENT.to_owned(), "bring".to_owned(), format!("--to={BROUGHT}/{index}")]),
        resources: Some(resources([("cpu", "10m"), ("memory", "32Mi")], [("memory", "256Mi")])),
        security_context: Some(restricted()),
        volume_mounts: Some(vec![shared_volume()]),
        ..Container::default()
    }
}

/// What the agent is told of the lifecycle's work.
fn options(launch: &Launch, insecure: &[String]) -> Vec<String> {
    let spec = &launch.spec;
    let mut options = vec![format!("--source={SOURCE}/{}", spec.context)];
    options.extend(destinations(launch).iter().map(|name| format!("--image={name}")));
    if !spec.cache_enabled() {
        options.push("--cold=true".to_owned());
    }
    options.extend(spec.cache_repo().map(|repo| format!("--cache-image={repo}")));
    options.extend(insecure.iter().map(|host| format!("--insecure-registry={host}")));
    options.extend(spec.output.labels.iter().map(|(key, value)| format!("--label={key}={value}")));
    options.extend(spec.environment.iter().map(|(name, value)| format!("--env={name}={value}")));
    options.extend(spec.buildpacks.iter().map(|image| format!("--buildpack={image}")));
    options.extend(secrets::credentials_file(spec).map(|file| format!("--registry-auth={file}")));
    options
}

fn mount(volume: &str, path: &str) -> VolumeMount {
    VolumeMount { name: volume.to_owned(), mount_path: path.to_owned(), ..VolumeMount::default() }
}

/// So that credentials reach no disk.
fn in_memory(name: &str) -> Volume {
    let mut volume = scratch(name);
    if let Some(empty_dir) = &mut volume.empty_dir {
        empty_dir.medium = Some("Memory".to_owned());
        empty_dir.size_limit = Some(Quantity("2Mi".to_owned()));
    }
    volume
}
