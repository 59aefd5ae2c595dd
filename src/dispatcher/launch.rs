//! Creates the Job of a claimed attempt, at most once: its name comes from the attempt's id, and
//! "already exists" counts as done only for a Job of the same attempt and worker. Where the operator
//! manages the Job, its Pod is part of the launch.

use image_factory_core::{labels, reason::Reason};
use k8s_openapi::api::batch::v1::Job;
use kube::{Api, Client, ResourceExt, api::PostParams};

use super::{Error, pod};
use crate::{
    crd::BuildSpec,
    db::launches::Unlaunched,
    failpoint,
    jobs::{self, Launch},
    kube_ext,
    runtime::Context,
};

pub enum Launched {
    /// The Job exists; one of ours has its Pod, or had it.
    Created(Box<Job>),
    /// Another Job or Pod has its name; it was told to go.
    InTheWay,
    /// The API server does not take it as things stand: a quota, a policy.
    NotNow(String),
    /// The API server will never take it.
    Refused(Reason, String),
}

pub async fn launch(context: &Context, attempt: &Unlaunched) -> Result<Launched, Error> {
    let spec: BuildSpec = match serde_json::from_value(attempt.spec.clone()) {
        Ok(spec) => spec,
        Err(error) => {
            return Ok(Launched::Refused(Reason::InvalidSpec, format!("the stored spec can't be read: {error}")));
        }
    };
    let launch = Launch {
        id: attempt.id,
        namespace: attempt.namespace.clone(),
        build: attempt.name.clone(),
        build_uid: attempt.uid.clone(),
        project: attempt.project.clone(),
        worker: jobs::Worker {
            name: attempt.worker.clone(),
            node_selector: attempt.node_selector.clone(),
            tolerations: attempt.tolerations.clone(),
        },
        spec,
    };
    let job = match jobs::job(&launch, &context.jobs) {
        Ok(job) => job,
        Err(jobs::Error::MethodNotAvailable(why)) => {
            return Ok(Launched::Refused(Reason::MethodNotAvailable, why));
        }
    };
    let api: Api<Job> = Api::namespaced(context.client.clone(), &launch.namespace);
    failpoint::request("launch.before-create")?;
    let (job, found) = match api.create(&PostParams::default(), &job).await {
        Ok(job) => {
            failpoint::request("launch.after-create")?;
            tracing::info!(build.id = %launch.id, job = job.name_any(), "the Job was created");
            (job, false)
        }
        Err(kube::Error::Api(error)) if error.code == 409 && error.reason == "AlreadyExists" => {
            match taken(&context.client, &api, &job, &launch).await? {
                Some(job) => (job, true),
                None => return Ok(Launched::InTheWay),
            }
        }
        Err(error) => return Ok(refusal(error)?),
    };
    Ok(pod::create(&context.client, job, found).await?)
}

/// What it means that the API server does not take a Job or its Pod; an error where it only failed to.
pub fn refusal(error: kube::Error) -> Result<Launched, kube::Error> {
    match error {
        kube::Error::Api(error) if matches!(error.code, 400 | 413 | 422) => {
            Ok(Launched::Refused(Reason::InvalidSpec, error.message.clone()))
        }
        // The namespace is being deleted, or is gone: its Builds go with it.
        kube::Error::Api(error) if error.code == 404 || error.details_say_terminating() => {
            Ok(Launched::Refused(Reason::Deleted, "the namespace is being deleted".to_owned()))
        }
        kube::Error::Api(error) if error.code == 403 => Ok(Launched::NotNow(error.message.clone())),
        error => Err(error),
    }
}

/// The Job that has the name, where it is this attempt's.
async fn taken(client: &Client, api: &Api<Job>, job: &Job, launch: &Launch) -> Result<Option<Job>, Error> {
    let name = job.name_any();
    let Some(existing) = api.get_opt(&name).await? else {
        return Ok(None);
    };
    let same = |label: &str, value: &str| existing.labels().get(label).is_some_and(|found| found == value);
    if same(labels::BUILD_ID, &launch.id.to_string()) && same(labels::WORKER, &launch.worker.name) {
        return Ok(Some(existing));
    }
    tracing::warn!(build.id = %launch.id, job = name, "another Job has the name of this build's; it is deleted");
    kube_ext::delete_job(client, &existing).await?;
    Ok(None)
}

trait Terminating {
    fn details_say_terminating(&self) -> bool;
}

impl Terminating for kube::core::Status {
    /// 403 with cause NamespaceTerminating.
    fn details_say_terminating(&self) -> bool {
        self.details
            .as_ref()
            .is_some_and(|details| details.causes.iter().any(|cause| cause.reason == "NamespaceTerminating"))
    }
}
