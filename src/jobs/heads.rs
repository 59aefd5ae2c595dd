//! The Job that looks at the heads of branches for a WebhookConfig with `spec.poll`: one container of the operator's
//! image, restricted, in the WebhookConfig's namespace and with the Secret of its source alone.

use std::collections::BTreeMap;

use image_factory_core::{
    ids,
    labels::{MANAGED_BY, POLL, WEBHOOK},
};
use k8s_openapi::{
    api::{
        batch::v1::{Job, JobSpec},
        core::v1::{Container, PodSpec, PodTemplateSpec},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::Resource;
use uuid::Uuid;

use super::{Settings, VOLUME_NAME, literal, resources, restricted, scratch, shared_volume, source};
use crate::{
    crd::{WebhookConfig, source::GitSource},
    source::check_git,
};

/// Its only container.
pub const CONTAINER: &str = "heads";
/// How long the Pod may live, waiting for its image included.
pub const DEADLINE_SECONDS: i64 = 180;
/// Should the operator never delete it.
const BACKSTOP_TTL_SECONDS: i32 = 600;
const GRACE_SECONDS: i64 = 5;

/// A look that is taken.
#[derive(Clone, Debug)]
pub struct Look {
    pub id: Uuid,
    pub namespace: String,
    pub webhook: String,
    pub webhook_uid: String,
    pub git: GitSource,
    /// Globs.
    pub branches: Vec<String>,
}

/// The Job of a look. The same look gives the same Job.
///
/// # Errors
/// Why this address may not be asked, as a sentence.
pub fn heads_job(look: &Look, settings: &Settings) -> Result<Job, String> {
    let Look { id, namespace, webhook, webhook_uid, git, branches } = look;
    check_git(&git.url, None, git.credentials_secret.is_some(), &settings.sources.insecure_protocols)
        .map_err(|error| error.to_string())?;
    let source = source::access(git, &settings.sources);
    let mut args = vec!["heads".to_owned()];
    args.extend(source.args);
    args.extend(branches.iter().map(|branch| format!("--branch={branch}")));
    let labels = BTreeMap::from(
        [(POLL, id.to_string()), (WEBHOOK, webhook.clone()), (MANAGED_BY, "image-factory".to_owned())]
            .map(|(key, value)| (key.to_owned(), value)),
    );
    let container = Container {
        name: CONTAINER.to_owned(),
        image: Some(settings.images.operator.clone()),
        args: Some(args.iter().map(|arg| literal(arg)).collect()),
        volume_mounts: Some([shared_volume()].into_iter().chain(source.mounts).collect()),
        resources: Some(resources([("cpu", "10m"), ("memory", "32Mi")], [("memory", "256Mi")])),
        security_context: Some(restricted()),
        ..Container::default()
    };
    Ok(Job {
        metadata: ObjectMeta {
            name: Some(ids::poll_job_name(webhook, *id)),
            namespace: Some(namespace.clone()),
            labels: Some(labels.clone()),
            owner_references: Some(vec![OwnerReference {
                api_version: WebhookConfig::api_version(&()).into_owned(),
                kind: WebhookConfig::kind(&()).into_owned(),
                name: webhook.clone(),
                uid: webhook_uid.clone(),
                controller: Some(true),
                block_owner_deletion: None,
            }]),
            ..ObjectMeta::default()
        },
        spec: Some(JobSpec {
            backoff_limit: Some(0),
            pod_replacement_policy: Some("Failed".to_owned()),
            ttl_seconds_after_finished: Some(BACKSTOP_TTL_SECONDS),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta { labels: Some(labels), ..ObjectMeta::default() }),
                spec: Some(PodSpec {
                    containers: vec![container],
                    volumes: Some([scratch(VOLUME_NAME)].into_iter().chain(source.volumes).collect()),
                    restart_policy: Some("Never".to_owned()),
                    active_deadline_seconds: Some(DEADLINE_SECONDS),
                    termination_grace_period_seconds: Some(GRACE_SECONDS),
                    automount_service_account_token: Some(false),
                    enable_service_links: Some(false),
                    ..PodSpec::default()
                }),
            },
            ..JobSpec::default()
        }),
        status: None,
    })
}

#[cfg(test)]
mod tests {
    use image_factory_core::git::Protocol;
    use serde_json::json;

    use super::*;
    use crate::config::Images;

    fn look(git: &serde_json::Value) -> Look {
        Look {
            id: "0190a5b2-7c3d-7e4f-8a1b-00001f3a9c2e".parse().unwrap(),
            namespace: "orchard".to_owned(),
            webhook: "web".to_owned(),
            webhook_uid: "u".to_owned(),
            git: serde_json::from_value(git.clone()).unwrap(),
            branches: vec!["main".to_owned(), "release/$(x)*".to_owned()],
        }
    }

    fn settings() -> Settings {
        Settings { images: Images { operator: "operator".to_owned(), ..Images::default() }, ..Settings::default() }
    }

    #[test]
    fn the_credentials_are_mounted_where_git_runs_and_the_address_is_one_argument() {
        let git = json!({"url": "https://git.test/a.git", "revision": "main", "credentialsSecret": {"name": "plum"}});
        let job = heads_job(&look(&git), &settings()).unwrap();
        assert_eq!(job.metadata.name.as_deref(), Some("web-poll-1f3a9c2e"));
        let pod = job.spec.unwrap().template.spec.unwrap();
        assert_eq!(pod.automount_service_account_token, Some(false));
        let container = &pod.containers[0];
        let args = [
            "heads",
            "--git-url=https://git.test/a.git",
            "--git-secret=plum",
            "--branch=main",
            "--branch=release/$$(x)*",
        ];
        assert_eq!(container.args.as_deref().unwrap(), args);
        let secrets: Vec<_> =
            pod.volumes.unwrap().into_iter().filter_map(|volume| volume.secret?.secret_name).collect();
        assert_eq!(secrets, ["plum"]);
        assert_eq!(container.volume_mounts.as_ref().unwrap().len(), 2);
    }

    #[test]
    fn an_address_that_no_build_may_name_is_not_asked_either() {
        for (url, words) in [
            ("http://git.test/a.git", "is not encrypted"),
            ("https://me:word@git.test/a.git", "must have no password"),
            ("ssh://git@git.test/a.git", "needs spec.source.git.credentialsSecret"),
        ] {
            let refused = heads_job(&look(&json!({"url": url})), &settings()).unwrap_err();
            assert!(refused.contains(words), "{refused}");
        }
        let mut allowing = settings();
        allowing.sources.insecure_protocols = vec![Protocol::Http];
        assert!(heads_job(&look(&json!({"url": "http://git.test/a.git"})), &allowing).is_ok());
    }
}
