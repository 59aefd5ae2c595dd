//! The end of an attempt: decides its outcome and writes it, once. Where something from outside ended
//! the Pod, it first asks the cluster whether the Build is being deleted: its own watch may be behind.

use image_factory_core::{
    cost::Cost,
    outcome::{ContainerEnd, Ending, Evidence, decide},
    push,
    reason::{Reason, Stage},
    report::{AgentReport, SourceFacts},
};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, ResourceExt};
use uuid::Uuid;

use super::Error;
use crate::{
    crd::{Build, BuildSpec},
    db::{
        launches,
        results::{self, Measured},
    },
    runtime::Context,
};

/// Enough of the log's end for the builder's last words and the lines of its push.
const TAIL_LINES: i64 = 200;
/// What a Pod looks like that was ended by someone else.
const FROM_OUTSIDE: [Reason; 3] = [Reason::JobDeleted, Reason::AgentLost, Reason::Internal];

pub async fn finish(
    context: &Context,
    build: Uuid,
    ending: &Ending,
    inspection: Option<&str>,
    source: Option<&SourceFacts>,
) -> Result<(), Error> {
    let Some(attempt) = launches::ending(&context.pool, build, TAIL_LINES).await? else { return Ok(()) };
    let (method, tail) = (attempt.method, &attempt.tail);
    let decided = |cancelled| decide(Evidence { method, ending, inspection, tail, cancelled });
    let mut outcome = decided(attempt.cancel);
    let reason = outcome.failure.as_ref().map(|failure| failure.reason);
    if reason.is_some_and(|reason| FROM_OUTSIDE.contains(&reason)) && is_deleted(context, &attempt).await? {
        outcome = decided(Some(Reason::Deleted));
    }
    let failed_at = outcome.failure.as_ref().map(|failure| failure.stage);
    let measured = match ending {
        Ending::Build(end) | Ending::Inspect { build: end, .. } => {
            measured(end, failed_at, |report| push::milliseconds(method, report, tail))
        }
        _ => Measured::default(),
    };
    let job_ttl = serde_json::from_value(attempt.spec)
        .map_or_else(|_| BuildSpec::DEFAULT_JOB_TTL, |spec: BuildSpec| spec.job_ttl());
    if results::finish(&context.pool, build, &outcome, measured, source, Some(job_ttl)).await? {
        let reason = outcome.failure.as_ref().map_or("", |failure| failure.reason.as_str());
        tracing::info!(build.id = %build, status = outcome.result_status(), reason, "the build ended");
        context.metrics.ended(method, &outcome);
    }
    Ok(())
}

/// Whether the Build, or its whole namespace, is gone or on its way out.
async fn is_deleted(context: &Context, attempt: &launches::Ending) -> Result<bool, Error> {
    let builds: Api<Build> = Api::namespaced(context.client.clone(), &attempt.namespace);
    let build = builds.get_metadata_opt(&attempt.name).await?;
    let lives = |build: &_| ResourceExt::uid(build).is_some_and(|uid| uid == attempt.uid);
    if build.filter(lives).is_none_or(|build| build.metadata.deletion_timestamp.is_some()) {
        return Ok(true);
    }
    let namespaces: Api<Namespace> = Api::all(context.client.clone());
    let namespace = namespaces.get_metadata_opt(&attempt.namespace).await?;
    Ok(namespace.is_none_or(|namespace| namespace.metadata.deletion_timestamp.is_some()))
}

/// The agent times its commands to the millisecond; without its report the kubelet's seconds count.
fn measured(end: &ContainerEnd, failed_at: Option<Stage>, push: impl Fn(&AgentReport) -> Option<i64>) -> Measured {
    match AgentReport::decode(end.message.as_bytes()) {
        Ok(report) => {
            let milliseconds =
                report.commands.iter().fold(0, |sum: u64, command| sum.saturating_add(command.milliseconds));
            let push = push(&report);
            let cost = Cost::of(&report, push, failed_at);
            Measured { execution: i64::try_from(milliseconds).ok(), push, cost }
        }
        Err(_) => Measured { execution: end.milliseconds, ..Measured::default() },
    }
}
