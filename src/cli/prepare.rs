//! `image-factory prepare`: the first container of a build's Pod. It puts the agent and the source on the shared volume
//! and checks that the Build's paths lead somewhere, so that a builder is only started on what it can build.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use image_factory_core::pod::{
    AGENT_IN_IMAGE, BIN_FOLDER, CREDENTIALS, CREDENTIALS_FILE, HANDED_CREDENTIALS, OUT_FOLDER, PACKER_INIT_NAME,
    PACKER_PLAN_NAME, SOURCE_FOLDER, SPENT_NAME, TERMINATION_LOG, VOLUME,
};
use image_factory_core::report::{PodFailure, PrepareReport, SourceFacts};
use tokio::signal::unix::{SignalKind, signal};

use super::git_host::{AUTHORITIES_NAME, GitHost};
use crate::config::inline;
use crate::source::{self, Template, Wanted};

const AGENT_NAME: &str = "image-factory-agent";
const MARKER_NAME: &str = "started";
/// As a shell says of a process that SIGTERM ended.
const TERMINATED: u8 = 143;
/// Longer than a line of a commit's message needs to be.
const MAX_SUBJECT_CHARS: usize = 200;
/// Names at the top of the volume that have a meaning of their own.
const TAKEN: [&str; 8] = [
    BIN_FOLDER,
    SOURCE_FOLDER,
    OUT_FOLDER,
    MARKER_NAME,
    SPENT_NAME,
    AUTHORITIES_NAME,
    PACKER_PLAN_NAME,
    PACKER_INIT_NAME,
];

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where the volume that the Pod's containers share is mounted
    #[arg(long, default_value = VOLUME)]
    pub volume: PathBuf,
    /// Folder of the source that is built
    #[arg(long, default_value = ".")]
    pub context: String,
    /// Path in the context; left out for methods that need none
    #[arg(long)]
    pub dockerfile: Option<String>,
    /// A file for the top of the volume, as NAME=CONTENT: what a builder is configured by
    #[arg(long = "file", value_name = "NAME=CONTENT", value_parser = volume_file)]
    pub files: Vec<VolumeFile>,
    /// Text of a Packer template
    #[arg(long, value_name = "TEXT")]
    pub packer_template: Option<String>,
    /// A Packer template in the source, or a folder with its files
    #[arg(long, value_name = "PATH", conflicts_with = "packer_template")]
    pub packer_path: Option<String>,
    /// Plugins that a template may ask for, by the first parts of their address
    #[arg(long = "packer-plugin", value_name = "ADDRESS")]
    pub packer_plugins: Vec<String>,
    /// A file of a mounted Secret that a later container needs, and what to say where it is not there
    #[arg(long = "needs-secret", value_name = "PATH=SENTENCE", value_parser = needed)]
    pub needed: Vec<(PathBuf, String)>,
    /// The Git repository that is built; without it the source is the inline one
    #[arg(long)]
    pub git_url: Option<String>,
    /// Branch, tag or commit; without it the repository's default branch
    #[arg(long, requires = "git_url")]
    pub git_revision: Option<String>,
    /// Commits of history that are fetched; 0 fetches all
    #[arg(long, default_value_t = 1)]
    pub git_depth: u32,
    /// Fetch submodules too
    #[arg(long)]
    pub git_submodules: bool,
    #[command(flatten)]
    pub git: GitHost,
    /// How large the source may become
    #[arg(long, default_value_t = 10 * 1024)]
    pub git_mebibytes: u64,
    /// Put the push credentials where the agent takes them, instead of mounting them beside what the user brings
    #[arg(long)]
    pub hand_over_credentials: bool,
    /// How long fetching may take
    #[arg(long, default_value_t = 3_600)]
    pub timeout_seconds: u64,
    /// The agent that is put on the volume
    #[arg(long, default_value = AGENT_IN_IMAGE)]
    pub agent: PathBuf,
    /// Where the report is left
    #[arg(long, default_value = TERMINATION_LOG)]
    pub report: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeFile {
    pub name: String,
    pub content: String,
}

fn volume_file(text: &str) -> Result<VolumeFile, String> {
    let (name, content) = text.split_once('=').ok_or("it must be NAME=CONTENT")?;
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
    if name.is_empty() || !plain || name.starts_with('.') || TAKEN.contains(&name) {
        return Err(format!("{name:?} is no name for a file at the top of the volume"));
    }
    Ok(VolumeFile { name: name.to_owned(), content: content.to_owned() })
}

fn needed(text: &str) -> Result<(PathBuf, String), String> {
    let (path, sentence) = text.split_once('=').ok_or("it must be PATH=SENTENCE")?;
    Ok((path.into(), sentence.to_owned()))
}

/// Ends at once when the Pod is deleted: as the first process of its container nothing else would end it.
pub async fn run(arguments: Arguments) -> ExitCode {
    until_terminated(move || prepare_and_report(&arguments)).await
}

/// Does the work of a container, unless that is told to end before.
pub(super) async fn until_terminated(work: impl FnOnce() -> ExitCode + Send + 'static) -> ExitCode {
    let work = tokio::task::spawn_blocking(work);
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => signal.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        code = work => code.unwrap_or(ExitCode::FAILURE),
        _ = terminated => {
            println!("it was told to end");
            // Returning would wait for the work.
            std::process::exit(i32::from(TERMINATED))
        }
    }
}

fn prepare_and_report(arguments: &Arguments) -> ExitCode {
    let prepared = inline::chunks()
        .map_err(|error| PodFailure::new("Internal", error.to_string()))
        .and_then(|chunks| prepare(arguments, chunks));
    let (report, code) = match prepared {
        Ok(facts) => (PrepareReport::succeeded(facts), ExitCode::SUCCESS),
        Err(failure) => {
            // On stdout: this is a line of the build's log.
            println!("{}", failure.message);
            (PrepareReport::failed(failure), ExitCode::FAILURE)
        }
    };
    if let Err(error) = fs::write(&arguments.report, report.encode()) {
        println!("failed to write the report to {}: {error}", arguments.report.display());
        return ExitCode::FAILURE;
    }
    code
}

fn prepare(arguments: &Arguments, chunks: Option<Vec<String>>) -> Result<Option<SourceFacts>, PodFailure> {
    let began = Instant::now();
    let source_folder = arguments.volume.join(SOURCE_FOLDER);
    let bin_folder = arguments.volume.join(BIN_FOLDER);
    // Kubernetes runs all containers of a Pod again where its sandbox was lost. Before the builder was started that is
    // as good as the first time; after it, nobody knows what it had done.
    if arguments.volume.join(MARKER_NAME).exists() {
        return Err(PodFailure::new(
            "AgentLost",
            "the Pod was started anew after its builder had been started: a build runs once",
        ));
    }
    if let Some((_, sentence)) = arguments.needed.iter().find(|(path, _)| !path.exists()) {
        return Err(PodFailure::new("SecretNotFound", sentence));
    }
    match fs::remove_dir_all(&source_folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("clear", &source_folder, &error)),
        _ => {}
    }

    make_folder(&bin_folder, 0o755)?;
    // Open to all: each container of the Pod may run as another user.
    make_folder(&source_folder, 0o777)?;
    make_folder(&arguments.volume.join(OUT_FOLDER), 0o777)?;
    copy_agent(&arguments.agent, &bin_folder).map_err(|error| failed("copy the agent", &arguments.agent, &error))?;
    if arguments.hand_over_credentials {
        hand_over(Path::new(HANDED_CREDENTIALS), Path::new(CREDENTIALS))?;
    }
    for file in &arguments.files {
        let path = arguments.volume.join(&file.name);
        fs::write(&path, &file.content).map_err(|error| failed("write", &path, &error))?;
    }

    let facts = if let Some(url) = &arguments.git_url {
        Some(fetch(arguments, url, &source_folder)?)
    } else {
        write_inline(chunks, &source_folder)?;
        None
    };
    let paths = source::check_paths(&source_folder, &arguments.context, arguments.dockerfile.as_deref())
        .map_err(|error| PodFailure::from(&error))?;
    match &arguments.dockerfile {
        Some(dockerfile) => println!("context: {}, dockerfile: {dockerfile}", arguments.context),
        None => println!("context: {}", arguments.context),
    }
    let template = arguments.packer_template.clone().map(Template::Inline);
    if let Some(template) = template.or_else(|| arguments.packer_path.clone().map(Template::Path)) {
        plan(arguments, &source_folder, &paths.context, &template)?;
    }
    // The timeout is the whole run's.
    let spent = arguments.volume.join(SPENT_NAME);
    fs::write(&spent, began.elapsed().as_millis().to_string()).map_err(|error| failed("write", &spent, &error))?;
    Ok(facts)
}

/// A Secret that is not there is not handed over: the agent says so.
fn hand_over(from: &Path, to: &Path) -> Result<(), PodFailure> {
    let (from, to) = (from.join(CREDENTIALS_FILE), to.join(CREDENTIALS_FILE));
    match fs::read(&from) {
        // Open to all: the agent, who is another user, empties it.
        Ok(document) => fs::write(&to, document)
            .and_then(|()| fs::set_permissions(&to, fs::Permissions::from_mode(0o666)))
            .map_err(|error| failed("write", &to, &error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("read", &from, &error)),
    }
}

/// Leaves what of the template the containers after this one have to know.
fn plan(arguments: &Arguments, source: &Path, context: &Path, template: &Template) -> Result<(), PodFailure> {
    let plan = source::check_template(source, context, template, &arguments.packer_plugins)
        .map_err(|error| PodFailure::from(&error))?;
    let write = |name: &str, text: &str| {
        let path = arguments.volume.join(name);
        fs::write(&path, text).map_err(|error| failed("write", &path, &error))
    };
    let document = serde_json::to_string(&plan).map_err(|error| PodFailure::new("Internal", error.to_string()))?;
    write(PACKER_PLAN_NAME, &document)?;
    if plan.needs_init {
        write(PACKER_INIT_NAME, "")?;
    }
    Ok(())
}

fn write_inline(chunks: Option<Vec<String>>, folder: &Path) -> Result<(), PodFailure> {
    let chunks = chunks
        .filter(|chunks| !chunks.is_empty())
        .ok_or_else(|| PodFailure::new("Internal", "failed to find a source: this Pod was given none"))?;
    let files = source::decode_inline(&chunks).map_err(|error| PodFailure::from(&error))?;
    source::write_inline(folder, &files).map_err(|error| PodFailure::from(&error))?;
    let bytes: usize = files.values().map(String::len).sum();
    println!("source: {}, {}, inline", counted(files.len(), "file"), counted(bytes, "byte"));
    Ok(())
}

fn fetch(arguments: &Arguments, url: &str, folder: &Path) -> Result<SourceFacts, PodFailure> {
    let deadline = Instant::now() + Duration::from_secs(arguments.timeout_seconds);
    let max_bytes = arguments.git_mebibytes.saturating_mul(1024 * 1024);
    let wanted = Wanted {
        revision: arguments.git_revision.clone(),
        depth: arguments.git_depth,
        submodules: arguments.git_submodules,
        ..arguments.git.wanted(url, &arguments.volume, deadline, max_bytes)?
    };
    let facts = source::fetch_git(folder, &wanted).map_err(|error| PodFailure::from(&error))?;
    let place = facts.branch.as_ref().map(|branch| format!(" of {branch}")).unwrap_or_default();
    println!("source: commit {}{place}, by {}", facts.commit, facts.author);
    let subject: String = facts.message.lines().next().unwrap_or_default().chars().take(MAX_SUBJECT_CHARS).collect();
    println!("source: {subject}");
    Ok(facts)
}

pub(super) fn failed(action: &str, path: &Path, error: &io::Error) -> PodFailure {
    PodFailure::new("Internal", format!("failed to {action} {}: {error}", path.display()))
}

fn make_folder(folder: &Path, mode: u32) -> Result<(), PodFailure> {
    // Permissions apart from creation: the umask would take some away.
    fs::create_dir_all(folder)
        .and_then(|()| fs::set_permissions(folder, fs::Permissions::from_mode(mode)))
        .map_err(|error| failed("make the folder", folder, &error))
}

fn copy_agent(agent: &Path, folder: &Path) -> io::Result<()> {
    let unfinished = folder.join(format!(".{AGENT_NAME}"));
    fs::copy(agent, &unfinished)?;
    fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o755))?;
    fs::rename(unfinished, folder.join(AGENT_NAME))
}

fn counted(number: usize, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    struct Pod {
        folder: PathBuf,
        arguments: Arguments,
    }

    impl Pod {
        fn new(test: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("prepare-test-{test}-{}", std::process::id()));
            fs::create_dir_all(folder.join("volume")).expect("makes the volume");
            fs::write(folder.join("agent"), "the agent").expect("writes");
            let arguments = Arguments {
                volume: folder.join("volume"),
                context: ".".into(),
                dockerfile: Some("Dockerfile".into()),
                files: vec![VolumeFile { name: "builder.toml".into(), content: "a = 1".into() }],
                packer_template: None,
                packer_path: None,
                packer_plugins: Vec::new(),
                needed: Vec::new(),
                git_url: None,
                git_revision: None,
                git_depth: 1,
                git_submodules: false,
                git: GitHost {
                    insecure_protocols: Vec::new(),
                    authorities: None,
                    secret: None,
                    credentials: folder.join("git"),
                },
                git_mebibytes: 1,
                hand_over_credentials: false,
                timeout_seconds: 60,
                agent: folder.join("agent"),
                report: folder.join("report"),
            };
            Self { folder, arguments }
        }

        fn prepare(&self, files: &[(&str, &str)]) -> Result<Option<SourceFacts>, PodFailure> {
            let files: BTreeMap<String, String> =
                files.iter().map(|(path, text)| ((*path).into(), (*text).into())).collect();
            prepare(&self.arguments, Some(source::encode_inline(&files)))
        }

        fn mode(&self, path: &str) -> u32 {
            fs::metadata(self.arguments.volume.join(path)).expect("is there").permissions().mode() & 0o777
        }
    }

    impl Drop for Pod {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }

    #[test]
    fn the_volume_is_laid_out_for_every_container() {
        let pod = Pod::new("layout");
        pod.prepare(&[("Dockerfile", "FROM scratch"), ("src/a", "b")]).expect("prepares");
        let read = |path: &str| fs::read_to_string(pod.arguments.volume.join(path)).expect("reads");
        assert_eq!(read("source/src/a"), "b");
        assert_eq!(read("builder.toml"), "a = 1");
        assert_eq!(read("bin/image-factory-agent"), "the agent");
        assert_eq!((pod.mode("bin/image-factory-agent"), pod.mode("source"), pod.mode("out")), (0o755, 0o777, 0o777));
    }

    #[test]
    fn a_missing_dockerfile_is_a_failure_with_a_reason() {
        let pod = Pod::new("dockerfile");
        let failure = pod.prepare(&[("Containerfile", "FROM scratch")]).expect_err("fails");
        assert_eq!(failure.reason, "DockerfileNotFound");
        assert!(failure.message.ends_with("has Containerfile"), "{}", failure.message);
    }

    #[test]
    fn what_a_template_asks_for_is_left_for_the_containers_after() {
        let mut pod = Pod::new("packer");
        pod.arguments.dockerfile = None;
        pod.arguments.packer_path = Some("images".into());
        pod.arguments.packer_plugins = vec!["example.test/a".into()];
        let build = "build {\n  post-processor \"manifest\" { output = \"m.json\" }\n}\n";
        pod.prepare(&[("images/a.pkr.hcl", build)]).expect("prepares");
        let volume = pod.arguments.volume.clone();
        let plan = || fs::read_to_string(volume.join("packer.json")).expect("reads");
        assert_eq!(plan(), r#"{"manifests":["m.json"],"needs_init":false}"#);
        assert!(!volume.join("packer-init").exists());
        let plugins = "packer {\n  required_plugins {\n    a = { source = \"example.test/a/b\" }\n  }\n}\n";
        pod.prepare(&[("images/a.pkr.hcl", build), ("images/b.pkr.hcl", plugins)]).expect("prepares");
        assert!(plan().contains("true") && volume.join("packer-init").exists());
        pod.arguments.packer_plugins.clear();
        let failure = pod.prepare(&[("images/a.pkr.hcl", build), ("images/b.pkr.hcl", plugins)]).expect_err("fails");
        assert_eq!(failure.reason, "BuilderNotAllowed");
    }

    #[test]
    fn a_secret_that_a_later_container_needs_is_missed_before_anything_is_done() {
        let mut pod = Pod::new("needed");
        pod.arguments.needed = vec![needed("/nowhere/config.json=there is no such Secret").expect("parses")];
        let failure = pod.prepare(&[("Dockerfile", "FROM scratch")]).expect_err("fails");
        assert_eq!((failure.reason.as_str(), failure.message.as_str()), ("SecretNotFound", "there is no such Secret"));
        assert!(!pod.arguments.volume.join("source").exists());
    }

    #[test]
    fn a_second_preparation_replaces_the_source_until_the_builder_has_started() {
        let pod = Pod::new("again");
        pod.prepare(&[("Dockerfile", "FROM old"), ("gone", "")]).expect("prepares");
        pod.prepare(&[("Dockerfile", "FROM new")]).expect("prepares again");
        let source = pod.arguments.volume.join("source");
        assert_eq!(fs::read_to_string(source.join("Dockerfile")).expect("reads"), "FROM new");
        assert!(!source.join("gone").exists());
        fs::write(pod.arguments.volume.join("started"), "").expect("writes");
        let failure = pod.prepare(&[("Dockerfile", "FROM newer")]).expect_err("is refused");
        assert_eq!(failure.reason, "AgentLost");
        assert_eq!(fs::read_to_string(source.join("Dockerfile")).expect("reads"), "FROM new");
    }

    #[test]
    fn credentials_are_handed_over_where_there_are_any() {
        let pod = Pod::new("handover");
        let (from, to) = (pod.folder.join("from"), pod.folder.join("to"));
        for folder in [&from, &to] {
            fs::create_dir_all(folder).expect("makes");
        }
        hand_over(&from, &to).expect("has nothing to do");
        assert!(!to.join(CREDENTIALS_FILE).exists());
        fs::write(from.join(CREDENTIALS_FILE), "{}").expect("writes");
        hand_over(&from, &to).expect("hands over");
        assert_eq!(fs::read_to_string(to.join(CREDENTIALS_FILE)).expect("reads"), "{}");
    }

    #[test]
    fn a_file_for_the_volume_has_a_plain_name_of_its_own() {
        let file = volume_file("buildkitd.toml=a = \"b\"\n").expect("is accepted");
        assert_eq!((file.name.as_str(), file.content.as_str()), ("buildkitd.toml", "a = \"b\"\n"));
        for text in ["", "name", "=content", "../up=x", "a/b=x", ".hidden=x", "source=x", "started=x"] {
            assert!(volume_file(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_pod_without_a_source_fails_and_leaves_a_report() {
        let pod = Pod::new("none");
        // Nothing sets the variables of an inline source for the tests' own process.
        assert_eq!(format!("{:?}", prepare_and_report(&pod.arguments)), format!("{:?}", ExitCode::FAILURE));
        let report = PrepareReport::decode(&fs::read(&pod.arguments.report).expect("reads")).expect("decodes");
        assert_eq!(report.failure.map(|failure| failure.reason), Some("Internal".into()));
    }
}
