//! Jobs that no attempt needs any more: of attempts that were cleaned up, made by an operator that was paused meanwhile,
//! and of attempts that the database does not know, because it was put back to an older state or begun anew. A build in
//! the queue makes no Job of the same name a leftover: the next launch judges that one.

use std::{collections::HashMap, time::Duration};

use image_factory_core::{ids, labels};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use kube::{Resource, ResourceExt, core::PartialObjectMeta};
use uuid::Uuid;

use super::{super::Error, Build};
use crate::{
    clock,
    db::verify::{self, Attempt},
    kube_ext,
    runtime::Context,
};

/// A Job that the database does not know is left alone for this long: whoever has pointed the operator at the wrong
/// database has that time to notice.
const UNKNOWN_FOR: Duration = Duration::from_hours(1);

pub async fn delete(context: &Context) -> Result<(), Error> {
    // The Jobs first: each of them was made after its row.
    let jobs = kube_ext::jobs_of_builds(&context.client).await?;
    let ids: Vec<Uuid> = jobs.iter().filter_map(build_id).collect();
    let attempts = verify::attempts(&context.pool, &ids).await?;
    let now = clock::now();
    for job in jobs.iter().filter(|job| is_leftover(job, &attempts, now)) {
        let (namespace, name) = (job.namespace().unwrap_or_default(), job.name_any());
        match delete_live(context, job).await {
            Ok(()) => tracing::info!(job.namespace = namespace, job.name = name, "a Job without an attempt was swept"),
            // The others are not held up by it.
            Err(error) => {
                tracing::warn!(job.namespace = namespace, job.name = name, %error, "a Job could not be swept");
                context.metrics.failed("sweeper");
            }
        }
    }
    Ok(())
}

/// A live look first: only this very Job is deleted, and only while it is labelled as ours.
async fn delete_live(context: &Context, job: &PartialObjectMeta<Job>) -> Result<(), kube::Error> {
    let (Some(id), Some(build)) = (build_id(job), job.labels().get(labels::BUILD)) else { return Ok(()) };
    let live = kube_ext::job_of(&context.client, &job.namespace().unwrap_or_default(), build, id).await?;
    match live.filter(|live| live.uid() == job.uid()) {
        Some(live) => kube_ext::delete_job(&context.client, &live).await,
        None => Ok(()),
    }
}

fn build_id(job: &PartialObjectMeta<Job>) -> Option<Uuid> {
    job.labels().get(labels::BUILD_ID)?.parse().ok()
}

/// Anyone may write a label: it is a Job of ours only with the name we gave it, and a Build as its owner.
fn is_leftover(job: &PartialObjectMeta<Job>, attempts: &HashMap<Uuid, Attempt>, now: Timestamp) -> bool {
    let (Some(id), Some(build)) = (build_id(job), job.labels().get(labels::BUILD)) else { return false };
    let is_ours = job.name_any() == ids::job_name(build, id)
        && job.owner_references().iter().any(|owner| {
            owner.controller == Some(true)
                && owner.kind == Build::kind(&())
                && owner.api_version == Build::api_version(&())
        });
    if !is_ours || job.metadata.deletion_timestamp.is_some() {
        return false;
    }
    if let Some(attempt) = attempts.get(&id) {
        return attempt.status.is_terminal() && attempt.cleaned;
    }
    let age = job.creation_timestamp().map(|created| now.duration_since(created.0));
    age.and_then(|age| Duration::try_from(age).ok()).is_some_and(|age| age >= UNKNOWN_FOR)
}

#[cfg(test)]
mod tests {
    use image_factory_core::status::Status;
    use serde_json::{Value, json};

    use super::*;

    const ID: &str = "0190a5b2-7c3d-7e4f-8a1b-00001f3a9c2e";

    fn job(change: &Value) -> PartialObjectMeta<Job> {
        let mut metadata = json!({
            "namespace": "orchard", "name": "cider-1f3a9c2e", "creationTimestamp": "2026-01-01T10:00:00Z",
            "labels": {labels::BUILD_ID: ID, labels::BUILD: "cider"},
            "ownerReferences": [{
                "apiVersion": "imagefactory.dev/v1alpha1", "kind": "Build", "name": "cider", "uid": "u", "controller": true,
            }],
        });
        for (field, value) in change.as_object().into_iter().flatten() {
            metadata[field] = value.clone();
        }
        serde_json::from_value(json!({"metadata": metadata})).unwrap()
    }

    fn attempt(status: Status, cleaned: bool) -> HashMap<Uuid, Attempt> {
        let attempt =
            Attempt { namespace: "orchard".to_owned(), name: "cider".to_owned(), status, job_created: true, cleaned };
        HashMap::from([(ID.parse().unwrap(), attempt)])
    }

    fn at(time: &str) -> Timestamp {
        format!("2026-01-01T{time}Z").parse().unwrap()
    }

    #[test]
    fn a_job_is_left_over_when_its_attempt_was_cleaned_up_or_is_unknown_for_an_hour() {
        let own = job(&json!({}));
        for (attempts, time, expected) in [
            (attempt(Status::Success, true), "10:00:01", true),
            (attempt(Status::Cancelled, true), "10:00:01", true),
            // The cleaner's, when its time comes.
            (attempt(Status::Failed, false), "23:00:00", false),
            (attempt(Status::InProgress, false), "23:00:00", false),
            (attempt(Status::Queued, false), "23:00:00", false),
            (HashMap::new(), "10:59:59", false),
            (HashMap::new(), "11:00:00", true),
            // A clock that is behind.
            (HashMap::new(), "09:00:00", false),
        ] {
            assert_eq!(is_leftover(&own, &attempts, at(time)), expected, "{attempts:?} at {time}");
        }
    }

    #[test]
    fn what_is_not_ours_or_on_its_way_is_left_alone() {
        for change in [
            json!({"name": "cider"}),
            json!({"ownerReferences": []}),
            json!({"ownerReferences": [{"apiVersion": "apps/v1", "kind": "Build", "name": "cider", "uid": "u", "controller": true}]}),
            json!({"labels": {labels::BUILD_ID: ID}}),
            json!({"labels": {labels::BUILD_ID: "another's", labels::BUILD: "cider"}}),
            json!({"deletionTimestamp": "2026-01-01T10:00:00Z"}),
        ] {
            for attempts in [attempt(Status::Success, true), HashMap::new()] {
                assert!(!is_leftover(&job(&change), &attempts, at("23:00:00")), "{change}");
            }
        }
    }
}
