//! The Jobs of builds against the rows: each is the Job of one attempt, which it was made for.

use std::collections::HashMap;

use image_factory_core::{ids, labels, status::Status};
use k8s_openapi::api::batch::v1::Job;
use kube::{Client, ResourceExt, core::PartialObjectMeta};
use sqlx::PgPool;
use uuid::Uuid;

use super::Error;
use crate::{
    db::verify::{self, Attempt, Broken, Checked},
    kube_ext,
};

pub async fn check(pool: &PgPool, client: &Client) -> Result<Checked, Error> {
    // The Jobs first: each of them was made after its row.
    let jobs = kube_ext::jobs_of_builds(client).await?;
    let ids: Vec<Uuid> = jobs.iter().filter_map(build_id).collect();
    let attempts = verify::attempts(pool, &ids).await?;
    let broken = jobs
        .iter()
        .filter(|job| job.metadata.deletion_timestamp.is_none())
        .filter_map(|job| {
            let subject = format!("Job {}/{}", job.namespace().unwrap_or_default(), job.name_any());
            problem(job, &attempts).map(|problem| Broken { subject, problem })
        })
        .collect();
    Ok(Checked { examined: jobs.len(), broken })
}

fn build_id(job: &PartialObjectMeta<Job>) -> Option<Uuid> {
    job.labels().get(labels::BUILD_ID)?.parse().ok()
}

/// Every attempt has one name for its Job, so two Jobs of an attempt can't both have it.
fn problem(job: &PartialObjectMeta<Job>, attempts: &HashMap<Uuid, Attempt>) -> Option<String> {
    let Some((id, attempt)) = build_id(job).and_then(|id| attempts.get_key_value(&id)) else {
        return Some("has no build".to_owned());
    };
    let name = ids::job_name(&attempt.name, *id);
    if job.name_any() != name || job.namespace().as_deref() != Some(&attempt.namespace) {
        return Some(format!("is not the Job of build {id}, which is {}/{name}", attempt.namespace));
    }
    if attempt.status == Status::Queued {
        return Some(format!("is there while build {id} is queued"));
    }
    if attempt.cleaned {
        return Some(format!("is there though build {id} was cleaned up"));
    }
    (attempt.status.is_terminal() && !attempt.job_created)
        .then(|| format!("is there though build {id} ended without a Job"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ID: &str = "0190a5b2-7c3d-7e4f-8a1b-00001f3a9c2e";

    fn job(namespace: &str, name: &str, id: &str) -> PartialObjectMeta<Job> {
        let labels = json!({labels::BUILD_ID: id});
        let object = json!({"metadata": {"namespace": namespace, "name": name, "labels": labels}});
        serde_json::from_value(object).unwrap()
    }

    fn attempt(status: Status, job_created: bool, cleaned: bool) -> Attempt {
        Attempt { namespace: "orchard".to_owned(), name: "cider".to_owned(), status, job_created, cleaned }
    }

    #[test]
    fn a_job_belongs_to_an_attempt_that_has_or_had_one() {
        let own = job("orchard", "cider-1f3a9c2e", ID);
        for (job, attempt, expected) in [
            (&own, attempt(Status::InProgress, false, false), None),
            (&own, attempt(Status::InProgress, true, false), None),
            (&own, attempt(Status::Success, true, false), None),
            (&own, attempt(Status::Queued, false, false), Some("is queued")),
            (&own, attempt(Status::Success, true, true), Some("was cleaned up")),
            (&own, attempt(Status::Cancelled, false, false), Some("without a Job")),
            (&job("orchard", "cider-2", ID), attempt(Status::InProgress, true, false), Some("is not the Job of")),
            (&job("meadow", "cider-1f3a9c2e", ID), attempt(Status::InProgress, true, false), Some("is not the Job of")),
            (&job("orchard", "cider-1f3a9c2e", "x"), attempt(Status::InProgress, true, false), Some("has no build")),
        ] {
            let found = problem(job, &HashMap::from([(ID.parse().unwrap(), attempt.clone())]));
            match expected {
                None => assert_eq!(found, None, "{attempt:?}"),
                Some(words) => assert!(found.unwrap().contains(words), "{words}"),
            }
        }
        assert!(problem(&own, &HashMap::new()).unwrap().contains("has no build"));
    }
}
