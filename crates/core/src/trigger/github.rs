//! Payloads of GitHub: <https://docs.github.com/en/webhooks/webhook-events-and-payloads>.

use serde_json::Value;

use super::{Event, GitEvent, Pointers, paths, person, text};

/// GitHub lists no more commits of one push.
const MAX_COMMITS: usize = 2_048;

pub fn read(event: &str, payload: &Value, _: &Pointers) -> Event {
    let repository = text(payload, "/repository/full_name");
    let event = match event {
        "push" => push(payload),
        "pull_request" => pull_request(payload, &["opened", "reopened", "synchronize"]),
        "release" => release(payload),
        "ping" => Event { is_ping: true, ..Event::default() },
        _ => Event::default(),
    };
    Event { repository, ..event }
}

fn push(payload: &Value) -> Event {
    // Of a tag with a message `after` is the tag's own id.
    let commit = text(payload, "/head_commit/id").or_else(|| text(payload, "/after"));
    let commits = payload.get("commits");
    let is_cut = commits.and_then(Value::as_array).is_some_and(|commits| commits.len() >= MAX_COMMITS);
    Event {
        author: person(payload, "/head_commit/author"),
        message: text(payload, "/head_commit/message"),
        paths: paths(commits.filter(|_| !is_cut), None),
        ..Event::push(text(payload, "/ref"), text(payload, "/before"), commit)
    }
}

/// Gitea and Forgejo write pull requests alike, but for the names of what is done to them.
pub fn pull_request(payload: &Value, building: &[&str]) -> Event {
    let action = text(payload, "/action").unwrap_or_default();
    let branch = text(payload, "/pull_request/head/ref");
    let head = text(payload, "/pull_request/head/repo/full_name");
    let base = text(payload, "/pull_request/base/repo/full_name").or_else(|| text(payload, "/repository/full_name"));
    Event {
        kind: Some(GitEvent::PullRequest),
        git_ref: branch.as_ref().map(|branch| format!("refs/heads/{branch}")),
        branch,
        target_branch: text(payload, "/pull_request/base/ref"),
        before: text(payload, "/before"),
        commit: text(payload, "/pull_request/head/sha"),
        author: text(payload, "/pull_request/user/login"),
        message: text(payload, "/pull_request/title"),
        // A fork that was deleted is none of ours either.
        is_from_fork: head.is_none() || head != base,
        idle_action: (!building.contains(&action.as_str())).then_some(action),
        ..Event::default()
    }
}

pub fn release(payload: &Value) -> Event {
    let action = text(payload, "/action").unwrap_or_default();
    // Its target is a branch or a commit.
    let commit = text(payload, "/release/target_commitish").filter(|target| crate::git::is_commit(target));
    Event {
        commit,
        author: text(payload, "/release/author/login"),
        message: text(payload, "/release/name"),
        idle_action: (action != "published").then_some(action),
        ..Event::release(text(payload, "/release/tag_name"))
    }
}
