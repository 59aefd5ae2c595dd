//! Payloads of Bitbucket Cloud: <https://support.atlassian.com/bitbucket-cloud/docs/event-payloads/>. They list no paths,
//! and of a pull request only the beginning of the commit's id.

use serde_json::Value;

use super::{Event, GitEvent, Pointers, text};

pub fn read(event: &str, payload: &Value, _: &Pointers) -> Event {
    let repository = text(payload, "/repository/full_name");
    let event = match event {
        "repo:push" => push(payload),
        "diagnostics:ping" => Event { is_ping: true, ..Event::default() },
        _ => match event.strip_prefix("pullrequest:") {
            Some(action @ ("created" | "updated" | "fulfilled" | "rejected")) => pull_request(action, payload),
            _ => Event::default(),
        },
    };
    Event { repository, ..event }
}

/// One push may change several refs; a delivery makes one Build, of the first that is still there.
fn push(payload: &Value) -> Event {
    let changes: &[Value] = payload.pointer("/push/changes").and_then(Value::as_array).map_or(&[], Vec::as_slice);
    let Some(change) = changes.iter().find(|change| change["new"].is_object()).or_else(|| changes.first()) else {
        return Event::default();
    };
    let is_deleted = !change["new"].is_object();
    let named = if is_deleted { "/old" } else { "/new" };
    let kind = match text(change, &format!("{named}/type")).as_deref() {
        Some("branch" | "named_branch") => "heads",
        Some("tag" | "annotated_tag") => "tags",
        _ => return Event::default(),
    };
    let git_ref = text(change, &format!("{named}/name")).map(|name| format!("refs/{kind}/{name}"));
    Event {
        author: text(change, "/new/target/author/raw"),
        message: text(change, "/new/target/message"),
        is_deleted,
        ..Event::push(git_ref, text(change, "/old/target/hash"), text(change, "/new/target/hash"))
    }
}

fn pull_request(action: &str, payload: &Value) -> Event {
    let branch = text(payload, "/pullrequest/source/branch/name");
    let source = text(payload, "/pullrequest/source/repository/full_name");
    let destination = text(payload, "/pullrequest/destination/repository/full_name");
    Event {
        kind: Some(GitEvent::PullRequest),
        git_ref: branch.as_ref().map(|branch| format!("refs/heads/{branch}")),
        branch,
        target_branch: text(payload, "/pullrequest/destination/branch/name"),
        commit: text(payload, "/pullrequest/source/commit/hash"),
        author: text(payload, "/pullrequest/author/display_name"),
        message: text(payload, "/pullrequest/title"),
        is_from_fork: source.is_none() || source != destination,
        idle_action: (!matches!(action, "created" | "updated")).then(|| action.to_owned()),
        ..Event::default()
    }
}
