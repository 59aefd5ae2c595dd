//! Payloads of anybody else: where in the body things stand says the configuration, and where it says nothing they stand
//! where most hosts have them.

use serde_json::Value;

use super::{Event, GitEvent, text};

/// JSON pointers (RFC 6901) that a configuration names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pointers {
    /// To push, tag, pull_request, release or ping; without it, the ref says whether a branch or a tag was pushed.
    pub event: Option<String>,
    pub git_ref: Option<String>,
    pub commit: Option<String>,
}

pub fn read(_: &str, payload: &Value, pointers: &Pointers) -> Event {
    let first = |named: &Option<String>, usual: &[&str]| match named {
        Some(pointer) => text(payload, pointer),
        None => usual.iter().find_map(|pointer| text(payload, pointer)),
    };
    let git_ref = first(&pointers.git_ref, &["/ref"]).map(|name| {
        let is_full = name.starts_with("refs/");
        if is_full { name } else { format!("refs/heads/{name}") }
    });
    let commit = first(&pointers.commit, &["/commit", "/after", "/checkout_sha"]);
    let pushed = Event::push(git_ref, text(payload, "/before"), commit);
    let word = pointers.event.as_ref().map(|pointer| text(payload, pointer).unwrap_or_default());
    let kind = match word.as_deref() {
        None => pushed.kind,
        Some(word) => GitEvent::ALL.into_iter().find(|kind| kind.as_str() == word),
    };
    Event {
        kind,
        is_ping: word.as_deref() == Some("ping"),
        author: text(payload, "/author"),
        message: text(payload, "/message"),
        repository: text(payload, "/repository").or_else(|| text(payload, "/repository/full_name")),
        // Nothing tells where the commit of a pull request comes from.
        is_from_fork: kind == Some(GitEvent::PullRequest),
        ..pushed
    }
}
