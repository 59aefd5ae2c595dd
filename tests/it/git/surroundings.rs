//! What stands in the environment and the home of `prepare` has no say in how git runs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{Pod, server::Server};

/// A program that leaves a mark, and fails.
fn trap(path: &Path, mark: &Path) -> String {
    fs::create_dir_all(path.parent().expect("a folder")).expect("makes the folder");
    fs::write(path, format!("#!/bin/sh\necho \"$0\" >> '{}'\nexit 1\n", mark.display())).expect("writes");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("is made a program");
    path.display().to_string()
}

#[tokio::test]
async fn no_variable_no_home_and_no_template_of_anybodys_has_an_effect() {
    let server = Server::start().await;
    let repository = server.repository("public/orchard.git");
    let commit = repository.commit("first", &[("year", "1")]);
    let folder = server.folder.join("surroundings");
    let mark = folder.join("sprung");
    let path = |name: &str| folder.join(name).display().to_string();
    for hook in ["post-checkout", "reference-transaction"] {
        trap(&folder.join("template/hooks").join(hook), &mark);
        trap(&folder.join("hooks").join(hook), &mark);
    }
    let program = trap(&folder.join("program"), &mark);
    let settings = format!(
        "[core]\n\thooksPath = {hooks}\n\tfsmonitor = {program}\n\tsshCommand = {program}\n\
         [init]\n\ttemplateDir = {template}\n[credential]\n\thelper = {program}\n\
         [url \"http://no-such-host.invalid/\"]\n\tinsteadOf = {url}/\n",
        hooks = path("hooks"),
        template = path("template"),
        url = server.url,
    );
    for name in ["home/.gitconfig", "home/.config/git/config", "xdg/git/config", "settings"] {
        let place = folder.join(name);
        fs::create_dir_all(place.parent().expect("a folder")).expect("makes the folder");
        fs::write(place, &settings).expect("writes");
    }
    let (home, xdg, named, template) = (path("home"), path("xdg"), path("settings"), path("template"));
    let (log, nowhere) = (path("trace"), path("nowhere"));
    let instead = "url.http://no-such-host.invalid/.insteadOf";
    let parameters = format!("'core.hooksPath={}'", path("hooks"));
    for (name, variables) in [
        ("home", &[("HOME", &*home)][..]),
        ("xdg", &[("XDG_CONFIG_HOME", &*xdg)]),
        ("global", &[("GIT_CONFIG_GLOBAL", &*named)]),
        ("system", &[("GIT_CONFIG_SYSTEM", &*named)]),
        ("template", &[("GIT_TEMPLATE_DIR", &*template)]),
        ("parameters", &[("GIT_CONFIG_PARAMETERS", &*parameters)]),
        // Past those that are set: a count of theirs would be overwritten, these would not.
        ("count", &[("GIT_CONFIG_COUNT", "1"), ("GIT_CONFIG_KEY_0", instead), ("GIT_CONFIG_VALUE_0", &*server.url)]),
        ("ssh", &[("GIT_SSH_COMMAND", &*program), ("GIT_SSH", &*program), ("GIT_ASKPASS", &*program)]),
        ("trace", &[("GIT_TRACE", &*log), ("GIT_TRACE2", &*log), ("GIT_CURL_VERBOSE", "1")]),
        ("place", &[("GIT_DIR", &*nowhere), ("GIT_WORK_TREE", &*nowhere), ("GIT_OBJECT_DIRECTORY", &*nowhere)]),
        ("programs", &[("GIT_EXEC_PATH", &*nowhere)]),
        ("proxy", &[("http_proxy", "http://127.0.0.1:1"), ("all_proxy", "http://127.0.0.1:1")]),
        ("hash", &[("GIT_DEFAULT_HASH", "sha256")]),
    ] {
        let prepared = Pod::new(&server, name).prepare_among(variables, &repository.url).await;
        assert_eq!(prepared.facts().commit, commit, "{name}");
        assert_eq!(prepared.read("year"), "1", "{name}");
        assert!(!prepared.source.join(".git/hooks").exists(), "{name}: no template");
        assert!(!Path::new(&log).exists() && !Path::new(&nowhere).exists(), "{name}");
        assert_eq!(fs::read_to_string(&mark).unwrap_or_default(), "", "{name}");
    }
}
