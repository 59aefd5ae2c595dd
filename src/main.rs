//! Parses the command line, sets up logging and TLS, and hands over.

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use image_factory::cli::{self, Cli};
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    let filter: EnvFilter = cli.log_level.parse().context("failed to read IMAGE_FACTORY_LOG_LEVEL")?;
    tracing_subscriber::fmt().json().flatten_event(true).with_env_filter(filter).with_writer(std::io::stderr).init();
    // Two TLS providers could be linked; one is chosen before the first connection.
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a TLS provider was installed before the first line of main"))?;
    cli::run(cli).await
}
