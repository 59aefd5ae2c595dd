//! `image-factory inspect`: the last container of a build's Pod, which alone holds the push credentials beside the
//! builder. It prints what the registry confirms as one line, or says in one sentence why it can't.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use image_factory_core::pod::TERMINATION_LOG;
use image_factory_core::report::{InspectFailure, PodFailure};

use crate::registry::{self, DigestSource, Dockerfile, Pushed};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Repository and tag that were pushed
    #[arg(long)]
    pub image: String,
    /// Where the builder wrote the digest: file:PATH, buildx:PATH or lifecycle:PATH
    #[arg(long)]
    pub digest_from: DigestSource,
    /// A further tag of that repository that was pushed
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// A platform that was asked for
    #[arg(long = "platform", value_name = "OS/ARCHITECTURE[/VARIANT]")]
    pub platforms: Vec<String>,
    /// The Dockerfile it was built from, where there is one
    #[arg(long)]
    pub dockerfile: Option<PathBuf>,
    /// The stage that was built; without it the last
    #[arg(long, requires = "dockerfile")]
    pub target: Option<String>,
    /// An argument of the build, as NAME=VALUE
    #[arg(long = "build-arg", value_name = "NAME=VALUE", value_parser = build_arg, requires = "dockerfile")]
    pub build_args: Vec<(String, String)>,
    /// A registry (host or host:port) of which any certificate is accepted, or plain http where there is no TLS
    #[arg(long = "insecure-registry", value_name = "HOST")]
    pub insecure_registries: Vec<String>,
    /// Folder with the config.json that holds the push credentials
    #[arg(long)]
    pub docker_config: Option<PathBuf>,
    /// Where the report of a failure is left
    #[arg(long, default_value = TERMINATION_LOG)]
    pub report: PathBuf,
}

fn build_arg(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("it must be NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let pushed = Pushed {
        image: arguments.image,
        tags: arguments.tags,
        digest: arguments.digest_from,
        platforms: arguments.platforms,
        dockerfile: arguments.dockerfile.map(|path| Dockerfile {
            path,
            target: arguments.target,
            build_args: arguments.build_args.into_iter().collect(),
        }),
        insecure_registries: arguments.insecure_registries,
        docker_config: arguments.docker_config,
    };
    match inspect(&pushed).await {
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

async fn inspect(pushed: &Pushed) -> Result<String, PodFailure> {
    let inspection = registry::inspect(pushed).await.map_err(|error| PodFailure::from(&error))?;
    inspection.encode().map_err(|error| PodFailure::new("Internal", error.to_string()))
}
