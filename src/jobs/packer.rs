//! Method packer: Packer in the context's folder, under the restricted profile and without the push credentials: what it
//! leaves there is pushed by `inspect`. It may write to the volume, its home and /tmp, and nowhere else.

use image_factory_core::{
    packer::template,
    pod::{BUILD_CONTAINER, PACKER_INIT, PACKER_PLAN, SOURCE},
};
use k8s_openapi::api::core::v1::{Container, VolumeMount};

use super::{Builder, Launch, Settings, requested, restricted, scratch, shared_volume, under_agent, variable};
use crate::crd::BuildSpec;

const HOME: &str = "/image-factory-packer";
const HOME_VOLUME: &str = "packer";
const TMP: &str = "/tmp";
const TMP_VOLUME: &str = "tmp";

pub(super) fn builder(launch: &Launch, settings: &Settings) -> Builder {
    let spec = &launch.spec;
    let template = template(spec);
    // Only where the template asks for plugins: before 1.7 the command is not known, and nothing can be asked for.
    let init = ["packer", "init", &template].map(str::to_owned).to_vec();
    let options = [format!("--first-if={PACKER_INIT}")];
    let mount = |name: &str, path: &str| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        ..VolumeMount::default()
    };
    Builder {
        sidecars: Vec::new(),
        build: Container {
            name: BUILD_CONTAINER.to_owned(),
            image: Some(settings.images.packer.clone()),
            command: Some(under_agent(launch, &options, &[init, build(spec, &template)])),
            env: Some(vec![
                variable("HOME", HOME),
                variable("TMPDIR", TMP),
                variable("PACKER_CACHE_DIR", &format!("{HOME}/cache")),
                // It would ask its maker for a newer version.
                variable("CHECKPOINT_DISABLE", "1"),
            ]),
            working_dir: Some(context(spec)),
            resources: Some(requested(launch, settings)),
            security_context: Some(restricted()),
            volume_mounts: Some(vec![shared_volume(), mount(HOME_VOLUME, HOME), mount(TMP_VOLUME, TMP)]),
            ..Container::default()
        },
        volumes: vec![scratch(HOME_VOLUME), scratch(TMP_VOLUME)],
        files: Vec::new(),
        digest_from: format!("packer:{PACKER_PLAN}"),
    }
}

/// What `prepare` is told of the template.
pub(super) fn prepare(spec: &BuildSpec, settings: &Settings) -> Vec<String> {
    let Some(packer) = &spec.packer else { return Vec::new() };
    let template = packer.template.iter().map(|text| format!("--packer-template={text}"));
    let path = packer.path.iter().map(|path| format!("--packer-path={path}"));
    let plugins = settings.packer_plugins.iter().map(|plugin| format!("--packer-plugin={plugin}"));
    template.chain(path).chain(plugins).collect()
}

/// What `inspect` makes an image of.
pub(super) fn inspect(spec: &BuildSpec) -> Vec<String> {
    let labels = spec.output.labels.iter().map(|(key, value)| format!("--label={key}={value}"));
    [format!("--context={}", context(spec))].into_iter().chain(labels).collect()
}

fn build(spec: &BuildSpec, template: &str) -> Vec<String> {
    let mut argv = ["packer", "build", "-color=false"].map(str::to_owned).to_vec();
    let variables = spec.packer.iter().flat_map(|packer| &packer.variables);
    argv.extend(variables.map(|(name, value)| format!("-var={name}={value}")));
    argv.push(template.to_owned());
    argv
}

/// As Packer finds it from the context's folder, where `prepare` has put a text.
fn template(spec: &BuildSpec) -> String {
    let packer = spec.packer.clone().unwrap_or_default();
    match (packer.template, packer.path) {
        (Some(text), _) => template::name_of(&text).to_owned(),
        (None, path) => format!("{SOURCE}/{}", path.unwrap_or_default()),
    }
}

fn context(spec: &BuildSpec) -> String {
    match spec.context.trim_start_matches("./").trim_end_matches('/') {
        "" | "." => SOURCE.to_owned(),
        folder => format!("{SOURCE}/{folder}"),
    }
}
