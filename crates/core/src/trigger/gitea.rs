//! Payloads of Gitea and Forgejo, which are the same: <https://docs.gitea.com/usage/webhooks>. Both send a push for a new
//! tag, beside `create`, which is not heeded.

use serde_json::Value;

use super::{Event, Pointers, github, paths, person, text};

pub fn read(event: &str, payload: &Value, _: &Pointers) -> Event {
    let repository = text(payload, "/repository/full_name");
    let event = match event {
        "push" => push(payload),
        "pull_request" | "pull_request_sync" => github::pull_request(payload, &["opened", "reopened", "synchronized"]),
        "release" => github::release(payload),
        _ => Event::default(),
    };
    Event { repository, ..event }
}

fn push(payload: &Value) -> Event {
    let total = payload.get("total_commits").and_then(Value::as_u64);
    Event {
        author: person(payload, "/head_commit/author"),
        message: text(payload, "/head_commit/message"),
        paths: paths(payload.get("commits"), total),
        ..Event::push(text(payload, "/ref"), text(payload, "/before"), text(payload, "/after"))
    }
}
