use std::{fs, path::Path};

use super::*;

const COMMIT: &str = "6113728f27ae82c7b1a177c8d03f9e96e0adf246";
const BEFORE: &str = "1481a2de7b2a7d02428ad93446ab166be7793fbb";

/// Each documented payload, with the event its header names.
const FIXTURES: [(Provider, &str, &str); 27] = [
    (Provider::Github, "push", "github-push"),
    (Provider::Github, "push", "github-new-branch"),
    (Provider::Github, "push", "github-tag"),
    (Provider::Github, "push", "github-deleted"),
    (Provider::Github, "pull_request", "github-pull-request"),
    (Provider::Github, "pull_request", "github-pull-request-fork"),
    (Provider::Github, "pull_request", "github-pull-request-closed"),
    (Provider::Github, "release", "github-release"),
    (Provider::Github, "ping", "github-ping"),
    (Provider::Github, "issue_comment", "github-issue-comment"),
    (Provider::Gitea, "push", "gitea-push"),
    (Provider::Forgejo, "push", "gitea-tag"),
    (Provider::Gitea, "create", "gitea-create-tag"),
    (Provider::Gitea, "pull_request_sync", "gitea-pull-request"),
    (Provider::Forgejo, "release", "gitea-release"),
    (Provider::Gitlab, "Push Hook", "gitlab-push"),
    (Provider::Gitlab, "Push Hook", "gitlab-push-many"),
    (Provider::Gitlab, "Tag Push Hook", "gitlab-tag"),
    (Provider::Gitlab, "Push Hook", "gitlab-deleted"),
    (Provider::Gitlab, "Merge Request Hook", "gitlab-merge-request"),
    (Provider::Gitlab, "Merge Request Hook", "gitlab-merge-request-labelled"),
    (Provider::Gitlab, "Merge Request Hook", "gitlab-merge-request-fork"),
    (Provider::Gitlab, "Release Hook", "gitlab-release"),
    (Provider::Bitbucket, "repo:push", "bitbucket-push"),
    (Provider::Bitbucket, "repo:push", "bitbucket-tag"),
    (Provider::Bitbucket, "repo:push", "bitbucket-deleted"),
    (Provider::Bitbucket, "pullrequest:created", "bitbucket-pull-request"),
];

fn payload(name: &str) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/webhooks");
    serde_json::from_str(&fs::read_to_string(folder.join(format!("{name}.json"))).unwrap()).unwrap()
}

fn read(provider: Provider, event: &str, name: &str) -> Event {
    (provider.row().read)(event, &payload(name), &Pointers::default())
}

fn everything() -> Rules<'static> {
    Rules { events: &GitEvent::ALL, branches: &[], paths: &[], repository: "shop/web", auto_build: true }
}

#[expect(clippy::unnecessary_wraps, reason = "what is read of a payload may all be missing")]
fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn push() -> Event {
    read(Provider::Github, "push", "github-push")
}

#[test]
fn the_same_push_is_read_alike_from_every_provider() {
    let expected = Event {
        kind: Some(GitEvent::Push),
        git_ref: some("refs/heads/main"),
        branch: some("main"),
        before: some(BEFORE),
        commit: some(COMMIT),
        author: some("Pomona Orchard <pomona@example.com>"),
        message: some("Ripen the apples"),
        paths: Some(vec!["README.md".to_owned(), "orchard/apple.txt".to_owned()]),
        repository: some("shop/web"),
        ..Event::default()
    };
    for (provider, event, name) in [
        (Provider::Github, "push", "github-push"),
        (Provider::Gitlab, "Push Hook", "gitlab-push"),
        (Provider::Gitea, "push", "gitea-push"),
        (Provider::Forgejo, "push", "gitea-push"),
    ] {
        let mut found = read(provider, event, name);
        found.message = found.message.map(|message| message.trim_end().to_owned());
        assert_eq!(found, expected, "{name}");
    }
    // These list no paths.
    for (provider, event, name) in
        [(Provider::Bitbucket, "repo:push", "bitbucket-push"), (Provider::Generic, "", "generic-push")]
    {
        let mut found = read(provider, event, name);
        found.message = found.message.map(|message| message.trim_end().to_owned());
        assert_eq!(found, Event { paths: None, ..expected.clone() }, "{name}");
    }
}

#[test]
fn each_documented_payload_makes_a_build_of_its_commit_or_says_why_not() {
    let mut lines = Vec::new();
    for (provider, header, name) in FIXTURES {
        let event = read(provider, header, name);
        let verdict = match decide(&event, everything(), false) {
            Ok(revision) => format!("builds {}", revision.get(..7).unwrap_or(&revision)),
            Err(cause) => format!("none: {cause}"),
        };
        lines.push(format!("{name} ({}, {}): {verdict}", event.word(), event.git_ref.as_deref().unwrap_or("-")));
    }
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn a_list_of_paths_that_may_not_be_whole_is_none() {
    for (provider, header, name) in [
        (Provider::Github, "push", "github-new-branch"),
        (Provider::Gitlab, "Push Hook", "gitlab-push-many"),
        (Provider::Gitea, "push", "gitea-tag"),
    ] {
        assert_eq!(read(provider, header, name).paths, None, "{name}");
    }
    let many: Vec<String> = (0..=MAX_PATHS).map(|n| format!("f{n}")).collect();
    let commits = serde_json::json!([{"added": many, "modified": [], "removed": []}]);
    assert_eq!(paths(Some(&commits), None), None);
}

#[test]
fn an_event_makes_a_build_by_the_rules_of_its_webhook() {
    let build = Ok(COMMIT.to_owned());
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let (main, release) = (texts(&["main"]), texts(&["release/*", "hotfix/**"]));
    let (orchard, docs) = (texts(&["orchard/**"]), texts(&["docs/**", "*.txt"]));
    let rules = everything();
    let pull = read(Provider::Github, "pull_request", "github-pull-request");
    let says = |message: &str| Event { message: some(message), ..push() };
    let of = |commit: &str| Event { commit: some(commit), ..push() };
    for (what, event, rules, expected) in [
        ("a push", push(), rules, build.clone()),
        ("a push, by default", push(), Rules { events: &[], ..rules }, build.clone()),
        (
            "a pull request, by default",
            pull.clone(),
            Rules { events: &[], ..rules },
            Err(Cause::Event(GitEvent::PullRequest)),
        ),
        ("a branch that fits", push(), Rules { branches: &main, ..rules }, build.clone()),
        (
            "a branch that fits none",
            push(),
            Rules { branches: &release, ..rules },
            Err(Cause::Branch("main".to_owned())),
        ),
        ("a pull request is of the branch that it goes to", pull, Rules { branches: &main, ..rules }, build.clone()),
        (
            "a tag is on no branch",
            read(Provider::Github, "push", "github-tag"),
            Rules { branches: &release, ..rules },
            build.clone(),
        ),
        ("a path that fits", push(), Rules { paths: &orchard, ..rules }, build.clone()),
        ("no path that fits", push(), Rules { paths: &docs, ..rules }, Err(Cause::Paths)),
        ("paths that are not known", Event { paths: None, ..push() }, Rules { paths: &docs, ..rules }, build.clone()),
        ("skip ci", says("Ripen\n\n[skip ci]"), rules, Err(Cause::Skip)),
        ("ci skip", says("[CI SKIP] Ripen"), rules, Err(Cause::Skip)),
        ("words like it", says("skip ci"), rules, build.clone()),
        (
            "another repository",
            push(),
            Rules { repository: "shop/api", ..rules },
            Err(Cause::Repository("shop/web".to_owned())),
        ),
        ("the same in capitals", push(), Rules { repository: "Shop/Web", ..rules }, build.clone()),
        ("no repository", Event { repository: None, ..push() }, rules, Err(Cause::NoRepository)),
        ("no commit", Event { commit: None, ..push() }, rules, Err(Cause::Commit)),
        ("the beginning of a commit", of(&COMMIT[..12]), rules, Err(Cause::Commit)),
        ("an option in its place", of("--upload-pack=x"), rules, Err(Cause::Commit)),
        ("only recorded", push(), Rules { auto_build: false, ..rules }, Err(Cause::NotAutomatic)),
    ] {
        assert_eq!(decide(&event, rules, false), expected, "{what}");
    }
    assert_eq!(decide(&push(), rules, true), Err(Cause::Repeated));
    // That it came again matters only where it would have made a Build.
    assert_eq!(decide(&says("[skip ci]"), rules, true), Err(Cause::Skip));
}

#[test]
fn a_generic_payload_is_read_where_its_configuration_says() {
    let pointers = |event: Option<&str>, git_ref: &str, commit: &str| Pointers {
        event: event.map(str::to_owned),
        git_ref: Some(git_ref.to_owned()),
        commit: Some(commit.to_owned()),
    };
    let payload =
        serde_json::json!({"what": {"kind": "tag"}, "branch": "main", "version": {"sha": COMMIT}, "ping": "ping"});
    let read = |pointers: &Pointers| generic::read("", &payload, pointers);
    let found = read(&pointers(None, "/branch", "/version/sha"));
    assert_eq!((found.kind, found.branch, found.commit), (Some(GitEvent::Push), some("main"), some(COMMIT)));
    assert_eq!(read(&pointers(Some("/what/kind"), "/branch", "/version/sha")).kind, Some(GitEvent::Tag));
    assert_eq!(read(&pointers(Some("/nothing"), "/branch", "/version/sha")).kind, None);
    assert!(read(&pointers(Some("/ping"), "/branch", "/version/sha")).is_ping);
}

#[test]
fn an_event_reads_back_from_its_row() {
    for (provider, header, name) in FIXTURES {
        let event = read(provider, header, name);
        let row = serde_json::to_value(&event).unwrap();
        assert_eq!(serde_json::from_value::<Event>(row).unwrap(), event);
    }
    assert_eq!(serde_json::from_str::<Event>("{}").unwrap(), Event::default());
}

#[test]
fn every_provider_has_a_row_and_reads_anything_without_panic() {
    for provider in Provider::ALL {
        let row = provider.row();
        assert!(!row.delivery.is_empty());
        assert_eq!(serde_json::to_value(provider).unwrap(), provider.as_str());
        for payload in
            [Value::Null, serde_json::json!([]), serde_json::json!({"push": {"changes": [1]}, "commits": {}})]
        {
            for event in ["", "push", "repo:push", "pull_request", "pullrequest:created", "release"] {
                let event = (row.read)(event, &payload, &Pointers::default());
                assert!(decide(&event, everything(), false).is_err());
            }
        }
    }
}

#[test]
fn no_event_is_longer_than_a_row_and_a_status_can_hold() {
    let long = "ä".repeat(100_000);
    let mut text: Value = payload("github-push");
    for pointer in ["/ref", "/before", "/after", "/repository/full_name", "/head_commit/message", "/head_commit/id"] {
        *text.pointer_mut(pointer).unwrap() = format!("refs/heads/{long}").into();
    }
    let event = github::read("push", &text, &Pointers::default()).bounded();
    assert!(serde_json::to_string(&event).unwrap().len() < 20_000);
    assert!(matches!(decide(&event, everything(), false), Err(Cause::Repository(name)) if name.len() <= 1_024));
    let usual = push();
    assert_eq!(usual.clone().bounded(), usual);
}
