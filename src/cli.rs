//! The command line: one subcommand a process.

pub mod crds;

use std::path::PathBuf;

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
}

pub fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Crds { dir } => crds::run(dir),
    }
}
