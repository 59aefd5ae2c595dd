//! Parses the command line and hands over.

use std::process::ExitCode;

use clap::Parser;
use image_factory::cli::{self, Cli};

fn main() -> anyhow::Result<ExitCode> {
    // kube and the registry client are linked with rustls; without a choice made here it would find none, or two.
    let _ = rustls::crypto::ring::default_provider().install_default();
    cli::run(Cli::parse())
}
