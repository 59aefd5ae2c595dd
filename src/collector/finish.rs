//! The end of an attempt: decides its outcome and writes it, once.

use image_factory_core::{
    outcome::{ContainerEnd, Ending, Evidence, decide},
    push,
    report::{AgentReport, SourceFacts},
    status::Status,
};
use uuid::Uuid;

use super::Error;
use crate::{
    crd::BuildSpec,
    db::{
        launches, logs,
        results::{self, Durations},
    },
    runtime::{Context, metrics::Ended},
};

/// Enough of the log's end for the builder's last words and the lines of its push.
const TAIL_LINES: i64 = 200;

pub async fn finish(
    context: &Context,
    build: Uuid,
    ending: &Ending,
    inspection: Option<&str>,
    source: Option<&SourceFacts>,
) -> Result<(), Error> {
    // Read now: a cancellation may have come while the build was followed.
    let Some(attempt) = launches::followed(&context.pool, build).await? else { return Ok(()) };
    if attempt.status != Status::InProgress {
        return Ok(());
    }
    let tail = logs::tail(&context.pool, build, TAIL_LINES).await?;
    let method = attempt.method;
    let outcome = decide(Evidence { method, ending, inspection, tail: &tail, cancelled: attempt.cancel });
    let durations = match ending {
        Ending::Build(end) | Ending::Inspect { build: end, .. } => {
            durations(end, |report| push::milliseconds(method, report, &tail))
        }
        _ => Durations::default(),
    };
    let job_ttl = serde_json::from_value(attempt.spec)
        .map_or_else(|_| BuildSpec::DEFAULT_JOB_TTL, |spec: BuildSpec| spec.job_ttl());
    if results::finish(&context.pool, build, &outcome, durations, source, job_ttl).await? {
        let reason = outcome.failure.as_ref().map_or("", |failure| failure.reason.as_str());
        tracing::info!(build.id = %build, status = outcome.result_status(), reason, "the build ended");
        let labels =
            Ended { method: method.to_string(), status: outcome.result_status().to_owned(), reason: reason.to_owned() };
        context.metrics.builds_ended.get_or_create(&labels).inc();
    }
    Ok(())
}

/// The agent times its commands to the millisecond; without its report the kubelet's seconds count.
fn durations(end: &ContainerEnd, push: impl Fn(&AgentReport) -> Option<i64>) -> Durations {
    match AgentReport::decode(end.message.as_bytes()) {
        Ok(report) => {
            let milliseconds: u64 = report.commands.iter().map(|command| command.milliseconds).sum();
            Durations { execution: i64::try_from(milliseconds).ok(), push: push(&report) }
        }
        Err(_) => Durations { execution: end.milliseconds, push: None },
    }
}
