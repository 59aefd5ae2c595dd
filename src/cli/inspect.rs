//! `image-factory inspect`: the last container of a build's Pod, which alone holds the push credentials beside the
//! builder. It prints what the registry confirms as one line, or says in one sentence why it can't.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use image_factory_core::pod::TERMINATION_LOG;
use image_factory_core::report::{InspectFailure, PodFailure};

use crate::registry::{self, DigestSource};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Repository and tag that were pushed
    #[arg(long)]
    pub image: String,
    /// Where the builder wrote the digest: file:PATH or buildx:PATH
    #[arg(long)]
    pub digest_from: DigestSource,
    /// Accept any certificate, or plain http where there is no TLS
    #[arg(long)]
    pub insecure: bool,
    /// Folder with the config.json that holds the push credentials
    #[arg(long)]
    pub docker_config: Option<PathBuf>,
    /// Where the report of a failure is left
    #[arg(long, default_value = TERMINATION_LOG)]
    pub report: PathBuf,
}

pub async fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match inspect(arguments).await {
        Ok(line) => {
            println!("{line}");
            Ok(ExitCode::SUCCESS)
        }
        Err(failure) => {
            eprintln!("{}", failure.message);
            fs::write(&arguments.report, InspectFailure::new(failure).encode())?;
            Ok(ExitCode::FAILURE)
        }
    }
}

async fn inspect(arguments: &Arguments) -> Result<String, PodFailure> {
    let config = arguments.docker_config.as_deref();
    let inspection = registry::inspect(&arguments.image, &arguments.digest_from, arguments.insecure, config)
        .await
        .map_err(|error| PodFailure::from(&error))?;
    inspection.encode().map_err(|error| PodFailure::new("Internal", error.to_string()))
}
