//! Sources from Git: from the servers that `make up` starts, by http and by ssh, with and without credentials. What the
//! rows say of a commit is compared with what git itself says.

pub mod repository;

use image_factory::crd::Build;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::{
    cluster,
    failing_builds::{failure, told},
    rows,
    tenant::{APPLIER, Tenant, phase, status, tenant},
};
use repository::Repository;

const DOCKERFILE: &str = "FROM BASE\nCOPY . /source\nRUN cat /source/year\n";

fn dockerfile() -> String {
    DOCKERFILE.replace("BASE", &format!("{}/busybox:1", cluster::registry()))
}

/// A Build of this source by method container.
fn manifest(tenant: &Tenant, name: &str, git: &Value, more: &Value) -> Value {
    let mut manifest = tenant.manifest(name, "container", "");
    manifest["spec"]["source"] = json!({"git": git});
    for (field, value) in more.as_object().into_iter().flatten() {
        manifest["spec"][field] = value.clone();
    }
    manifest
}

async fn log(tenant: &Tenant, build: &Build) -> String {
    let attempt = tenant.attempts(build).await.pop().expect("a row");
    rows::log(&tenant.pool, rows::id(&attempt)).await.join("\n")
}

/// Applies Builds that must fail in `prepare`, and compares what is told.
async fn fail(tenant: &Tenant, expected: &[(&str, Value, &str, &str)]) {
    for (name, git, ..) in expected {
        tenant.apply(&manifest(tenant, name, git, &json!({}))).await;
    }
    for (name, _, reason, words) in expected {
        let build = tenant.finished(name, 1).await;
        let failure = failure(tenant, &build).await;
        assert_eq!(told(&failure), (*reason, "compile", Some(1)), "{name}: {failure:#}");
        let message = failure["message"].as_str().unwrap_or_default();
        assert!(message.contains(words), "{name}: {message}");
        let log = log(tenant, &build).await;
        assert!(log.contains(message), "the sentence is in the log of {name}: {log}");
        let row = tenant.attempts(&build).await.pop().expect("a row");
        assert_eq!(row["git_commit"], Value::Null, "{name}");
    }
}

#[tokio::test]
async fn a_branch_a_tag_a_commit_and_a_folder_are_built_and_the_rows_name_the_commit() {
    tenant("git", "baseline", async |tenant| {
        let repository = Repository::new("git", &tenant.namespace);
        let first = repository.commit("first", &[("Dockerfile", &dockerfile()), ("year", "one\n")]);
        repository.git(&["tag", "-a", "-m", "harvest", "v1"]);
        let folder = [("web/docker/Dockerfile", dockerfile()), ("web/year", "two\n".to_owned())];
        let folder: Vec<(&str, &str)> = folder.iter().map(|(path, text)| (*path, text.as_str())).collect();
        let second = repository.commit("second: a folder\n\nWith a body of “two” lines\nand a 'quote'.", &folder);
        repository.git(&["checkout", "-q", "-b", "side/graft"]);
        let side = repository.commit("side", &[("year", "three\n")]);
        repository.push(&["main", "side/graft", "v1"]);

        let url = &repository.url;
        let web = json!({"context": "web", "dockerfile": "docker/Dockerfile"});
        let cases = [
            ("default", json!({"url": url}), json!({}), &second, Some("main"), "one"),
            ("branch", json!({"url": url, "revision": "side/graft"}), json!({}), &side, Some("side/graft"), "three"),
            ("tag", json!({"url": url, "revision": "v1"}), json!({}), &first, Some("v1"), "one"),
            ("commit", json!({"url": url, "revision": first}), json!({}), &first, None, "one"),
            ("folder", json!({"url": url, "revision": "main"}), web, &second, Some("main"), "two"),
        ];
        for (name, git, more, ..) in &cases {
            tenant.apply(&manifest(tenant, name, git, more)).await;
        }
        for (name, _, more, commit, branch, year) in &cases {
            let build = tenant.finished(name, 1).await;
            assert_eq!(phase(&build), "Success", "{name}: {:#}", status(&build));
            let row = tenant.attempts(&build).await.pop().expect("a row");
            assert_eq!((&row["git_commit"], &row["git_branch"]), (&json!(commit), &json!(branch)), "{name}");
            for (column, format) in [("git_author", "%an <%ae>"), ("git_message", "%B")] {
                let said = repository.git(&["log", "-1", &format!("--format={format}"), commit]);
                assert_eq!(row[column], said, "{name}: {column}");
            }
            let config = rows::build_configs(&tenant.pool, rows::id(&row)).await;
            assert_eq!(config["dockerfile"], more.get("dockerfile").cloned().unwrap_or(json!("Dockerfile")), "{name}");
            let log = log(tenant, &build).await;
            assert!(log.contains(&format!("source: commit {commit}")), "{name}: {log}");
            assert!(log.lines().any(|line| line.trim() == *year), "{name} built {year}: {log}");
        }
    })
    .await;
}

#[tokio::test]
async fn depth_and_submodules_bring_what_was_asked_for() {
    tenant("git-more", "baseline", async |tenant| {
        let inner = Repository::new("git", &format!("{}-inner", tenant.namespace));
        inner.commit("inner", &[("seed", "pip\n")]);
        inner.push(&["main"]);
        let outer = Repository::new("git", &tenant.namespace);
        let base = format!("FROM {}/busybox:1\nCOPY . /source\n", cluster::registry());
        outer.commit("first", &[("Dockerfile", &format!("{base}RUN test -f /source/.git/shallow\n"))]);
        outer.git(&["submodule", "--quiet", "add", &inner.url, "lib"]);
        // Beside the repository itself, wherever that is.
        outer.git(&["config", "-f", ".gitmodules", "submodule.lib.url", &format!("../{}-inner.git", tenant.namespace)]);
        outer.commit(
            "second",
            &[
                (
                    "Dockerfile.full",
                    &format!("{base}RUN test ! -e /source/.git/shallow && test ! -e /source/lib/seed\n"),
                ),
                ("Dockerfile.lib", &format!("{base}RUN grep pip /source/lib/seed\n")),
            ],
        );
        outer.push(&["main"]);
        let url = &outer.url;
        for (name, git, dockerfile) in [
            ("shallow", json!({"url": url}), "Dockerfile"),
            ("full", json!({"url": url, "depth": 0}), "Dockerfile.full"),
            ("library", json!({"url": url, "submodules": true}), "Dockerfile.lib"),
        ] {
            tenant.apply(&manifest(tenant, name, &git, &json!({"dockerfile": dockerfile}))).await;
        }
        for name in ["shallow", "full", "library"] {
            let build = tenant.finished(name, 1).await;
            assert_eq!(phase(&build), "Success", "{name}: {:#}", status(&build));
        }
    })
    .await;
}

#[tokio::test]
async fn a_private_repository_opens_to_its_secret_and_to_no_other() {
    tenant("git-private", "baseline", async |tenant| {
        let repository = Repository::new("private", &tenant.namespace);
        let commit = repository.commit("first", &[("Dockerfile", &dockerfile()), ("year", "one\n")]);
        repository.push(&["main"]);
        let (user, password) = (cluster::variable("GIT_USER"), cluster::variable("GIT_PASSWORD"));
        let basic = "kubernetes.io/basic-auth";
        tenant.secret("right", basic, json!({"username": user, "password": password})).await;
        tenant.secret("wrong", basic, json!({"username": user, "password": "not-the-password"})).await;
        tenant.secret("half", basic, json!({"password": password})).await;
        let git = |secret: &str| json!({"url": repository.url, "credentialsSecret": {"name": secret}});

        tenant.apply(&manifest(tenant, "right", &git("right"), &json!({}))).await;
        fail(
            tenant,
            &[
                ("wrong", git("wrong"), "SourceAuth", "refused the credentials of Secret \"wrong\""),
                (
                    "half",
                    git("half"),
                    "SecretNotFound",
                    "Secret \"half\", which spec.source.git.credentialsSecret names, has no key \"username\"",
                ),
                (
                    "missing",
                    git("missing"),
                    "SecretNotFound",
                    "Secret \"missing\", which spec.source.git.credentialsSecret names, does not exist",
                ),
                (
                    "none",
                    json!({"url": repository.url}),
                    "SourceAuth",
                    "name a Secret in spec.source.git.credentialsSecret",
                ),
            ],
        )
        .await;
        let build = tenant.finished("right", 1).await;
        assert_eq!(phase(&build), "Success", "{:#}", status(&build));
        assert_eq!(tenant.attempts(&build).await[0]["git_commit"], commit);
        for name in ["right", "wrong", "half"] {
            let build = tenant.finished(name, 1).await;
            assert!(!log(tenant, &build).await.contains(&password), "{name}");
        }
    })
    .await;
}

#[tokio::test]
async fn https_believes_a_certificate_of_the_named_authority_and_no_other() {
    tenant("git-tls", "baseline", async |tenant| {
        let repository = Repository::new("private", &tenant.namespace);
        let commit = repository.commit("first", &[("Dockerfile", &dockerfile()), ("year", "one\n")]);
        repository.push(&["main"]);
        let (user, password) = (cluster::variable("GIT_USER"), cluster::variable("GIT_PASSWORD"));
        tenant.secret("git", "kubernetes.io/basic-auth", json!({"username": user, "password": password})).await;
        let git = |server: &str| json!({"url": repository.url_by(server), "credentialsSecret": {"name": "git"}});
        tenant.apply(&manifest(tenant, "known", &git("GIT_TLS_URL"), &json!({}))).await;
        let words = "is not trusted: if it is the right one, the operator's setting sources.certificateAuthorities";
        fail(tenant, &[("stranger", git("GIT_STRANGE_URL"), "SourceAuth", words)]).await;
        let build = tenant.finished("known", 1).await;
        assert_eq!(phase(&build), "Success", "{:#}", status(&build));
        assert_eq!(tenant.attempts(&build).await[0]["git_commit"], commit);
    })
    .await;
}

#[tokio::test]
async fn ssh_takes_a_key_and_trusts_only_the_hosts_it_was_told() {
    tenant("git-ssh", "baseline", async |tenant| {
        let repository = Repository::new("private", &tenant.namespace);
        let commit = repository.commit("first", &[("Dockerfile", &dockerfile()), ("year", "one\n")]);
        repository.push(&["main"]);
        let read = |name: &str| std::fs::read_to_string(cluster::variable(name)).expect("`make up` wrote it");
        let (key, hosts) = (read("GIT_SSH_KEY"), read("GIT_SSH_KNOWN_HOSTS"));
        let kind = "kubernetes.io/ssh-auth";
        let other_host = hosts.replacen('[', "[other-", 1);
        for (name, entries) in [
            ("right", json!({"ssh-privatekey": key, "known_hosts": hosts})),
            ("stranger", json!({"ssh-privatekey": key, "known_hosts": other_host})),
            ("trusting", json!({"ssh-privatekey": key})),
            ("broken", json!({"ssh-privatekey": "no key", "known_hosts": hosts})),
        ] {
            tenant.secret(name, kind, entries).await;
        }
        let url = format!("{}/private/{}.git", cluster::variable("GIT_SSH_URL"), tenant.namespace);
        let git = |secret: &str| json!({"url": url, "credentialsSecret": {"name": secret}});
        let absent = url.replace(".git", "-absent.git");
        tenant.apply(&manifest(tenant, "right", &git("right"), &json!({}))).await;
        fail(
            tenant,
            &[
                ("stranger", git("stranger"), "SourceAuth", "is not in known_hosts of Secret \"stranger\""),
                (
                    "trusting",
                    git("trusting"),
                    "SecretNotFound",
                    "has no key \"known_hosts\": add the server's host keys",
                ),
                ("broken", git("broken"), "SourceAuth", "ssh can't read ssh-privatekey of Secret \"broken\""),
                (
                    "absent",
                    json!({"url": absent, "credentialsSecret": {"name": "right"}}),
                    "SourceNotFound",
                    "is not there",
                ),
            ],
        )
        .await;
        let build = tenant.finished("right", 1).await;
        assert_eq!(phase(&build), "Success", "{:#}", status(&build));
        assert_eq!(tenant.attempts(&build).await[0]["git_commit"], commit);
    })
    .await;
}

#[tokio::test]
async fn what_is_not_there_is_named_and_a_link_out_of_the_source_is_no_way_out() {
    tenant("git-missing", "baseline", async |tenant| {
        let repository = Repository::new("git", &tenant.namespace);
        std::os::unix::fs::symlink("/etc", repository.tree.join("out")).expect("links");
        std::os::unix::fs::symlink("/etc/passwd", repository.tree.join("Linked")).expect("links");
        repository.commit("links", &[("Dockerfile", &dockerfile()), ("year", "one\n")]);
        repository.push(&["main"]);
        let url = &repository.url;
        let absent = "0f".repeat(20);
        fail(
            tenant,
            &[
                (
                    "repository",
                    json!({"url": url.replace(".git", "-absent.git")}),
                    "SourceNotFound",
                    "is not there: check the address",
                ),
                ("host", json!({"url": "https://no-such-host.invalid/web.git"}), "SourceNotFound", "is not there"),
                (
                    "branch",
                    json!({"url": url, "revision": "trunk"}),
                    "RevisionNotFound",
                    "has no branch or tag \"trunk\"",
                ),
                ("commit", json!({"url": url, "revision": absent}), "RevisionNotFound", &absent),
            ],
        )
        .await;
        let links = [
            (
                "folder",
                json!({"context": "out", "dockerfile": "passwd"}),
                "spec.context is \"out\", which leads out of the source",
            ),
            ("file", json!({"dockerfile": "Linked"}), "spec.dockerfile is \"Linked\", which leads out of the source"),
        ];
        for (name, more, _) in &links {
            tenant.apply(&manifest(tenant, name, &json!({"url": url}), more)).await;
        }
        for (name, _, words) in &links {
            let build = tenant.finished(name, 1).await;
            let failure = failure(tenant, &build).await;
            assert_eq!(told(&failure), ("InvalidSpec", "compile", Some(1)), "{failure:#}");
            assert!(failure["message"].as_str().unwrap_or_default().starts_with(words), "{failure:#}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_option_in_place_of_a_revision_is_refused_by_the_api_and_a_protocol_by_the_operator() {
    tenant("git-refused", "baseline", async |tenant| {
        let api = tenant.builds();
        for (name, git, words) in [
            (
                "option",
                json!({"url": "https://git.example.com/a.git", "revision": "--upload-pack=x"}),
                "spec.source.git.revision must be a branch",
            ),
            ("address", json!({"url": "--upload-pack=x"}), "spec.source.git.url must be"),
            ("password", json!({"url": "https://me:word@git.example.com/a.git"}), "must have no password in it"),
        ] {
            let manifest = manifest(tenant, name, &git, &json!({}));
            let params = PatchParams::apply(APPLIER).force();
            let refused = api.patch(name, &params, &Patch::Apply(&manifest)).await.expect_err(name);
            assert!(refused.to_string().contains(words), "{refused}");
        }

        tenant.apply(&manifest(tenant, "plain", &json!({"url": "git://git.example.com/a.git"}), &json!({}))).await;
        let build = tenant.finished("plain", 1).await;
        let failure = status(&build)["failure"].clone();
        assert_eq!(told(&failure), ("InvalidSpec", "compile", None), "{failure:#}");
        let message = failure["message"].as_str().unwrap_or_default();
        assert!(message.contains("git is not encrypted, and this installation does not allow it"), "{message}");
        let attempt = tenant.attempts(&build).await.pop().expect("a row");
        assert_eq!(rows::history(&tenant.pool, rows::id(&attempt)).await, "queued → failed");
        assert_eq!(tenant.jobs_of(rows::id(&attempt)).await.len(), 0);
    })
    .await;
}
