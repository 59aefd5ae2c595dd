//! The end of an attempt: decides its outcome and writes it, once. Where something from outside ended
//! the Pod, it first asks the cluster whether the Build is being deleted: its own watch may be behind.

use image_factory_core::{
    cost::Cost,
    layers,
    method::Method,
    outcome::{ContainerEnd, Ending, Evidence, Outcome, Stop, decide},
    push,
    reason::{Reason, Stage},
    reference::Reference,
    report::{AgentReport, SourceFacts},
    status::Status,
    steps::{self, Steps},
};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, ResourceExt};
use uuid::Uuid;

use super::Error;
use crate::{
    clock,
    crd::{Build, BuildSpec},
    db::{
        launches,
        results::{self, End, Measured},
        steps::Recorded,
    },
    runtime::Context,
};

/// Enough of the log's end for the builder's last words and the lines of its push.
const TAIL_LINES: i64 = 200;
/// What a Pod looks like that was ended by someone else.
const FROM_OUTSIDE: [Reason; 3] = [Reason::JobDeleted, Reason::AgentLost, Reason::Internal];

/// The status it ended with; `None` where it had ended before.
pub async fn finish(
    context: &Context,
    build: Uuid,
    ending: &Ending,
    inspection: Option<&str>,
    source: Option<&SourceFacts>,
    steps: &mut Steps,
) -> Result<Option<Status>, Error> {
    let Some(attempt) = launches::ending(&context.pool, build, TAIL_LINES).await? else { return Ok(None) };
    let (method, tail) = (attempt.method, &attempt.tail);
    let spec: Option<BuildSpec> = serde_json::from_value(attempt.spec.clone()).ok();
    let timeout = spec.as_ref().map_or(BuildSpec::DEFAULT_TIMEOUT, BuildSpec::timeout);
    let repository = spec.as_ref().map(|spec| Reference::new(&spec.output.image).repository);
    let decided = |stop| decide(Evidence { method, ending, inspection, tail, stop, timeout, repository });
    let mut outcome = decided(attempt.stop.as_ref());
    let reason = outcome.failure.as_ref().map(|failure| failure.reason);
    if reason.is_some_and(|reason| FROM_OUTSIDE.contains(&reason)) && is_deleted(context, &attempt).await? {
        outcome = decided(Some(&Stop::Cancelled(Reason::Deleted)));
    }
    let failed_at = outcome.failure.as_ref().map(|failure| failure.stage);
    let measured = match ending {
        Ending::Build(end) | Ending::Inspect { build: end, .. } => {
            let after = outcome.image.as_ref().and_then(|image| image.push_milliseconds);
            measured(end, method, failed_at, after, tail)
        }
        _ => Measured::default(),
    };
    let job_ttl = spec.as_ref().map_or(BuildSpec::DEFAULT_JOB_TTL, BuildSpec::job_ttl);
    end_steps(steps, &mut outcome);
    let images = outcome.image.as_ref().map_or(&[][..], |image| &image.images);
    let made = layers::of_steps(method, steps.all(), images);
    let steps = Recorded::of(steps).with(&made);
    let retries = spec.as_ref().and_then(|spec| spec.retries).unwrap_or_default().into_core();
    let retry = retries.after(attempt.attempt, &outcome, clock::chance());
    let end = End { outcome: &outcome, measured, steps, source, job_ttl: Some(job_ttl), retry };
    if results::finish(&context.pool, build, end).await? {
        let reason = outcome.failure.as_ref().map_or("", |failure| failure.reason.as_str());
        let status = outcome.result_status();
        tracing::info!(build.id = %build, status, reason, is_retried = retry.is_some(), "the build ended");
        context.metrics.ended(method, &outcome);
        context.has_stored(build);
        return Ok(Some(outcome.status));
    }
    Ok(None)
}

/// Ends an attempt whose Pod has ended and can't be followed.
pub async fn give_up(context: &Context, build: Uuid) -> Result<(), Error> {
    let Some(attempt) = launches::ending(&context.pool, build, 0).await? else { return Ok(()) };
    let message = "following the build failed again and again: the operator's log says where".to_owned();
    let outcome = Outcome::failed(Reason::Internal, None, message).at(Stage::Verification);
    let end = End { job_ttl: Some(BuildSpec::DEFAULT_JOB_TTL), ..End::of(&outcome) };
    if results::finish(&context.pool, build, end).await? {
        context.metrics.ended(attempt.method, &outcome);
        context.has_stored(build);
    }
    Ok(())
}

/// The steps that still ran end with the build; a build that failed at a step is told with it.
fn end_steps(steps: &mut Steps, outcome: &mut Outcome) {
    match (outcome.status, &mut outcome.failure) {
        (Status::Failed, Some(failure)) => {
            steps.end(steps::End::Failed(&failure.message));
            // Of memory, time or a node that ended the build the step knows nothing.
            if failure.reason == Reason::BuildFailed {
                failure.message = steps.told(&failure.message);
            }
        }
        (Status::Success, _) => steps.end(steps::End::Success),
        _ => steps.end(steps::End::Cancelled),
    }
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

/// The agent times its commands to the millisecond; without its report the kubelet's seconds count. `after`: how long
/// `inspect` took to push what Packer has left, which is no part of the agent's run.
fn measured(
    end: &ContainerEnd,
    method: Method,
    failed_at: Option<Stage>,
    after: Option<u64>,
    tail: &[String],
) -> Measured {
    match AgentReport::decode(end.message.as_bytes()) {
        Ok(report) => {
            let milliseconds =
                report.commands.iter().fold(0, |sum: u64, command| sum.saturating_add(command.milliseconds));
            let (push, cost) = if method == Method::Packer {
                (after.and_then(|push| i64::try_from(push).ok()), Cost::pushed_after(&report, after))
            } else {
                let push = push::milliseconds(method, &report, tail);
                (push, Cost::of(&report, push, failed_at))
            };
            Measured { execution: i64::try_from(milliseconds).ok(), push, cost }
        }
        Err(_) => Measured { execution: end.milliseconds, ..Measured::default() },
    }
}
