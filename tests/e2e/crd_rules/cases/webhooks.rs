//! Of a WebhookConfig.

use serde_json::{Value, json};

use super::{Case, of, spec};

/// With a template whose source is Git.
fn merged_git(mut spec: Value) -> Value {
    let git = json!({"url": "https://git.example.com/shop/web.git"});
    spec["template"] = json!({"spec": {"source": {"inline": null, "git": git}}});
    spec
}

pub fn webhooks() -> Vec<Case> {
    let webhook = |accepted, refused, because: &'static str| of("WebhookConfig", accepted, refused, &[because]);
    let long = "x".repeat(64);
    vec![
        Case {
            kind: "WebhookConfig",
            accepted: Some(json!({"metadata": {"name": &long[1..]}})),
            refused: json!({"metadata": {"name": long}}),
            because: vec!["metadata.name must have at most 63 characters: it is a label of the Builds made"],
        },
        webhook(
            json!({"provider": "forgejo"}),
            json!({"provider": null}),
            "spec.provider must say who delivers: github, gitlab, gitea, forgejo, bitbucket or generic; or spec.notify where to send",
        ),
        webhook(
            json!({"previousSecretRef": {"name": "hook", "key": "before"}}),
            json!({"secretRef": null}),
            "spec.secretRef must name the Secret that deliveries are signed with: without one anybody could start builds",
        ),
        webhook(
            json!({"repository": "shop/groups/web"}),
            json!({"repository": null}),
            "spec.repository must be the full name of the repository, such as shop/web: deliveries about another make no Build",
        ),
        webhook(
            json!({"template": null, "autoBuild": false}),
            json!({"template": null}),
            "spec.template must say what is built; or set spec.autoBuild to false, and deliveries are only recorded",
        ),
        webhook(
            json!({"provider": "generic", "generic": {"header": "X-Sum", "prefix": "sha256=", "encoding": "hex"}}),
            json!({"generic": {"header": "X-Sum"}}),
            "spec.generic is read only with provider generic; remove it or change spec.provider",
        ),
        Case {
            kind: "WebhookConfig",
            accepted: Some(spec(json!({"provider": "generic", "generic": {"refPointer": "/push/ref"}}))),
            refused: spec(json!({"provider": "generic", "generic": {
                "prefix": "sha256=", "eventPointer": "event", "refPointer": "ref", "commitPointer": "commit",
            }})),
            because: vec![
                "spec.generic.prefix and spec.generic.encoding say what is in spec.generic.header: name the header, or remove them",
                "spec.generic.eventPointer must be a JSON pointer, which begins with /, such as /event",
                "spec.generic.refPointer must be a JSON pointer, which begins with /, such as /ref",
                "spec.generic.commitPointer must be a JSON pointer, which begins with /, such as /commit",
            ],
        },
        webhook(
            json!({"provider": "generic", "generic": {"header": "x-Sum-256"}}),
            json!({"provider": "generic", "generic": {"header": "x sum"}}),
            "spec.generic.header must be the name of a header: letters, digits, _ and -",
        ),
        webhook(
            json!({"template": {"spec": {"cancel": false}}}),
            json!({"template": {"spec": {"cancel": true}}}),
            "spec.template.spec.cancel would hold back every Build that is made; remove it, or set spec.suspend",
        ),
        webhook(
            json!({
                "provider": null, "secretRef": null, "repository": null, "template": null, "supersede": false,
                "notify": {"url": "https://example.com/hook", "secretRef": {"name": "hook", "key": "secret"}},
            }),
            json!({
                "provider": null, "secretRef": null, "repository": null, "template": null, "branches": ["main"],
                "notify": {"url": "https://example.com/hook", "secretRef": {"name": "hook", "key": "secret"}},
            }),
            "without spec.provider nothing is received and no Build made: name it, or remove what is about that (secretRef, previousSecretRef, repository, events, branches, paths, supersede, template and the history limits)",
        ),
        Case {
            kind: "WebhookConfig",
            accepted: Some(spec(json!({
                "events": ["push", "tag"], "branches": ["main", "release/*"], "paths": ["src/**"], "supersede": true,
                "suspend": true, "successfulBuildsHistoryLimit": 0, "failedBuildsHistoryLimit": 1000,
            }))),
            refused: spec(json!({"events": ["tag"], "poll": {"interval": "59s"}})),
            because: vec![
                "spec.poll.interval must be a duration from 1m to 24h, such as 5m",
                "spec.poll needs spec.provider, and a template with spec.source.git: its repository is looked at",
                "spec.poll looks at branches, and spec.events has no push: add it or remove spec.poll",
            ],
        },
        webhook(
            merged_git(json!({"events": ["tag", "push"], "poll": {"interval": "1m"}})),
            merged_git(json!({"events": ["tag"], "poll": {"interval": "1m"}})),
            "spec.poll looks at branches, and spec.events has no push: add it or remove spec.poll",
        ),
        webhook(
            json!({}),
            json!({"commitStatus": {"tokenSecretRef": {"name": "hook", "key": "token"}}}),
            "spec.commitStatus needs a template with spec.source.git: its host is told of the commit",
        ),
        webhook(
            merged_git(
                json!({"provider": "gitlab", "commitStatus": {"tokenSecretRef": {"name": "hook", "key": "token"}}}),
            ),
            merged_git(
                json!({"provider": "bitbucket", "commitStatus": {"tokenSecretRef": {"name": "hook", "key": "token"}}}),
            ),
            "spec.commitStatus works only with the providers github, gitlab, gitea and forgejo; remove it",
        ),
        webhook(
            json!({
                "provider": null, "secretRef": null, "repository": null, "template": null,
                "notify": {"url": "https://[2606:4700::1]:8443/hook?a=b", "secretRef": {"name": "hook", "key": "secret"}},
            }),
            json!({"notify": {"url": "https://me:word@example.com/hook", "secretRef": {"name": "hook", "key": "secret"}}}),
            "spec.notify.url must be https://host/path, without a user or a password in it",
        ),
    ]
}
