//! A repository on the Git server that `make up` starts, with a work tree here to commit in.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::cluster;

pub struct Repository {
    pub tree: PathBuf,
    /// As a Build names it.
    pub url: String,
    /// As a push needs it.
    push_url: String,
}

impl Repository {
    /// `kind` is git, open to all, or private. It appears on the server with the first push.
    pub fn new(kind: &str, name: &str) -> Self {
        let tree = std::env::temp_dir().join(format!("e2e-repository-{name}"));
        fs::create_dir_all(&tree).expect("makes the folder");
        let server = cluster::variable("GIT_URL");
        let url = format!("{server}/{kind}/{name}.git");
        let credentials = format!("{}:{}@", cluster::variable("GIT_USER"), cluster::variable("GIT_PASSWORD"));
        let push_url = url.replacen("://", &format!("://{credentials}"), 1);
        let repository = Self { tree, url, push_url };
        repository.git(&["init", "-q", "-b", "main", "."]);
        repository
    }

    /// The same repository on another server of `make up`, which `.local/env` names so.
    pub fn url_by(&self, variable: &str) -> String {
        self.url.replacen(&cluster::variable("GIT_URL"), &cluster::variable(variable), 1)
    }

    /// Commits everything with these files changed, and gives the commit.
    pub fn commit(&self, message: &str, files: &[(&str, &str)]) -> String {
        for (path, text) in files {
            let place = self.tree.join(path);
            fs::create_dir_all(place.parent().expect("a folder")).expect("makes the folder");
            fs::write(place, text).expect("writes");
        }
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", message]);
        self.git(&["rev-parse", "HEAD"])
    }

    pub fn push(&self, references: &[&str]) {
        let mut argv = vec!["push", "-q", &self.push_url];
        argv.extend(references);
        self.git(&argv);
    }

    /// Has the server tell of what is pushed from now on, signed with this secret; it has been pushed to before.
    pub fn deliver_to(&self, url: &str, secret: &str) {
        let path = self.url.replacen(&cluster::variable("GIT_URL"), &cluster::variable("GIT_ROOT"), 1);
        let file = format!("--file={path}/config");
        self.git(&["config", &file, "hook.url", url]);
        self.git(&["config", &file, "hook.secret", secret]);
    }

    /// What git prints, without the line breaks at its end.
    pub fn git(&self, argv: &[&str]) -> String {
        let output = Command::new("git")
            .args([
                "-c",
                "user.name=Pomona Orchard",
                "-c",
                "user.email=pomona@example.com",
                "-c",
                "commit.gpgsign=false",
            ])
            .args(argv)
            .current_dir(&self.tree)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()
            .expect("git runs");
        assert!(output.status.success(), "git {argv:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }
}

impl Drop for Repository {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.tree);
    }
}
