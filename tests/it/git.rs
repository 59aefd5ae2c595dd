//! `image-factory prepare` on sources from Git, run as the process that it is in a build's Pod, against a server that runs
//! Git's own backend.

mod server;
mod sha256;
mod ssh;
mod surroundings;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use image_factory_core::report::{PrepareReport, SourceFacts};
use server::{LATIN_PASSWORD, PASSWORD, Repository, Server, USER};

/// A Pod's volume, and what `prepare` is told beside the address.
struct Pod {
    folder: PathBuf,
    flags: Vec<String>,
}

struct Prepared {
    report: PrepareReport,
    lines: String,
    source: PathBuf,
}

impl Prepared {
    fn facts(&self) -> &SourceFacts {
        self.report.source.as_ref().expect(&self.lines)
    }

    fn failure(&self) -> (&str, &str) {
        let failure = self.report.failure.as_ref().expect(&self.lines);
        (&failure.reason, &failure.message)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.source.join(path)).expect(&self.lines)
    }

    fn git(&self, argv: &[&str]) -> String {
        server::git(&self.source, argv)
    }
}

impl Pod {
    fn new(server: &Server, name: &str) -> Self {
        let folder = server.folder.join("pods").join(name);
        fs::create_dir_all(folder.join("volume")).expect("makes the volume");
        fs::create_dir_all(folder.join("secret")).expect("makes the Secret");
        fs::write(folder.join("agent"), "").expect("writes");
        Self { folder, flags: vec!["--git-insecure-protocol=http".to_owned()] }
    }

    fn flag(mut self, flag: &str) -> Self {
        self.flags.push(flag.to_owned());
        self
    }

    fn secret(self, entries: &[(&str, &str)]) -> Self {
        let entries: Vec<_> = entries.iter().map(|(key, value)| (*key, value.as_bytes())).collect();
        self.secret_of_bytes(&entries)
    }

    fn secret_of_bytes(self, entries: &[(&str, &[u8])]) -> Self {
        for (key, value) in entries {
            let path = self.folder.join("secret").join(key);
            fs::write(&path, value).expect("writes");
            // As ssh wants its key.
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("is made private");
        }
        self.flag("--git-secret=pantry")
    }

    async fn prepare(&self, url: &str) -> Prepared {
        self.prepare_among(&[], url).await
    }

    /// Prepares as a process with these variables beside its own.
    async fn prepare_among(&self, variables: &[(&str, &str)], url: &str) -> Prepared {
        let path = |name: &str| self.folder.join(name).display().to_string();
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_image-factory"))
            .arg("prepare")
            .arg(format!("--git-url={url}"))
            .arg(format!("--volume={}", path("volume")))
            .arg(format!("--agent={}", path("agent")))
            .arg(format!("--report={}", path("report")))
            .arg(format!("--git-credentials={}", path("secret")))
            .args(&self.flags)
            .envs(variables.iter().copied())
            .output()
            .await
            .expect("prepare runs");
        let report = fs::read(self.folder.join("report")).expect("a report");
        let report = PrepareReport::decode(&report).expect("a report of this version");
        assert_eq!(output.status.success(), report.failure.is_none());
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        Prepared { report, lines, source: self.folder.join("volume/source") }
    }
}

/// Three commits on the default branch `trunk`, a tag on the second, a branch `side` with one more.
fn orchard(server: &Server) -> (Repository, [String; 4]) {
    let repository = server.repository("public/orchard.git");
    let first = repository.commit("first", &[("Dockerfile", "FROM scratch\n"), ("year", "1")]);
    let second = repository.commit("second", &[("year", "2")]);
    repository.git(&["tag", "-a", "-m", "harvest", "v2"]);
    repository.git(&["push", "-q", "origin", "v2"]);
    let third = repository.commit("third: graft\n\nOn quince.", &[("year", "3")]);
    repository.git(&["checkout", "-q", "-b", "side/graft"]);
    let side = repository.commit("side", &[("year", "4")]);
    (repository, [first, second, third, side])
}

#[tokio::test]
async fn a_branch_a_tag_a_commit_and_the_default_branch_are_fetched_exactly() {
    let server = Server::start().await;
    let (repository, [first, second, third, side]) = orchard(&server);
    for (name, revision, commit, branch, year) in [
        ("default", None, &third, Some("trunk"), "3"),
        ("branch", Some("side/graft"), &side, Some("side/graft"), "4"),
        ("tag", Some("v2"), &second, Some("v2"), "2"),
        ("reference", Some("refs/heads/trunk"), &third, Some("trunk"), "3"),
        ("commit", Some(first.as_str()), &first, None, "1"),
    ] {
        let mut pod = Pod::new(&server, name);
        if let Some(revision) = revision {
            pod = pod.flag(&format!("--git-revision={revision}"));
        }
        let prepared = pod.flag("--dockerfile=Dockerfile").prepare(&repository.url).await;
        let facts = prepared.facts();
        assert_eq!((&facts.commit, facts.branch.as_deref()), (commit, branch), "{name}");
        assert_eq!(facts.author, "Pomona Orchard <pomona@example.com>");
        assert_eq!(prepared.read("year"), year, "{name}");
        assert_eq!(&prepared.git(&["rev-parse", "HEAD"]), commit, "{name}");
        assert_eq!(prepared.git(&["rev-list", "--count", "HEAD"]), "1", "{name}");
        assert!(prepared.lines.contains(&format!("source: commit {commit}")), "{}", prepared.lines);
        if year == "3" {
            assert_eq!(facts.message, "third: graft\n\nOn quince.");
        }
    }
}

#[tokio::test]
async fn depth_is_how_much_history_comes_along() {
    let server = Server::start().await;
    let (repository, [_, second, ..]) = orchard(&server);
    for (depth, commits) in [(1, "1"), (2, "2"), (0, "3"), (100, "3")] {
        let pod = Pod::new(&server, &format!("depth-{depth}")).flag(&format!("--git-depth={depth}"));
        let prepared = pod.prepare(&repository.url).await;
        assert_eq!(prepared.git(&["rev-list", "--count", "HEAD"]), commits, "depth {depth}");
    }
    let pod = Pod::new(&server, "by-id").flag("--git-depth=2").flag(&format!("--git-revision={second}"));
    assert_eq!(pod.prepare(&repository.url).await.git(&["rev-list", "--count", "HEAD"]), "2");
}

#[tokio::test]
async fn a_commit_is_found_on_a_server_that_gives_none_by_its_id() {
    let server = Server::start().await;
    let (_, [first, ..]) = orchard(&server);
    let url = format!("{}/old/orchard.git", server.url);
    let prepared = Pod::new(&server, "old").flag(&format!("--git-revision={first}")).prepare(&url).await;
    assert!(prepared.lines.contains("all branches and tags are fetched"), "{}", prepared.lines);
    assert_eq!((prepared.facts().commit.as_str(), prepared.read("year").as_str()), (first.as_str(), "1"));
    let absent = "0f".repeat(20);
    let prepared = Pod::new(&server, "absent").flag(&format!("--git-revision={absent}")).prepare(&url).await;
    assert_eq!(prepared.failure().0, "RevisionNotFound");
}

#[tokio::test]
async fn what_is_missing_is_named_with_its_remedy() {
    let server = Server::start().await;
    let (repository, _) = orchard(&server);
    let empty = server.repository("public/empty.git");
    let absent = "0f".repeat(20);
    let nowhere = format!("{}/public/nowhere.git", server.url);
    for (name, url, revision, reason, sentence) in [
        (
            "branch",
            &repository.url,
            Some("main"),
            "RevisionNotFound",
            "has no branch or tag \"main\": check spec.source",
        ),
        ("commit", &repository.url, Some(&*absent), "RevisionNotFound", "and that the commit was pushed"),
        ("empty", &empty.url, None, "RevisionNotFound", "has no default branch"),
        ("repository", &nowhere, None, "SourceNotFound", "is not there: check the address"),
        ("host", &"http://no-such-host.invalid/a.git".to_owned(), None, "SourceNotFound", "is not there"),
        ("option", &repository.url, Some("--upload-pack=touch x"), "InvalidSpec", "spec.source.git.revision must be"),
        ("file", &format!("file://{}", repository.bare.display()), None, "InvalidSpec", "spec.source.git.url must be"),
        ("git", &"git://127.0.0.1/a.git".to_owned(), None, "InvalidSpec", "git is not encrypted"),
    ] {
        let mut pod = Pod::new(&server, name);
        if let Some(revision) = revision {
            pod = pod.flag(&format!("--git-revision={revision}"));
        }
        let prepared = pod.prepare(url).await;
        let (found, message) = prepared.failure();
        assert_eq!(found, reason, "{name}: {message}");
        assert!(message.contains(sentence) && prepared.lines.contains(message), "{name}: {message}");
        if reason != "InvalidSpec" {
            assert!(message.contains(url.as_str()), "{name}: {message}");
        }
    }
}

#[tokio::test]
async fn a_password_opens_the_repository_it_is_for_and_is_shown_to_nobody_else() {
    let server = Server::start().await;
    let repository = server.repository("private/cellar.git");
    let commit = repository.commit("first", &[("Dockerfile", "FROM scratch")]);
    let right = [("username", USER), ("password", PASSWORD)];
    let prepared = Pod::new(&server, "right").secret(&right).prepare(&repository.url).await;
    assert_eq!(prepared.facts().commit, commit);
    assert!(!prepared.lines.contains(PASSWORD));
    let kept = prepared.git(&["config", "--list", "--local"]);
    assert!(!kept.contains(PASSWORD) && !kept.contains("credential"), "{kept}");

    let elsewhere = format!("{}/elsewhere/cellar.git", server.url);
    for (name, entries, url, reason, sentence) in [
        (
            "wrong",
            &[("username", USER), ("password", "medlar")][..],
            &repository.url,
            "SourceAuth",
            "refused the credentials of Secret \"pantry\"",
        ),
        (
            "none",
            &[],
            &repository.url,
            "SecretNotFound",
            "Secret \"pantry\", which spec.source.git.credentialsSecret names, does not exist",
        ),
        ("half", &right[..1], &repository.url, "SecretNotFound", "has no key \"password\""),
        ("redirect", &right, &elsewhere, "SourceAuth", &format!("could not read Username for '{}'", server.stranger)),
    ] {
        let prepared = Pod::new(&server, name).secret(entries).prepare(url).await;
        let (found, message) = prepared.failure();
        assert_eq!(found, reason, "{name}: {message}");
        assert!(message.contains(sentence), "{name}: {message}");
        assert!(!prepared.lines.contains(PASSWORD), "{name}");
    }
    assert_eq!(*server.leaked.lock().expect("not poisoned"), Vec::<String>::new());

    let prepared = Pod::new(&server, "without").prepare(&repository.url).await;
    let (reason, message) = prepared.failure();
    assert_eq!(reason, "SourceAuth");
    assert!(message.contains("name a Secret in spec.source.git.credentialsSecret"), "{message}");
}

#[tokio::test]
async fn a_password_that_is_no_utf_8_reaches_the_server_byte_by_byte_and_no_log() {
    let server = Server::start().await;
    let repository = server.repository("private/latin/cellar.git");
    let commit = repository.commit("first", &[]);
    let secret = [("username", USER.as_bytes()), ("password", LATIN_PASSWORD)];
    let prepared = Pod::new(&server, "latin").secret_of_bytes(&secret).prepare(&repository.url).await;
    assert_eq!(prepared.facts().commit, commit);
    let utf_8 = [("username", USER), ("password", "Süßmost")];
    let prepared = Pod::new(&server, "utf-8").secret(&utf_8).prepare(&repository.url).await;
    assert_eq!(prepared.failure().0, "SourceAuth");
}

#[tokio::test]
async fn submodules_come_where_asked_for_with_the_same_credentials_and_the_same_rules() {
    let server = Server::start().await;
    let inner = server.repository("private/inner.git");
    inner.commit("inner", &[("seed", "pip")]);
    let outer = server.repository("private/outer.git");
    outer.commit("outer", &[("Dockerfile", "FROM scratch")]);
    let add = |address: &str, path: &str| {
        outer.git(&["submodule", "--quiet", "add", "--force", &inner.bare.display().to_string(), path]);
        outer.git(&["config", "-f", ".gitmodules", &format!("submodule.{path}.url"), address]);
        outer.commit("a submodule", &[]);
    };
    add("../inner.git", "lib");
    let secret = [("username", USER), ("password", PASSWORD)];
    let prepared = Pod::new(&server, "without").secret(&secret).prepare(&outer.url).await;
    assert!(!prepared.source.join("lib/seed").exists(), "{}", prepared.lines);
    let pod = Pod::new(&server, "with").secret(&secret).flag("--git-submodules");
    assert_eq!(pod.prepare(&outer.url).await.read("lib/seed"), "pip");

    add(&format!("file://{}", inner.bare.display()), "local");
    let prepared = Pod::new(&server, "file").secret(&secret).flag("--git-submodules").prepare(&outer.url).await;
    let (reason, message) = prepared.failure();
    assert_eq!(reason, "InvalidSpec", "{message}");
    assert!(message.contains("a submodule of") && message.contains("protocol that is not allowed"), "{message}");
}

#[tokio::test]
async fn a_link_out_of_the_source_is_no_context_and_no_dockerfile() {
    let server = Server::start().await;
    let repository = server.repository("public/links.git");
    std::os::unix::fs::symlink("/etc", repository.tree.join("out")).expect("links");
    std::os::unix::fs::symlink("app/Dockerfile", repository.tree.join("Linked")).expect("links");
    std::os::unix::fs::symlink("/etc/passwd", repository.tree.join("Dockerfile")).expect("links");
    repository.commit("links", &[("app/Dockerfile", "FROM scratch")]);
    for (name, context, dockerfile, expected) in [
        ("folder", "out", "passwd", Some("spec.context is \"out\", which leads out of the source through a symlink")),
        ("file", ".", "Dockerfile", Some("spec.dockerfile is \"Dockerfile\", which leads out of the source")),
        ("inside", ".", "Linked", None),
        ("plain", "app", "Dockerfile", None),
    ] {
        let pod = Pod::new(&server, name).flag(&format!("--context={context}"));
        let prepared = pod.flag(&format!("--dockerfile={dockerfile}")).prepare(&repository.url).await;
        match expected {
            Some(sentence) => assert!(prepared.failure().1.starts_with(sentence), "{name}: {}", prepared.lines),
            None => assert_eq!(prepared.report.failure, None, "{name}"),
        }
    }
}

#[tokio::test]
async fn a_source_over_the_cap_or_the_time_and_a_server_that_is_away_say_so() {
    let server = Server::start().await;
    let repository = server.repository("public/large.git");
    // Noise, so that it does not compress.
    let noise: Vec<String> = (0..400_000_u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_string()).collect();
    repository.commit("large", &[("noise", &noise.concat())]);
    let prepared = Pod::new(&server, "cap").flag("--git-mebibytes=1").prepare(&repository.url).await;
    let (reason, message) = prepared.failure();
    assert_eq!(reason, "InvalidSpec");
    assert!(message.contains("is larger than the 1 MiB that this installation allows"), "{message}");

    let prepared = Pod::new(&server, "time").flag("--timeout-seconds=0").prepare(&repository.url).await;
    assert_eq!(prepared.failure().0, "TimedOut");

    let broken = format!("{}/broken/a.git", server.url);
    let prepared = Pod::new(&server, "broken").prepare(&broken).await;
    let (reason, message) = prepared.failure();
    assert_eq!(reason, "SourceUnavailable");
    assert!(message.contains("502"), "{message}");
    assert_eq!(prepared.lines.matches("it is asked again").count(), 2, "{}", prepared.lines);
}
