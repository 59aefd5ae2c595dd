//! A source from Git: fetches exactly the revision that is wanted, in a hardened environment, and says which commit that
//! was. A failure is told in the words of whoever named the repository: what was refused, missing or away, and what to
//! do about it.

mod command;
mod credentials;
mod heads;
mod ssh;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use image_factory_core::git::{
    Chosen, Protocol, Trouble, Url, check_revision, choose, is_commit, object_format, patterns, references, trouble,
};
use image_factory_core::outcome::SOURCE_UNAVAILABLE;
use image_factory_core::report::SourceFacts;

use super::SourceError;
use command::{Command, Failure};
pub use credentials::{Credentials, answer};
pub use heads::list_heads;
pub use ssh::arguments as ssh_arguments;

/// A server that does not answer is asked again after these pauses.
const PAUSES: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(6)];
/// A commit's message goes into a report that keeps less anyway.
const MAX_MESSAGE_BYTES: usize = 8 * 1024;

/// What to fetch, and within which limits.
#[derive(Debug)]
pub struct Wanted {
    pub url: String,
    /// None: the repository's own default branch.
    pub revision: Option<String>,
    /// Commits of history; 0 fetches all.
    pub depth: u32,
    pub submodules: bool,
    /// Protocols beside https and ssh that the operator allows.
    pub insecure_protocols: Vec<Protocol>,
    pub credentials: Option<Credentials>,
    /// A file of the certificate authorities that servers by https are believed by; None: those of this system.
    pub authorities: Option<PathBuf>,
    /// The program that answers git's questions for a password: this one.
    pub helper: PathBuf,
    pub deadline: Instant,
    pub max_bytes: u64,
}

/// Why this address and revision may not be fetched; none where they may. The operator asks before it takes a Build,
/// and the Pod again.
pub fn check_git(
    url: &str,
    revision: Option<&str>,
    has_credentials: bool,
    insecure_protocols: &[Protocol],
) -> Result<Url, SourceError> {
    let refuse = |sentence: String| Err(SourceError::InvalidSpec(sentence));
    let url = match Url::parse(url) {
        Ok(url) => url,
        Err(problem) => return refuse(format!("spec.source.git.url {problem}")),
    };
    if let Some(Err(problem)) = revision.map(check_revision) {
        return refuse(format!("spec.source.git.revision {problem}"));
    }
    let protocol = url.protocol();
    if !protocol.is_secure() && !insecure_protocols.contains(&protocol) {
        return refuse(format!(
            "spec.source.git.url is {url}: {protocol} is not encrypted, and this installation does not allow it; use https or ssh"
        ));
    }
    match protocol {
        Protocol::Ssh if !has_credentials => refuse(format!(
            "spec.source.git.url is {url}: a source by ssh needs spec.source.git.credentialsSecret, a Secret with ssh-privatekey and known_hosts"
        )),
        Protocol::Git if has_credentials => refuse(format!(
            "spec.source.git.url is {url}: the protocol git has no credentials; remove spec.source.git.credentialsSecret"
        )),
        _ => Ok(url),
    }
}

/// Brings the wanted revision into `folder`, which is empty.
pub fn fetch_git(folder: &Path, wanted: &Wanted) -> Result<SourceFacts, SourceError> {
    let url =
        check_git(&wanted.url, wanted.revision.as_deref(), wanted.credentials.is_some(), &wanted.insecure_protocols)?;
    let hidden = match &wanted.credentials {
        Some(credentials) => credentials.check(url.protocol())?,
        None => Vec::new(),
    };
    let fetch = Fetch { wanted, url: &url, command: Command::new(folder, wanted, &url, hidden) };
    let (fetched, branch) = match wanted.revision.as_deref().filter(|revision| is_commit(revision)) {
        Some(commit) => {
            fetch.begin(commit)?;
            fetch.commit(commit)?;
            (commit, None)
        }
        None => ("FETCH_HEAD", fetch.reference()?),
    };
    let commit = fetch.resolve(fetched)?;
    let commit = commit.trim();
    fetch.local(&["checkout", "--quiet", "--force", "--detach", commit, "--"])?;
    if wanted.submodules {
        fetch.submodules()?;
    }
    fetch.describe(commit, branch)
}

struct Fetch<'a> {
    wanted: &'a Wanted,
    url: &'a Url,
    command: Command,
}

impl Fetch<'_> {
    /// An empty repository, whose objects are named as the one with this id.
    fn begin(&self, id: &str) -> Result<(), SourceError> {
        let format = format!("--object-format={}", object_format(id));
        self.local(&["init", "--quiet", "--template=", &format, "--", "."])?;
        // Submodules with a relative address are looked for beside it.
        self.local(&["remote", "add", "--", "origin", self.url.as_str()]).map(drop)
    }

    /// The reference that the revision names; gives what of it is a branch or tag.
    fn reference(&self) -> Result<Option<String>, SourceError> {
        let revision = self.wanted.revision.as_deref();
        let names = patterns(revision);
        let mut argv = vec!["ls-remote", "--symref", "--", self.url.as_str()];
        argv.extend(names.iter().map(String::as_str));
        let listing = self.remote(&argv)?;
        let Some(Chosen { name, short, object }) = choose(revision, &references(&listing)) else {
            return Err(self.no_revision());
        };
        self.begin(&object)?;
        // Kept under the names a clone would give them, for builds that ask git where they are.
        let refspec = match (name.strip_prefix("refs/heads/"), name.starts_with("refs/tags/")) {
            (Some(branch), _) => format!("+{name}:refs/remotes/origin/{branch}"),
            (None, true) => format!("+{name}:{name}"),
            (None, false) => name,
        };
        self.fetch(self.wanted.depth, &[&refspec])?;
        Ok(short)
    }

    fn commit(&self, commit: &str) -> Result<(), SourceError> {
        let by_id = self.retried(&fetch_argv(self.wanted.depth, &[commit]));
        match by_id {
            Err(Failure::Exit { lines, .. }) if trouble(&lines).0 == Trouble::OnlyReferences => {
                println!("the server gives no commit by its id: all branches and tags are fetched");
                self.fetch(0, &["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"])
            }
            other => other.map(drop).map_err(|failure| self.explain(failure, "fetch")),
        }
    }

    /// The commit that was fetched. It may be missing after all, or a tag of something else.
    fn resolve(&self, fetched: &str) -> Result<String, SourceError> {
        let expression = format!("{fetched}^{{commit}}");
        let argv = ["rev-parse", "--verify", "--quiet", "--end-of-options", &expression];
        self.command.capture(&argv).map_err(|failure| match failure {
            Failure::Exit { .. } => self.no_revision(),
            other => self.explain(other, "rev-parse"),
        })
    }

    fn fetch(&self, depth: u32, refspecs: &[&str]) -> Result<(), SourceError> {
        self.retried(&fetch_argv(depth, refspecs)).map(drop).map_err(|failure| self.explain(failure, "fetch"))
    }

    fn submodules(&self) -> Result<(), SourceError> {
        let mut argv: Vec<String> =
            ["submodule", "update", "--init", "--recursive", "--checkout"].map(str::to_owned).to_vec();
        if self.wanted.depth > 0 {
            argv.push(format!("--depth={}", self.wanted.depth));
        }
        self.retried(&argv).map(drop).map_err(|failure| self.explain(failure, "submodule update"))
    }

    fn describe(&self, commit: &str, branch: Option<String>) -> Result<SourceFacts, SourceError> {
        let text = self.local(&["log", "-1", "--no-show-signature", "--format=%an <%ae>%x00%B", commit, "--"])?;
        let (author, message) = text.split_once('\0').unwrap_or((&text, ""));
        let message = message.trim_end();
        let end = message.floor_char_boundary(MAX_MESSAGE_BYTES);
        Ok(SourceFacts {
            commit: commit.to_owned(),
            branch,
            author: author.to_owned(),
            message: message[..end].to_owned(),
        })
    }

    /// A command that talks to nobody.
    fn local(&self, argv: &[&str]) -> Result<String, SourceError> {
        self.command.capture(argv).map_err(|failure| self.explain(failure, argv.first().copied().unwrap_or_default()))
    }

    fn remote(&self, argv: &[&str]) -> Result<String, SourceError> {
        let name = argv.first().copied().unwrap_or_default();
        patiently(|| self.command.capture(argv)).map_err(|failure| self.explain(failure, name))
    }

    fn retried(&self, argv: &[String]) -> Result<String, Failure> {
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        patiently(|| self.command.echo(&argv))
    }

    fn no_revision(&self) -> SourceError {
        let url = self.url;
        let message = match self.wanted.revision.as_deref() {
            None => format!("{url} has no default branch: name one in spec.source.git.revision, or push a commit"),
            Some(commit) if is_commit(commit) => {
                format!("{url} has no commit {commit}: check spec.source.git.revision, and that the commit was pushed")
            }
            Some(name) => format!(
                "{url} has no branch or tag {name:?}: check spec.source.git.revision (a commit is named by its full id)"
            ),
        };
        SourceError::git("RevisionNotFound", message)
    }

    fn explain(&self, failure: Failure, what: &str) -> SourceError {
        let url = self.url;
        match failure {
            Failure::TimedOut => {
                SourceError::git("TimedOut", format!("fetching {url} took longer than spec.timeout allows"))
            }
            Failure::TooLarge => {
                let limit = self.wanted.max_bytes / (1024 * 1024);
                let sentence = format!(
                    "{url} is larger than the {limit} MiB that this installation allows; fetch less history (spec.source.git.depth) or a smaller repository"
                );
                SourceError::InvalidSpec(sentence)
            }
            Failure::Killed(9) => SourceError::git(
                "OutOfMemory",
                format!("git was killed while fetching {url}: prepare ran out of memory"),
            ),
            Failure::Killed(signal) => {
                SourceError::git("Internal", format!("git was ended by signal {signal} while fetching {url}"))
            }
            Failure::Io(error) => SourceError::git("Internal", format!("failed to run git {what}: {error}")),
            Failure::Exit { code, lines } => self.explain_exit(code, &lines, what),
        }
    }

    fn explain_exit(&self, code: i32, lines: &[String], what: &str) -> SourceError {
        let url = self.url;
        let (trouble, said) = trouble(lines);
        let secret = self.wanted.credentials.as_ref().map(|credentials| credentials.secret.as_str());
        let in_submodule = what.starts_with("submodule");
        let whose = if in_submodule { format!("a submodule of {url}") } else { url.to_string() };
        let (reason, message) = match (trouble, secret) {
            (Trouble::NoRevision, _) if !in_submodule => return self.no_revision(),
            (Trouble::NoRevision, _) => {
                ("RevisionNotFound", format!("{whose} is at a commit that its repository does not have"))
            }
            (Trouble::Denied, None) => (
                "SourceAuth",
                format!(
                    "{whose} needs credentials, or does not exist: name a Secret in spec.source.git.credentialsSecret, or check the address"
                ),
            ),
            (Trouble::Denied, Some(secret)) if in_submodule => (
                "SourceAuth",
                format!(
                    "{whose} does not open to the credentials of Secret {secret:?}, which are told to the scheme, host and port of {url} alone"
                ),
            ),
            (Trouble::Denied, Some(secret)) => (
                "SourceAuth",
                format!(
                    "{whose} refused the credentials of Secret {secret:?}: check that they are right and may read it"
                ),
            ),
            (Trouble::UnknownHostKey, secret) => (
                "SourceAuth",
                format!(
                    "the host key of {whose} is not in known_hosts of Secret {:?}: add it if it is the right one (ssh-keyscan prints it)",
                    secret.unwrap_or_default()
                ),
            ),
            (Trouble::UntrustedCertificate, _) => (
                "SourceAuth",
                format!(
                    "the certificate of the server of {whose} is not trusted: if it is the right one, the operator's setting sources.certificateAuthorities must have the authority that signed it"
                ),
            ),
            (Trouble::UnreadableKey, secret) => (
                "SourceAuth",
                format!(
                    "ssh can't read ssh-privatekey of Secret {:?}: it must be a private key without a passphrase, ending with a line break",
                    secret.unwrap_or_default()
                ),
            ),
            (Trouble::NotFound, _) => {
                ("SourceNotFound", format!("{whose} is not there: check the address, and that its host has this name"))
            }
            (Trouble::ForbiddenProtocol, _) => (
                "InvalidSpec",
                format!("{whose} has an address of a protocol that is not allowed here; use https or ssh"),
            ),
            (Trouble::Unavailable, _) => {
                (SOURCE_UNAVAILABLE, format!("the server of {whose} does not answer as it should"))
            }
            (Trouble::OnlyReferences, _) => (
                "RevisionNotFound",
                format!("the server of {whose} gives no commit by its id; set spec.source.git.depth to 0"),
            ),
            (Trouble::Other, _) => ("Internal", format!("git {what} of {url} failed with exit code {code}")),
        };
        let said = if said.is_empty() { String::new() } else { format!("; git said: {said}") };
        SourceError::git(reason, format!("{message}{said}"))
    }
}

fn fetch_argv(depth: u32, refspecs: &[&str]) -> Vec<String> {
    let mut argv: Vec<String> =
        ["fetch", "--no-progress", "--no-tags", "--no-recurse-submodules"].map(str::to_owned).to_vec();
    if depth > 0 {
        argv.push(format!("--depth={depth}"));
    }
    argv.extend(["--", "origin"].map(str::to_owned));
    argv.extend(refspecs.iter().map(|refspec| (*refspec).to_owned()));
    argv
}

/// Again after a while where the server did not answer.
fn patiently(run: impl Fn() -> Result<String, Failure>) -> Result<String, Failure> {
    for pause in PAUSES {
        match run() {
            Err(Failure::Exit { lines, .. }) if trouble(&lines).0 == Trouble::Unavailable => {
                println!("the server does not answer; it is asked again in {} s", pause.as_secs());
                std::thread::sleep(pause);
            }
            other => return other,
        }
    }
    run()
}
