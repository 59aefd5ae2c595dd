//! What of its namespace's Secrets a build is given: the push credentials, for `build` and `inspect`, and
//! `spec.secrets` and `spec.ssh`, for `build` alone. The operator may not read Secrets, so each is mounted whether it exists or not,
//! and the agent says what is missing before the builder starts; it also keeps what they hold out of the log.

use image_factory_core::{
    method::Method,
    pod::{CREDENTIALS, CREDENTIALS_FILE, OUT, SECRETS, SSH},
};
use k8s_openapi::api::core::v1::{
    KeyToPath, ProjectedVolumeSource, SecretProjection, SecretVolumeSource, Volume, VolumeMount, VolumeProjection,
};

use super::Launch;
use crate::crd::BuildSpec;

const CREDENTIALS_VOLUME: &str = "credentials";
const SECRETS_VOLUME: &str = "secrets";
const SSH_VOLUME: &str = "ssh";
const SSH_FILE: &str = "key";
/// The key of a Secret of type kubernetes.io/dockerconfigjson.
const CREDENTIALS_KEY: &str = ".dockerconfigjson";
/// The containers of a Pod run as different users, and each mounts only what it may read.
const MODE: i32 = 0o444;

pub(super) fn volumes(spec: &BuildSpec) -> Vec<Volume> {
    let credentials = spec.output.credentials_secret.as_ref().map(|secret| Volume {
        name: CREDENTIALS_VOLUME.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret.name.clone()),
            items: Some(vec![item(CREDENTIALS_KEY, CREDENTIALS_FILE)]),
            default_mode: Some(MODE),
            optional: Some(true),
        }),
        ..Volume::default()
    });
    let secrets = (!spec.secrets.is_empty()).then(|| Volume {
        name: SECRETS_VOLUME.to_owned(),
        projected: Some(ProjectedVolumeSource {
            default_mode: Some(MODE),
            sources: Some(
                spec.secrets
                    .iter()
                    .map(|secret| VolumeProjection {
                        secret: Some(SecretProjection {
                            name: secret.secret_ref.name.clone(),
                            items: Some(vec![item(&secret.secret_ref.key, &secret.id)]),
                            optional: Some(true),
                        }),
                        ..VolumeProjection::default()
                    })
                    .collect(),
            ),
        }),
        ..Volume::default()
    });
    let ssh = spec.ssh.as_ref().map(|ssh| Volume {
        name: SSH_VOLUME.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(ssh.secret_ref.name.clone()),
            items: Some(vec![item(&ssh.secret_ref.key, SSH_FILE)]),
            default_mode: Some(MODE),
            optional: Some(true),
        }),
        ..Volume::default()
    });
    credentials.into_iter().chain(secrets).chain(ssh).collect()
}

fn item(key: &str, path: &str) -> KeyToPath {
    KeyToPath { key: key.to_owned(), path: path.to_owned(), mode: None }
}

/// Of the push credentials, where there are any.
pub(super) fn credentials_mount(spec: &BuildSpec) -> Option<VolumeMount> {
    spec.output.credentials_secret.as_ref().map(|_| mount(CREDENTIALS_VOLUME, CREDENTIALS))
}

/// Whether the builder is given the push credentials: of what Packer leaves `inspect` makes the image.
fn builder_pushes(spec: &BuildSpec) -> bool {
    spec.method != Method::Packer
}

/// Of all that the `build` container may read.
pub(super) fn mounts(spec: &BuildSpec) -> Vec<VolumeMount> {
    let secrets = (!spec.secrets.is_empty()).then(|| mount(SECRETS_VOLUME, SECRETS));
    let ssh = spec.ssh.as_ref().map(|_| mount(SSH_VOLUME, SSH));
    credentials_mount(spec).filter(|_| builder_pushes(spec)).into_iter().chain(secrets).chain(ssh).collect()
}

fn mount(volume: &str, path: &str) -> VolumeMount {
    VolumeMount {
        name: volume.to_owned(),
        mount_path: path.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    }
}

/// The folder with Docker's `config.json`. Without credentials one that is not there, so that what an image has
/// in its own home is never taken for the tenant's.
pub(super) fn docker_config(spec: &BuildSpec) -> String {
    if spec.output.credentials_secret.is_some() { CREDENTIALS.to_owned() } else { format!("{OUT}/docker") }
}

/// `config.json` itself, where there are credentials.
pub(super) fn credentials_file(spec: &BuildSpec) -> Option<String> {
    spec.output.credentials_secret.as_ref().map(|_| format!("{CREDENTIALS}/{CREDENTIALS_FILE}"))
}

/// What buildx, buildah and kaniko alike take for `RUN --mount=type=secret`.
pub(super) fn flags(spec: &BuildSpec) -> impl Iterator<Item = String> {
    spec.secrets.iter().map(|secret| format!("--secret=id={0},src={SECRETS}/{0}", secret.id))
}

/// What buildx takes for `RUN --mount=type=ssh`: it answers for the key as an agent, and hands it to nobody.
pub(super) fn ssh_flag(spec: &BuildSpec) -> Option<String> {
    spec.ssh.as_ref().map(|_| format!("--ssh=default={SSH}/{SSH_FILE}"))
}

/// The file of the push credentials, and what is said where it is not there: `PATH=SENTENCE`.
pub(super) fn needed_credentials(launch: &Launch) -> Option<String> {
    let secret = launch.spec.output.credentials_secret.as_ref()?;
    let file = credentials_file(&launch.spec)?;
    Some(format!(
        "{file}=spec.output.credentialsSecret: Secret {} with key {CREDENTIALS_KEY} was not found in namespace {}",
        secret.name, launch.namespace
    ))
}

/// The agent's part: without which files nothing starts, and whose contents it hides.
pub(super) fn agent_options(launch: &Launch) -> Vec<String> {
    let mut options = Vec::new();
    let namespace = &launch.namespace;
    if builder_pushes(&launch.spec) {
        options.extend(needed_credentials(launch).map(|needed| format!("--needs-secret={needed}")));
        options.extend(credentials_file(&launch.spec).map(|file| format!("--mask-docker-config={file}")));
    }
    for secret in &launch.spec.secrets {
        let file = format!("{SECRETS}/{}", secret.id);
        options.push(format!(
            "--needs-secret={file}=spec.secrets[{}]: Secret {} with key {} was not found in namespace {namespace}",
            secret.id, secret.secret_ref.name, secret.secret_ref.key
        ));
        options.push(format!("--mask-file={file}"));
    }
    if let Some(ssh) = &launch.spec.ssh {
        let file = format!("{SSH}/{SSH_FILE}");
        options.push(format!(
            "--needs-secret={file}=spec.ssh: Secret {} with key {} was not found in namespace {namespace}",
            ssh.secret_ref.name, ssh.secret_ref.key
        ));
        options.push(format!("--mask-file={file}"));
    }
    options
}
