//! `image-factory heads`: in a Pod of its own, with the credentials of a WebhookConfig's source, it looks at the heads of
//! the repository's branches and says them in its log.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use image_factory_core::pod::{TERMINATION_LOG, VOLUME};
use image_factory_core::report::{PodFailure, PrepareReport};
use image_factory_core::trigger::heads;

use super::git_host::GitHost;
use super::prepare;
use crate::source;

/// Names and commits alone: git writes hardly anything.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// An empty folder to work in
    #[arg(long, default_value = VOLUME)]
    pub volume: PathBuf,
    /// The Git repository
    #[arg(long)]
    pub git_url: String,
    /// A glob of the branches that count; without any, all
    #[arg(long = "branch")]
    pub branches: Vec<String>,
    #[command(flatten)]
    pub git: GitHost,
    /// How long it may take
    #[arg(long, default_value_t = 60)]
    pub timeout_seconds: u64,
    /// Where a failure is told
    #[arg(long, default_value = TERMINATION_LOG)]
    pub report: PathBuf,
}

/// Ends at once when the Pod is deleted.
pub async fn run(arguments: Arguments) -> ExitCode {
    prepare::until_terminated(move || match look(&arguments) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{}", failure.message);
            if let Err(error) = fs::write(&arguments.report, PrepareReport::failed(failure).encode()) {
                println!("failed to write the report to {}: {error}", arguments.report.display());
            }
            ExitCode::FAILURE
        }
    })
    .await
}

fn look(arguments: &Arguments) -> Result<String, PodFailure> {
    let deadline = Instant::now() + Duration::from_secs(arguments.timeout_seconds);
    let wanted = arguments.git.wanted(&arguments.git_url, &arguments.volume, deadline, MAX_BYTES)?;
    let listed = source::list_heads(&arguments.volume, &wanted).map_err(|error| PodFailure::from(&error))?;
    let chosen = heads::chosen(&listed, &arguments.branches)
        .map_err(|too_many| PodFailure::new("InvalidSpec", too_many.to_string()))?;
    Ok(heads::written(&chosen))
}
