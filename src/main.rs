//! Parses the command line and hands over.

use clap::Parser;
use image_factory::cli::{self, Cli};

fn main() -> anyhow::Result<()> {
    cli::run(Cli::parse())
}
