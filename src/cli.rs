//! The command line: one subcommand a process.

pub mod crds;
pub mod git_credential;
mod git_host;
pub mod git_ssh;
pub mod heads;
pub mod inspect;
pub mod logs;
pub mod migrate;
pub mod operator;
pub mod prepare;
pub mod schedules;
pub mod verify;
pub mod webhooks;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::config;

/// Builds container images on Kubernetes and keeps every build's whole history in Postgres.
#[derive(Parser)]
#[command(name = "image-factory", version)]
pub struct Cli {
    /// What is logged: a level, or a filter such as info,image_factory=debug
    #[arg(long, env = "IMAGE_FACTORY_LOG_LEVEL", default_value = "info", global = true)]
    pub log_level: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the operator
    Operator(Box<config::Operator>),
    /// Bring the database up to date
    Migrate(config::Database),
    /// Print the custom resource definitions, or write them where they are kept
    Crds {
        /// Folder to write into, beside the chart: crds in a checkout of this repository
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// Print the log of a build, as it grows where asked, also of one that has ended or was deleted
    Logs(logs::Arguments),
    /// What a schedule means
    #[command(subcommand)]
    Schedules(schedules::Command),
    /// Check that the database and the cluster are as they must be; exits with 1 where they are not
    Verify(verify::Arguments),
    /// What webhooks received
    Webhooks(webhooks::Arguments),
    /// Inside a build's Pod: put the agent and the source on the shared volume
    Prepare(prepare::Arguments),
    /// Inside a Pod of a webhook: look at the heads of a repository's branches
    Heads(heads::Arguments),
    /// Inside a build's Pod: tell git a password
    #[command(hide = true)]
    GitCredential(git_credential::Arguments),
    /// Inside a build's Pod: ssh for git, to one server
    #[command(hide = true)]
    GitSsh(git_ssh::Arguments),
    /// Inside a build's Pod: confirm in the registry what was pushed, and describe it
    Inspect(inspect::Arguments),
}

/// Runs the subcommand.
///
/// # Errors
/// What the subcommand could not do.
pub async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Operator(config) => operator::run(*config).await?,
        Command::Migrate(database) => migrate::run(&database).await?,
        Command::Crds { dir } => crds::run(dir)?,
        Command::Logs(arguments) => return logs::run(arguments).await,
        Command::Schedules(command) => schedules::run(command).await?,
        Command::Verify(arguments) => return verify::run(&arguments).await,
        Command::Webhooks(arguments) => webhooks::run(&arguments).await?,
        Command::Prepare(arguments) => return Ok(prepare::run(arguments).await),
        Command::Heads(arguments) => return Ok(heads::run(arguments).await),
        Command::GitCredential(arguments) => git_credential::run(&arguments)?,
        Command::GitSsh(arguments) => return Ok(git_ssh::run(&arguments)),
        Command::Inspect(arguments) => return inspect::run(arguments).await,
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    #[test]
    fn no_command_has_two_arguments_of_one_name() {
        Cli::command().debug_assert();
    }
}
