//! Payloads of GitLab: <https://docs.gitlab.com/user/project/integrations/webhook_events/>. The body names its event too,
//! and alike for project and group webhooks.

use serde_json::Value;

use super::{Event, GitEvent, Pointers, is_zero, paths, person, text};

pub fn read(_: &str, payload: &Value, _: &Pointers) -> Event {
    let repository = text(payload, "/project/path_with_namespace");
    let event = match text(payload, "/object_kind").as_deref() {
        Some("push" | "tag_push") => push(payload),
        Some("merge_request") => merge_request(payload),
        Some("release") => release(payload),
        _ => Event::default(),
    };
    Event { repository, ..event }
}

fn push(payload: &Value) -> Event {
    let after = text(payload, "/after");
    // Of a tag with a message `after` is the tag's own id. None where the ref was deleted.
    let commit = text(payload, "/checkout_sha").filter(|_| !after.as_deref().is_some_and(is_zero)).or(after);
    let total = payload.get("total_commits_count").and_then(Value::as_u64);
    let commits = payload.get("commits");
    let mut listed = commits.and_then(Value::as_array).into_iter().flatten();
    let head = listed.find(|listed| listed.get("id").and_then(Value::as_str) == commit.as_deref());
    Event {
        author: head.and_then(|head| person(head, "/author")).or_else(|| text(payload, "/user_name")),
        message: head.and_then(|head| text(head, "/message")),
        paths: paths(commits, total),
        ..Event::push(text(payload, "/ref"), text(payload, "/before"), commit)
    }
}

fn merge_request(payload: &Value) -> Event {
    let of = |field: &str| text(payload, &format!("/object_attributes/{field}"));
    let action = of("action").unwrap_or_default();
    // An update has an old revision only where it brings commits.
    let builds = matches!(action.as_str(), "open" | "reopen") || action == "update" && of("oldrev").is_some();
    let branch = of("source_branch");
    let project = |field: &str| payload.pointer(&format!("/object_attributes/{field}")).and_then(Value::as_i64);
    Event {
        kind: Some(GitEvent::PullRequest),
        git_ref: branch.as_ref().map(|branch| format!("refs/heads/{branch}")),
        branch,
        target_branch: of("target_branch"),
        before: of("oldrev"),
        commit: of("last_commit/id"),
        author: person(payload, "/object_attributes/last_commit/author"),
        message: of("last_commit/message"),
        is_from_fork: project("source_project_id").is_none()
            || project("source_project_id") != project("target_project_id"),
        idle_action: (!builds).then_some(action),
        ..Event::default()
    }
}

fn release(payload: &Value) -> Event {
    let action = text(payload, "/action").unwrap_or_default();
    Event {
        commit: text(payload, "/commit/id"),
        author: person(payload, "/commit/author"),
        message: text(payload, "/commit/message"),
        idle_action: (action != "create").then_some(action),
        ..Event::release(text(payload, "/tag"))
    }
}
