//! `image-factory prepare`: the first container of a build's Pod. It puts the agent and the source on the shared volume
//! and checks that the Build's paths lead somewhere, so that a builder is only started on what it can build.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use image_factory_core::pod::{AGENT_IN_IMAGE, BIN_FOLDER, OUT_FOLDER, SOURCE_FOLDER, TERMINATION_LOG, VOLUME};
use image_factory_core::report::{PodFailure, PrepareReport};

use crate::config;
use crate::source;

const AGENT_NAME: &str = "image-factory-agent";

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
    /// A file of the operator's own making, put on the volume as NAME=CONTENT: a daemon's configuration
    #[arg(long = "file", value_name = "NAME=CONTENT", value_parser = named_file)]
    pub files: Vec<(String, String)>,
    /// The agent that is put on the volume
    #[arg(long, default_value = AGENT_IN_IMAGE)]
    pub agent: PathBuf,
    /// Where the report is left
    #[arg(long, default_value = TERMINATION_LOG)]
    pub report: PathBuf,
}

pub fn run(arguments: &Arguments) -> ExitCode {
    let prepared = config::inline::chunks()
        .map_err(|error| internal(&error))
        .and_then(|chunks| prepare(arguments, chunks));
    let (report, code) = match prepared {
        Ok(()) => (PrepareReport::succeeded(None), ExitCode::SUCCESS),
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

/// `NAME=CONTENT`, where the name is one word that stays on the volume.
fn named_file(text: &str) -> Result<(String, String), String> {
    let (name, content) = text.split_once('=').ok_or("expected NAME=CONTENT")?;
    let plain = name.starts_with(|char: char| char.is_ascii_alphanumeric())
        && name.chars().all(|char| char.is_ascii_alphanumeric() || "._-".contains(char));
    if plain { Ok((name.to_owned(), content.to_owned())) } else { Err(format!("{name:?} is no file name")) }
}

fn prepare(arguments: &Arguments, chunks: Option<Vec<String>>) -> Result<(), PodFailure> {
    let source_folder = arguments.volume.join(SOURCE_FOLDER);
    let bin_folder = arguments.volume.join(BIN_FOLDER);
    make_folder(&bin_folder, 0o755)?;
    // Open to all: each container of the Pod may run as another user.
    make_folder(&source_folder, 0o777)?;
    make_folder(&arguments.volume.join(OUT_FOLDER), 0o777)?;
    copy_agent(&arguments.agent, &bin_folder)
        .map_err(|error| PodFailure::new("Internal", format!("failed to copy the agent {}: {error}", arguments.agent.display())))?;

    for (name, content) in &arguments.files {
        let place = arguments.volume.join(name);
        fs::write(&place, content)
            .map_err(|error| PodFailure::new("Internal", format!("failed to write {}: {error}", place.display())))?;
    }

    let chunks = chunks.ok_or_else(|| PodFailure::new("Internal", "failed to find a source: this Pod was given none"))?;
    let files = source::decode_inline(&chunks).map_err(|error| PodFailure::from(&error))?;
    source::write_inline(&source_folder, &files).map_err(|error| PodFailure::from(&error))?;
    let bytes: usize = files.values().map(String::len).sum();
    println!("source: {}, {}, inline", counted(files.len(), "file"), counted(bytes, "byte"));

    source::check_paths(&source_folder, &arguments.context, arguments.dockerfile.as_deref())
        .map_err(|error| PodFailure::from(&error))?;
    match &arguments.dockerfile {
        Some(dockerfile) => println!("context: {}, dockerfile: {dockerfile}", arguments.context),
        None => println!("context: {}", arguments.context),
    }
    Ok(())
}

fn internal(error: &dyn std::error::Error) -> PodFailure {
    PodFailure::new("Internal", error.to_string())
}

fn make_folder(folder: &Path, mode: u32) -> Result<(), PodFailure> {
    // Permissions apart from creation: the umask would take some away.
    fs::create_dir_all(folder)
        .and_then(|()| fs::set_permissions(folder, fs::Permissions::from_mode(mode)))
        .map_err(|error| PodFailure::new("Internal", format!("failed to make the folder {}: {error}", folder.display())))
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
                agent: folder.join("agent"),
                report: folder.join("report"),
            };
            Self { folder, arguments }
        }

        fn prepare(&self, files: &[(&str, &str)]) -> Result<(), PodFailure> {
            let files: BTreeMap<String, String> = files.iter().map(|(path, text)| ((*path).into(), (*text).into())).collect();
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
        assert_eq!(read("bin/image-factory-agent"), "the agent");
        assert_eq!(
            (pod.mode("bin/image-factory-agent"), pod.mode("source"), pod.mode("out")),
            (0o755, 0o777, 0o777)
        );
    }

    #[test]
    fn a_missing_dockerfile_is_a_failure_with_a_reason() {
        let pod = Pod::new("dockerfile");
        let failure = pod.prepare(&[("Containerfile", "FROM scratch")]).expect_err("fails");
        assert_eq!(failure.reason, "DockerfileNotFound");
        assert!(failure.message.ends_with("has Containerfile"), "{}", failure.message);
    }

    #[test]
    fn a_pod_without_a_source_fails_and_leaves_a_report() {
        let pod = Pod::new("none");
        // Nothing sets the variables of an inline source for the tests' own process.
        assert_eq!(format!("{:?}", run(&pod.arguments)), format!("{:?}", ExitCode::FAILURE));
        let report = PrepareReport::decode(&fs::read(&pod.arguments.report).expect("reads")).expect("decodes");
        assert_eq!(report.failure.map(|failure| failure.reason), Some("Internal".into()));
    }
}
