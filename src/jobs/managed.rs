//! A Job that we manage instead of Kubernetes' Job controller (`spec.managedBy`): which Pod it gets, and
//! how it says that it has ended. So a build starts without the controller's queue, which the whole
//! cluster shares, and `kubectl logs job/…`, `kubectl wait` and the TTL work as with any Job.
//!
//! What a manager must write is <https://kubernetes.io/docs/concepts/workloads/controllers/job/#delegation-of-managing-a-job-object-to-external-controller>,
//! and the API server refuses anything else (`validateJobStatus` in `pkg/apis/batch/validation`).

use image_factory_core::status::Status;
use jiff::Timestamp;
use k8s_openapi::{
    Resource,
    api::{batch::v1::Job, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::ResourceExt;
use serde_json::{Value, json};

/// `spec.managedBy` of our Jobs.
pub const MANAGER: &str = "imagefactory.dev/operator";

/// Whether the Job's Pod is ours to make.
pub fn is_ours(job: &Job) -> bool {
    job.spec.as_ref().is_some_and(|spec| spec.managed_by.as_deref() == Some(MANAGER))
}

/// The one Pod of a Job of ours, from the Job as the API server gave it back: its template has the labels
/// by then that the Job controller puts on Pods. It has the Job's own name, so there can't be two.
pub fn pod(job: &Job) -> Pod {
    let template = job.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let mut metadata = template.metadata.unwrap_or_default();
    metadata.name = Some(job.name_any());
    metadata.namespace = job.namespace();
    metadata.owner_references = Some(vec![OwnerReference {
        api_version: Job::API_VERSION.to_owned(),
        kind: Job::KIND.to_owned(),
        name: job.name_any(),
        uid: job.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }]);
    Pod { metadata, spec: template.spec, status: None }
}

/// Whether exactly this Job controls the Pod.
pub fn controls(job: &Job, pod: &Pod) -> bool {
    controller(pod).is_some_and(|owner| Some(&owner.uid) == job.metadata.uid.as_ref())
}

/// The UID of the Job whose Pod this is and that we manage: no Pod of the Job controller has its Job's name.
pub fn managed_job(pod: &Pod) -> Option<&str> {
    let owner = controller(pod).filter(|owner| owner.kind == Job::KIND)?;
    (pod.metadata.name.as_ref() == Some(&owner.name)).then_some(owner.uid.as_str())
}

fn controller(pod: &Pod) -> Option<&OwnerReference> {
    pod.owner_references().iter().find(|owner| owner.controller == Some(true))
}

/// Whether the Job says that it has ended; that it never takes back.
pub fn has_ended(job: &Job) -> bool {
    let conditions = job.status.iter().flat_map(|status| &status.conditions).flatten();
    conditions
        .filter(|condition| condition.status == "True")
        .any(|condition| matches!(condition.type_.as_str(), "Complete" | "Failed"))
}

/// The merge patch of the status by which a Job ends whose attempt has ended as `status`: the criterion and
/// the end in one. It reaches only the Job with this UID. `started`: when the Pod did, where that is known.
pub fn end(uid: &str, status: Status, started: Option<Timestamp>, now: Timestamp) -> Value {
    // By another clock it may have started later than it ends, which is refused.
    let started = started.unwrap_or(now).min(now);
    let succeeded = status == Status::Success;
    let (types, reason, message) = match status {
        Status::Success => (["SuccessCriteriaMet", "Complete"], "BuildSucceeded", "the build succeeded"),
        Status::Cancelled => (["FailureTarget", "Failed"], "BuildCancelled", "the build was cancelled"),
        _ => (["FailureTarget", "Failed"], "BuildFailed", "the build failed, its Build says why"),
    };
    let conditions = types.map(|of| {
        json!({
            "type": of, "status": "True", "reason": reason, "message": message,
            "lastProbeTime": now, "lastTransitionTime": now,
        })
    });
    let mut ended = json!({
        "startTime": started, "conditions": conditions, "active": 0, "ready": 0, "terminating": 0,
        "succeeded": i32::from(succeeded), "failed": i32::from(!succeeded),
    });
    if succeeded {
        ended["completionTime"] = json!(now);
    }
    json!({"metadata": {"uid": uid}, "status": ended})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> Job {
        serde_json::from_value(json!({
            "metadata": {"name": "cider-1f3a9c2e", "namespace": "orchard", "uid": "u1"},
            "spec": {
                "managedBy": MANAGER,
                "template": {
                    "metadata": {
                        "labels": {"batch.kubernetes.io/controller-uid": "u1", "imagefactory.dev/build": "cider"},
                        "annotations": {"kubectl.kubernetes.io/default-container": "build"},
                    },
                    "spec": {"restartPolicy": "Never", "containers": [{"name": "inspect"}]},
                },
            },
        }))
        .unwrap()
    }

    #[test]
    fn the_pod_is_the_jobs_template_under_the_jobs_name_and_control() {
        let expected: Pod = serde_json::from_value(json!({
            "metadata": {
                "name": "cider-1f3a9c2e", "namespace": "orchard",
                "labels": {"batch.kubernetes.io/controller-uid": "u1", "imagefactory.dev/build": "cider"},
                "annotations": {"kubectl.kubernetes.io/default-container": "build"},
                "ownerReferences": [{
                    "apiVersion": "batch/v1", "kind": "Job", "name": "cider-1f3a9c2e", "uid": "u1",
                    "controller": true, "blockOwnerDeletion": true,
                }],
            },
            "spec": {"restartPolicy": "Never", "containers": [{"name": "inspect"}]},
        }))
        .unwrap();
        assert_eq!(pod(&job()), expected);
    }

    #[test]
    fn a_pod_is_of_the_job_with_that_uid_and_of_ours_by_its_name() {
        let (job, mut own) = (job(), pod(&job()));
        assert!(is_ours(&job) && controls(&job, &own));
        assert_eq!(managed_job(&own), Some("u1"));
        own.metadata.name = Some("cider-1f3a9c2e-x7k2p".to_owned());
        assert_eq!(managed_job(&own), None, "the Job controller's");
        let mut other = job.clone();
        other.metadata.uid = Some("u2".to_owned());
        assert!(!controls(&other, &own), "an older Job's of the same name");
        assert!(!controls(&job, &Pod::default()));
        assert!(!is_ours(&Job::default()));
    }

    #[test]
    fn a_job_ends_with_its_criterion_and_the_times_and_counts_the_api_server_demands() {
        let (early, late) = ("2026-11-24T10:00:00Z".parse().unwrap(), "2026-11-24T10:00:07Z".parse().unwrap());
        for (status, started, types, start, completion, counts) in [
            (Status::Success, Some(early), ["SuccessCriteriaMet", "Complete"], early, json!(late), (1, 0)),
            (Status::Failed, Some(early), ["FailureTarget", "Failed"], early, Value::Null, (0, 1)),
            (Status::Cancelled, Some(early), ["FailureTarget", "Failed"], early, Value::Null, (0, 1)),
            (Status::Failed, None, ["FailureTarget", "Failed"], late, Value::Null, (0, 1)),
        ] {
            let patch = end("u1", status, started, late);
            assert_eq!(patch["metadata"], json!({"uid": "u1"}));
            let ended = &patch["status"];
            assert_eq!([&ended["conditions"][0]["type"], &ended["conditions"][1]["type"]], types);
            assert_eq!((&ended["startTime"], &ended["completionTime"]), (&json!(start), &completion), "{status}");
            assert_eq!((&ended["succeeded"], &ended["failed"]), (&json!(counts.0), &json!(counts.1)), "{status}");
            assert_eq!(ended["active"], json!(0), "nothing of it runs");
            let mut job = job();
            assert!(!has_ended(&job));
            job.status = serde_json::from_value(ended.clone()).unwrap();
            assert!(has_ended(&job));
        }
        let patch = end("u1", Status::Success, Some(late), early);
        assert_eq!(patch["status"]["startTime"], patch["status"]["completionTime"], "never before its start");
    }
}
