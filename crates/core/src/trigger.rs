//! What a Git host says has happened, whoever it is, and whether that makes a Build. A provider is one file here, which
//! reads its payload, and one row of [`Provider::row`]. A payload needs only a ref, a commit and a repository; the rest is
//! taken where it is present, and what is not known never keeps a Build from being made.

mod bitbucket;
mod decision;
mod generic;
mod gitea;
mod github;
mod gitlab;
pub mod glob;
pub mod heads;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::{
    decision::{Cause, Rules, decide, revision},
    generic::Pointers,
};
use crate::signature::{Encoding, Scheme};

/// Who sends: decides how deliveries are signed and read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    Github,
    Gitlab,
    Gitea,
    Forgejo,
    Bitbucket,
    Generic,
}

/// How a provider's deliveries are told apart from all else. Headers are named in lower case.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub signature: Scheme<'static>,
    /// Header that names the event; empty where only the body does.
    pub event: &'static str,
    /// Headers that hold the delivery's id: the first that is there counts.
    pub delivery: &'static [&'static str],
    /// Reads a payload, given the event's name.
    pub read: fn(&str, &Value, &Pointers) -> Event,
}

impl Provider {
    pub const ALL: [Self; 6] = [Self::Github, Self::Gitlab, Self::Gitea, Self::Forgejo, Self::Bitbucket, Self::Generic];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Github => "github",
            Self::Gitlab => "gitlab",
            Self::Gitea => "gitea",
            Self::Forgejo => "forgejo",
            Self::Bitbucket => "bitbucket",
            Self::Generic => "generic",
        }
    }

    pub const fn row(self) -> Row {
        match self {
            Self::Github => Row {
                signature: hmac("x-hub-signature-256", "sha256="),
                event: "x-github-event",
                delivery: &["x-github-delivery"],
                read: github::read,
            },
            Self::Gitlab => Row {
                signature: Scheme::Token { header: "x-gitlab-token" },
                event: "x-gitlab-event",
                delivery: &["idempotency-key", "x-gitlab-event-uuid"],
                read: gitlab::read,
            },
            Self::Gitea => Row {
                signature: hmac("x-gitea-signature", ""),
                event: "x-gitea-event",
                delivery: &["x-gitea-delivery"],
                read: gitea::read,
            },
            Self::Forgejo => Row {
                signature: hmac("x-forgejo-signature", ""),
                event: "x-forgejo-event",
                delivery: &["x-forgejo-delivery"],
                read: gitea::read,
            },
            Self::Bitbucket => Row {
                signature: hmac("x-hub-signature", "sha256="),
                event: "x-event-key",
                delivery: &["x-request-uuid"],
                read: bitbucket::read,
            },
            // Its configuration may name a header of its own.
            Self::Generic => {
                Row { signature: Scheme::Standard, event: "", delivery: &["webhook-id"], read: generic::read }
            }
        }
    }
}

const fn hmac(header: &'static str, prefix: &'static str) -> Scheme<'static> {
    Scheme::Hmac { header, prefix, encoding: Encoding::Hex }
}

/// What happened at the Git host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum GitEvent {
    Push,
    Tag,
    PullRequest,
    Release,
}

impl GitEvent {
    pub const ALL: [Self; 4] = [Self::Push, Self::Tag, Self::PullRequest, Self::Release];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Tag => "tag",
            Self::PullRequest => "pull_request",
            Self::Release => "release",
        }
    }
}

/// A delivery, as far as a Build can come of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// None for any other, such as a comment.
    pub kind: Option<GitEvent>,
    /// The host tries whether the webhook is there.
    pub is_ping: bool,
    /// The full name of what has changed.
    pub git_ref: Option<String>,
    /// Where the commit is.
    pub branch: Option<String>,
    /// Of a pull request: where the commit shall go.
    pub target_branch: Option<String>,
    pub tag: Option<String>,
    /// What the ref was before.
    pub before: Option<String>,
    pub commit: Option<String>,
    /// Name and address.
    pub author: Option<String>,
    pub message: Option<String>,
    /// Paths that have changed; none where the payload does not list all.
    pub paths: Option<Vec<String>>,
    /// Full name of the repository.
    pub repository: Option<String>,
    pub is_deleted: bool,
    /// The commit is another repository's.
    pub is_from_fork: bool,
    /// What was done to a pull request or a release, where that brings no new commit.
    pub idle_action: Option<String>,
}

impl Event {
    /// `webhook_deliveries.event_type`.
    pub const fn word(&self) -> &'static str {
        match self.kind {
            Some(kind) => kind.as_str(),
            None if self.is_ping => "ping",
            None => "other",
        }
    }

    /// The same with texts of a length that rows, statuses and whoever decides of many events at once can hold. Nothing
    /// that can be built has longer ones.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        let Self { git_ref, branch, target_branch, tag, before, commit, author, repository, idle_action, .. } =
            &mut self;
        for text in [git_ref, branch, target_branch, tag, before, commit, author, repository, idle_action] {
            cut(text, MAX_TEXT_BYTES);
        }
        cut(&mut self.message, MAX_MESSAGE_BYTES);
        self
    }

    /// The push of a ref from one commit to another.
    fn push(git_ref: Option<String>, before: Option<String>, commit: Option<String>) -> Self {
        let name = |prefix| git_ref.as_deref().and_then(|name| name.strip_prefix(prefix)).map(str::to_owned);
        let (branch, tag) = (name("refs/heads/"), name("refs/tags/"));
        let kind = match (&branch, &tag) {
            (_, Some(_)) => Some(GitEvent::Tag),
            (Some(_), None) => Some(GitEvent::Push),
            (None, None) => None,
        };
        let is_deleted = commit.as_deref().is_some_and(is_zero);
        Self { kind, git_ref, branch, tag, before, commit, is_deleted, ..Self::default() }
    }

    /// A release of a tag.
    fn release(tag: Option<String>) -> Self {
        let git_ref = tag.as_ref().map(|tag| format!("refs/tags/{tag}"));
        Self { kind: Some(GitEvent::Release), git_ref, tag, ..Self::default() }
    }
}

/// Of each text of an event, and of a commit's message.
const MAX_TEXT_BYTES: usize = 1_024;
const MAX_MESSAGE_BYTES: usize = 8 * 1_024;

fn cut(text: &mut Option<String>, bytes: usize) {
    if let Some(text) = text {
        text.truncate(text.floor_char_boundary(bytes));
    }
}

/// How hosts write that a ref was not there before, or is no longer.
fn is_zero(commit: &str) -> bool {
    !commit.is_empty() && commit.bytes().all(|digit| digit == b'0')
}

/// The text at a JSON pointer, where there is one.
fn text(payload: &Value, pointer: &str) -> Option<String> {
    payload.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
}

/// Name and address of whoever is described at a JSON pointer.
fn person(payload: &Value, pointer: &str) -> Option<String> {
    let name = text(payload, &format!("{pointer}/name"));
    match (name, text(payload, &format!("{pointer}/email"))) {
        (Some(name), Some(address)) => Some(format!("{name} <{address}>")),
        (name, address) => name.or(address),
    }
}

/// So many paths are kept; of a push that changes more, which ones counts as unknown.
const MAX_PATHS: usize = 1_000;
const MAX_PATH_BYTES: usize = 64 * 1_024;

/// The paths that a list of commits says it has changed. A list that is empty or longer than told says nothing: a branch
/// may be new, or hosts have cut the list.
fn paths(commits: Option<&Value>, total: Option<u64>) -> Option<Vec<String>> {
    let commits = commits?.as_array().filter(|commits| !commits.is_empty())?;
    if total.is_some_and(|total| total > commits.len() as u64) {
        return None;
    }
    let mut found = Vec::new();
    for commit in commits {
        for list in ["added", "modified", "removed"] {
            let listed = commit.get(list)?.as_array()?;
            found.extend(listed.iter().filter_map(Value::as_str).map(str::to_owned));
        }
    }
    found.sort_unstable();
    found.dedup();
    let bytes: usize = found.iter().map(String::len).sum();
    (found.len() <= MAX_PATHS && bytes <= MAX_PATH_BYTES).then_some(found)
}

#[cfg(test)]
mod tests;
