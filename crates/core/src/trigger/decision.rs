//! Whether an event makes a Build, by the rules of its webhook; where it does not, why. The answer is one of a few
//! sentences, which the delivery's row keeps.

use super::{Event, GitEvent, glob::fits, is_zero};
use crate::git;

/// What a webhook heeds.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// Empty: push alone.
    pub events: &'a [GitEvent],
    /// Empty: all.
    pub branches: &'a [String],
    /// Empty: all.
    pub paths: &'a [String],
    /// Full name.
    pub repository: &'a str,
    pub auto_build: bool,
}

/// Why no Build is made; each is a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    #[error("it only tries whether the webhook is there")]
    Ping,
    #[error("it tells of nothing that makes a Build")]
    Other,
    #[error("it is about repository {0:?}, and spec.repository names another")]
    Repository(String),
    #[error("it names no repository, and only spec.repository may be built")]
    NoRepository,
    #[error("spec.events does not name {}", .0.as_str())]
    Event(GitEvent),
    #[error("{0:?} was deleted")]
    Deleted(String),
    #[error("{0:?} brings no new commit")]
    Action(String),
    #[error("its commit is a fork's: what strangers wrote is not built with the Secrets of this namespace")]
    Fork,
    #[error("branch {0:?} fits none of spec.branches")]
    Branch(String),
    #[error("no path that has changed fits one of spec.paths")]
    Paths,
    #[error("the commit's message asks for no Build")]
    Skip,
    #[error("it names no full commit id")]
    Commit,
    #[error("spec.autoBuild is false")]
    NotAutomatic,
    #[error("the same was delivered before")]
    Repeated,
    #[error("a newer commit was delivered before it was built")]
    Outdated,
}

/// What people write into the message of a commit that shall not be built.
const SKIP: [&str; 4] = ["[skip ci]", "[ci skip]", "[no ci]", "[skip build]"];

/// The revision to build. `is_repeated`: the same event has made a Build not long ago, or is about to.
///
/// # Errors
/// Why none is.
pub fn decide(event: &Event, rules: Rules<'_>, is_repeated: bool) -> Result<String, Cause> {
    let Some(kind) = event.kind else {
        return Err(if event.is_ping { Cause::Ping } else { Cause::Other });
    };
    match &event.repository {
        Some(repository) if repository.eq_ignore_ascii_case(rules.repository) => {}
        Some(repository) => return Err(Cause::Repository(repository.clone())),
        None => return Err(Cause::NoRepository),
    }
    let heeded = if rules.events.is_empty() { &[GitEvent::Push] } else { rules.events };
    if !heeded.contains(&kind) {
        return Err(Cause::Event(kind));
    }
    if event.is_deleted {
        return Err(Cause::Deleted(event.git_ref.clone().unwrap_or_default()));
    }
    if let Some(action) = &event.idle_action {
        return Err(Cause::Action(action.clone()));
    }
    if event.is_from_fork {
        return Err(Cause::Fork);
    }
    // A tag is on no branch.
    if let Some(branch) = event.target_branch.as_ref().or(event.branch.as_ref())
        && !is_any(rules.branches, branch)
    {
        return Err(Cause::Branch(branch.clone()));
    }
    if let Some(paths) = &event.paths
        && !rules.paths.is_empty()
        && !paths.iter().any(|path| is_any(rules.paths, path))
    {
        return Err(Cause::Paths);
    }
    let message = event.message.as_deref().unwrap_or_default().to_lowercase();
    if SKIP.iter().any(|skip| message.contains(skip)) {
        return Err(Cause::Skip);
    }
    let revision = revision(event).ok_or(Cause::Commit)?;
    if !rules.auto_build {
        return Err(Cause::NotAutomatic);
    }
    if is_repeated { Err(Cause::Repeated) } else { Ok(revision) }
}

fn is_any(patterns: &[String], name: &str) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| fits(pattern, name))
}

/// What is to be built: the commit; of a release that does not say it, the tag.
pub fn revision(event: &Event) -> Option<String> {
    let commit = event.commit.as_deref().filter(|commit| git::is_commit(commit) && !is_zero(commit));
    let tag = event.tag.as_deref().filter(|_| event.kind == Some(GitEvent::Release) && event.commit.is_none());
    commit.or(tag.filter(|tag| git::check_revision(tag).is_ok())).map(str::to_owned)
}
