//! Repositories whose objects are named by SHA-256.

use super::{Pod, server::Server};

#[tokio::test]
async fn a_repository_whose_ids_are_of_sha_256_is_fetched_by_branch_tag_and_id() {
    let server = Server::start().await;
    let inner = server.repository_of("sha256", "public/sha256-inner.git");
    inner.commit("inner", &[("seed", "pip")]);
    let repository = server.repository_of("sha256", "public/sha256.git");
    let first = repository.commit("first", &[("year", "1")]);
    repository.git(&["tag", "-a", "-m", "harvest", "v1"]);
    repository.git(&["push", "-q", "origin", "v1"]);
    repository.git(&["submodule", "--quiet", "add", &inner.bare.display().to_string(), "lib"]);
    repository.git(&["config", "-f", ".gitmodules", "submodule.lib.url", "../sha256-inner.git"]);
    let second = repository.commit("second", &[("year", "2")]);
    assert_eq!((first.len(), second.len()), (64, 64));
    let old = format!("{}/old/sha256.git", server.url);
    for (name, url, revision, commit, branch) in [
        ("default", &repository.url, None, &second, Some("trunk")),
        ("branch", &repository.url, Some("trunk"), &second, Some("trunk")),
        ("tag", &repository.url, Some("v1"), &first, Some("v1")),
        ("id", &repository.url, Some(&*second), &second, None),
        ("old-branch", &old, Some("trunk"), &second, Some("trunk")),
        ("old-id", &old, Some(&*first), &first, None),
    ] {
        let mut pod = Pod::new(&server, name).flag("--git-submodules");
        if let Some(revision) = revision {
            pod = pod.flag(&format!("--git-revision={revision}"));
        }
        let prepared = pod.prepare(url).await;
        assert_eq!((&prepared.facts().commit, prepared.facts().branch.as_deref()), (commit, branch), "{name}");
        assert_eq!(&prepared.git(&["rev-parse", "HEAD"]), commit, "{name}");
        assert_eq!(prepared.source.join("lib/seed").exists(), *commit == second, "{name}: {}", prepared.lines);
    }

    let plain = server.repository("public/sha1.git");
    let short = plain.commit("first", &[]);
    for (name, url, revision) in [
        ("absent", &repository.url, "0f".repeat(32)),
        ("short", &repository.url, short.clone()),
        ("old-short", &old, short),
        ("long", &plain.url, first.clone()),
        ("old-long", &format!("{}/old/sha1.git", server.url), first.clone()),
    ] {
        let prepared = Pod::new(&server, name).flag(&format!("--git-revision={revision}")).prepare(url).await;
        let (reason, message) = prepared.failure();
        assert_eq!(reason, "RevisionNotFound", "{name}: {message}");
        assert!(message.contains(&format!("has no commit {revision}")), "{name}: {message}");
    }
}
