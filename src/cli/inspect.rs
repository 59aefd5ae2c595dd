//! `image-factory inspect`: the last container of a build's Pod, which alone holds the push credentials beside the
//! builder. What Packer left behind it pushes first. It prints what the registry confirms as one line, or says in one sentence why it can't.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use image_factory_core::mirrors::Mirror;
use image_factory_core::packer::Plan;
use image_factory_core::pod::{SOURCE, TERMINATION_LOG};
use image_factory_core::report::{InspectFailure, PodFailure};

use crate::registry::{self, DigestSource, Dockerfile, Leavings, Pushed};

const MAX_PLAN_BYTES: u64 = 1024 * 1024;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Repository and tag that were pushed
    #[arg(long)]
    pub image: String,
    /// Where the builder wrote the digest: file:PATH, buildx:PATH or lifecycle:PATH; packer:PATH to push what Packer
    /// left, by what `prepare` found out of its template
    #[arg(long)]
    pub digest_from: Origin,
    /// The folder that Packer ran in
    #[arg(long, default_value = SOURCE)]
    pub context: PathBuf,
    /// A label of the image, as NAME=VALUE
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = pair)]
    pub labels: Vec<(String, String)>,
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
    #[arg(long = "build-arg", value_name = "NAME=VALUE", value_parser = pair, requires = "dockerfile")]
    pub build_args: Vec<(String, String)>,
    /// A registry (host or host:port) of which any certificate is accepted, or plain http where there is no TLS
    #[arg(long = "insecure-registry", value_name = "HOST")]
    pub insecure_registries: Vec<String>,
    /// Where the base image is looked for first, as registry=host[:port][/path]
    #[arg(long = "registry-mirror", value_name = "REGISTRY=PLACE", requires = "dockerfile")]
    pub mirrors: Vec<Mirror>,
    /// Folder with the config.json that holds the push credentials
    #[arg(long)]
    pub docker_config: Option<PathBuf>,
    /// Where the report of a failure is left
    #[arg(long, default_value = TERMINATION_LOG)]
    pub report: PathBuf,
}

/// What says what was pushed.
#[derive(Debug, Clone)]
pub enum Origin {
    Reported(DigestSource),
    Packer(PathBuf),
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("packer", path)) if !path.is_empty() => Ok(Self::Packer(path.into())),
            _ => text.parse().map(Self::Reported),
        }
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("it must be NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let report = arguments.report.clone();
    match inspect(arguments).await {
        Ok(line) => {
            println!("{line}");
            Ok(ExitCode::SUCCESS)
        }
        Err(failure) => {
            eprintln!("{}", failure.message);
            fs::write(&report, InspectFailure::new(failure).encode())?;
            Ok(ExitCode::FAILURE)
        }
    }
}

async fn inspect(arguments: Arguments) -> Result<String, PodFailure> {
    let pushed = Pushed {
        image: arguments.image,
        tags: arguments.tags,
        platforms: arguments.platforms,
        dockerfile: arguments.dockerfile.map(|path| Dockerfile {
            path,
            target: arguments.target,
            build_args: arguments.build_args.into_iter().collect(),
        }),
        insecure_registries: arguments.insecure_registries,
        mirrors: arguments.mirrors,
        docker_config: arguments.docker_config,
    };
    let inspection = match arguments.digest_from {
        Origin::Reported(written) => registry::inspect(&pushed, &written).await,
        Origin::Packer(plan) => {
            let Plan { manifests, .. } = read_plan(&plan)?;
            let labels = arguments.labels.into_iter().collect();
            registry::push(&Leavings { context: arguments.context, manifests, labels }, &pushed).await
        }
    };
    let inspection = inspection.map_err(|error| PodFailure::from(&error))?;
    inspection.encode().map_err(|error| PodFailure::new("Internal", error.to_string()))
}

fn read_plan(path: &Path) -> Result<Plan, PodFailure> {
    let unreadable =
        |problem: String| PodFailure::new("Internal", format!("failed to read {}: {problem}", path.display()));
    let text = registry::ordinary_file(path, MAX_PLAN_BYTES).map_err(unreadable)?;
    serde_json::from_slice(&text).map_err(|error| unreadable(error.to_string()))
}
