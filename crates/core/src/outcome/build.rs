//! Why the container `build` failed. Out of memory comes first: Kubernetes says so of the container, the agent of a
//! process in it, and what the builder makes of that is not the cause. Then what the agent did or could not do, and last
//! the builder's own words, by which a push is told from a build.

use super::{ContainerEnd, Evidence, OOM_KILLED, Outcome, lifecycle, without_report, words};
use crate::{
    method::Method,
    reason::{Reason, Stage},
    report::AgentReport,
};

/// How BuildKit ends its sentence about an instruction that failed.
const INSTRUCTION_FAILED: &str = "did not complete successfully";

pub fn failure(evidence: Evidence<'_>, end: &ContainerEnd) -> Outcome {
    let Evidence { method, tail, timeout, repository, .. } = evidence;
    let code = Some(end.exit_code);
    let report = AgentReport::decode(end.message.as_bytes());
    let said = words::last_error(tail);
    let killed = report.as_ref().is_ok_and(|report| report.usage.oom_kills > Some(0) && !report.timed_out);
    if end.reason == OOM_KILLED || killed {
        return Outcome::failed(Reason::OutOfMemory, code, out_of_memory(said));
    }
    let Ok(report) = report else { return without_report(Reason::AgentLost, "the build container", end) };
    if report.timed_out {
        let message = format!("the build was ended after its timeout of {}: see spec.timeout", words::span(timeout));
        return Outcome::failed(Reason::TimedOut, None, message);
    }
    if let Some(failure) = report.failure {
        // Nothing was started: there is no exit code of a builder.
        return Outcome::failed(failure.reason.parse().unwrap_or(Reason::Internal), None, failure.message);
    }
    if report.terminated {
        // Not asked for by us: then it would be a cancellation, decided before.
        let message = "the Pod was ended from outside before the build had: its Job or Pod was deleted";
        return Outcome::failed(Reason::JobDeleted, None, message);
    }
    if let Some(error) = report.error {
        return Outcome::failed(Reason::AgentLost, code, error);
    }
    if method == Method::Paketo {
        return lifecycle::failure(&report, end.exit_code, said, tail, repository);
    }
    let pushing = is_push(method, &report, said.as_deref());
    let instruction = said.as_deref().and_then(words::instruction_exit_code);
    // An instruction that ended by itself may have spoken of other servers.
    let unavailable = instruction.is_none() && said.as_deref().is_some_and(words::is_unavailable);
    let message = said.or_else(|| too_old(method, tail)).unwrap_or_else(|| without_words(&report, end.exit_code));
    if pushing {
        let denied = words::is_denial(&message);
        let reason = if denied { Reason::PushDenied } else { Reason::PushFailed };
        return Outcome::failed(reason, code, message).at(Stage::Push).infrastructure_if(unavailable && !denied);
    }
    Outcome::failed(Reason::BuildFailed, instruction.or(code), message).infrastructure_if(unavailable)
}

fn out_of_memory(said: Option<String>) -> String {
    let remedy = "the build ran out of memory: raise spec.resources.limits.memory";
    said.map_or_else(|| remedy.to_owned(), |said| format!("{remedy} (the builder said: {said})"))
}

fn is_push(method: Method, report: &AgentReport, said: Option<&str>) -> bool {
    match method {
        // Its second command is the push.
        Method::Container => report.commands.len() > 1,
        // Its right to push is asked for before the build, too.
        Method::Kaniko => said.is_some_and(|text| {
            text.starts_with("error pushing image: ") || text.starts_with("error checking push permissions: ")
        }),
        // What an instruction has said of a push stands in the sentence about it.
        Method::Buildx => {
            said.is_some_and(|text| text.contains("failed to push") && !text.contains(INSTRUCTION_FAILED))
        }
        // `inspect` pushes what it made, and of the lifecycle's push its phase tells.
        Method::Packer | Method::Paketo => false,
    }
}

/// Of a command that it does not know packer prints which it does.
fn too_old(method: Method, tail: &[String]) -> Option<String> {
    let usage = method == Method::Packer && tail.iter().any(|line| line.starts_with("Usage: packer "));
    usage.then(|| {
        "the template asks for plugins, which `packer init` installs, and the packer of the builder's image does not know \
         that command: it is older than 1.7"
            .to_owned()
    })
}

/// Of a builder that ended without an error of its own.
pub(super) fn without_words(report: &AgentReport, exit_code: i32) -> String {
    match report.commands.last().and_then(|command| Some((&command.name, words::signal(command.signal?)?))) {
        Some((name, signal)) => format!("{name} was ended by {signal}"),
        None => format!("the builder {}", words::exit(exit_code)),
    }
}
