//! The command line: one subcommand a process.

pub mod crds;
pub mod inspect;
pub mod prepare;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "image-factory", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print the custom resource definitions, or write them where they are kept.
    Crds {
        /// Folder to write into, beside the chart: crds in a checkout of this repository.
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// In a build's Pod: put the agent and the source on the shared volume, and check the Build's paths.
    Prepare(prepare::Arguments),
    /// In a build's Pod: confirm in the registry what was pushed, and describe it.
    Inspect(inspect::Arguments),
}

pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Crds { dir } => crds::run(dir).map(|()| ExitCode::SUCCESS),
        Command::Prepare(arguments) => Ok(prepare::run(&arguments)),
        Command::Inspect(arguments) => inspect::run(&arguments),
    }
}
