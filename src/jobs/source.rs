//! What `prepare` is told of the source: an inline one travels in its environment, one from Git is an address in its
//! arguments, with the Secret mounted into it and into no other container.

use image_factory_core::git::Protocol;
use image_factory_core::pod::{GIT_CREDENTIALS, INLINE_CHUNK_PREFIX, INLINE_COUNT_VARIABLE};
use k8s_openapi::api::core::v1::{EnvVar, SecretVolumeSource, Volume, VolumeMount};

use super::{Launch, variable};
use crate::{crd::source::GitSource, source};

const CREDENTIALS_VOLUME: &str = "git-credentials";
/// Only `prepare` mounts the Secret, and its user does not own the files. (A group for the Pod's volumes would reach into
/// those of the builder.)
const CREDENTIALS_MODE: i32 = 0o444;

/// The operator's rules for sources.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Git protocols that are allowed though anybody on the way can read and change what they bring.
    pub insecure_protocols: Vec<Protocol>,
    /// Certificate authorities in PEM, beside those of the operator's image, that servers by https may be signed by.
    pub authorities: Option<String>,
    /// How large a fetched source may become.
    pub mebibytes: u32,
}

pub(super) struct Source {
    pub args: Vec<String>,
    pub env: Vec<EnvVar>,
    pub mounts: Vec<VolumeMount>,
    pub volumes: Vec<Volume>,
}

pub(super) fn source(launch: &Launch, settings: &Settings) -> Source {
    let spec = &launch.spec.source;
    match (&spec.git, &spec.inline) {
        (Some(git), _) => from_git(git, settings, launch.spec.timeout().as_secs()),
        (None, inline) => {
            let chunks = inline.as_ref().map(|inline| source::encode_inline(&inline.files)).unwrap_or_default();
            let mut env = vec![variable(INLINE_COUNT_VARIABLE, &chunks.len().to_string())];
            env.extend(
                chunks
                    .iter()
                    .enumerate()
                    .map(|(index, chunk)| variable(&format!("{INLINE_CHUNK_PREFIX}{index}"), chunk)),
            );
            Source { args: Vec::new(), env, mounts: Vec::new(), volumes: Vec::new() }
        }
    }
}

fn from_git(git: &GitSource, settings: &Settings, timeout_seconds: u64) -> Source {
    // No `..`: a new field can't be forgotten.
    let GitSource { url, revision, depth, submodules, credentials_secret } = git;
    let mut args = vec![
        format!("--git-url={url}"),
        format!("--git-depth={}", depth.unwrap_or(1)),
        format!("--git-mebibytes={}", settings.mebibytes),
        format!("--timeout-seconds={timeout_seconds}"),
    ];
    args.extend(revision.iter().map(|revision| format!("--git-revision={revision}")));
    if *submodules {
        args.push("--git-submodules".to_owned());
    }
    args.extend(settings.insecure_protocols.iter().map(|protocol| format!("--git-insecure-protocol={protocol}")));
    args.extend(settings.authorities.iter().map(|pem| format!("--git-authorities={pem}")));
    let (mut mounts, mut volumes) = (Vec::new(), Vec::new());
    if let Some(secret) = credentials_secret {
        args.push(format!("--git-secret={}", secret.name));
        mounts.push(VolumeMount {
            name: CREDENTIALS_VOLUME.to_owned(),
            mount_path: GIT_CREDENTIALS.to_owned(),
            read_only: Some(true),
            ..VolumeMount::default()
        });
        volumes.push(Volume {
            name: CREDENTIALS_VOLUME.to_owned(),
            secret: Some(SecretVolumeSource {
                secret_name: Some(secret.name.clone()),
                default_mode: Some(CREDENTIALS_MODE),
                // The operator may not look whether it exists; `prepare` says so where it doesn't.
                optional: Some(true),
                items: None,
            }),
            ..Volume::default()
        });
    }
    Source { args, env: Vec::new(), mounts, volumes }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{config::Images, jobs};

    fn launch(git: &serde_json::Value) -> Launch {
        Launch {
            id: uuid::Uuid::nil(),
            namespace: "orchard".to_owned(),
            build: "pear".to_owned(),
            build_uid: "u".to_owned(),
            project: "fruit".to_owned(),
            worker: jobs::Worker { name: "cluster".to_owned(), ..jobs::Worker::default() },
            spec: serde_json::from_value(json!({
                "method": "container", "timeout": "90s", "source": {"git": git},
                "output": {"image": "registry.test/a/b:1"},
            }))
            .unwrap(),
        }
    }

    fn settings() -> jobs::Settings {
        jobs::Settings {
            images: Images {
                operator: "operator".to_owned(),
                kaniko: String::new(),
                buildx: "buildx".to_owned(),
                buildkit: "buildkit".to_owned(),
                sbom_generator: String::new(),
                container: "buildah".to_owned(),
                packer: String::new(),
            },
            sources: Settings {
                insecure_protocols: vec![Protocol::Http],
                authorities: Some("-----BEGIN CERTIFICATE-----\nMII=".to_owned()),
                mebibytes: 64,
            },
            ..jobs::Settings::default()
        }
    }

    #[test]
    fn an_address_and_a_revision_are_single_arguments_of_prepare() {
        let launch = launch(&json!({
            "url": "https://git.test/a$(b).git", "revision": "v1", "depth": 0, "submodules": true,
        }));
        let job = jobs::job(&launch, &settings()).unwrap();
        let pod = job.spec.unwrap().template.spec.unwrap();
        let prepare = &pod.init_containers.unwrap()[0];
        let args = prepare.args.clone().unwrap();
        for expected in [
            "--git-url=https://git.test/a$$(b).git",
            "--git-revision=v1",
            "--git-depth=0",
            "--git-submodules",
            "--git-insecure-protocol=http",
            "--git-mebibytes=64",
            "--git-authorities=-----BEGIN CERTIFICATE-----\nMII=",
            "--timeout-seconds=90",
        ] {
            assert!(args.contains(&expected.to_owned()), "{expected}: {args:?}");
        }
        assert!(!args.iter().any(|arg| arg.starts_with("--git-secret")), "{args:?}");
        assert_eq!(prepare.env.as_deref().unwrap_or_default(), []);
        assert!(!pod.volumes.unwrap().iter().any(|volume| volume.secret.is_some()));
    }

    #[test]
    fn the_secret_is_mounted_into_prepare_and_nowhere_else() {
        let launch = launch(&json!({"url": "https://git.test/a.git", "credentialsSecret": {"name": "plum"}}));
        let job = jobs::job(&launch, &settings()).unwrap();
        let pod = job.spec.unwrap().template.spec.unwrap();
        let volume = pod.volumes.unwrap().into_iter().find(|volume| volume.secret.is_some()).unwrap();
        let secret = volume.secret.unwrap();
        assert_eq!((secret.secret_name.as_deref(), secret.optional), (Some("plum"), Some(true)));
        let mut holders = Vec::new();
        for container in pod.init_containers.unwrap().iter().chain(&pod.containers) {
            let mounts = container.volume_mounts.clone().unwrap_or_default();
            if let Some(mount) = mounts.iter().find(|mount| mount.name == volume.name) {
                assert_eq!(mount.read_only, Some(true));
                holders.push(container.name.clone());
            }
        }
        assert_eq!(holders, ["prepare"]);
    }
}
