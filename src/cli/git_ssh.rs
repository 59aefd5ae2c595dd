//! `image-factory git-ssh`: what git runs in a build's Pod in place of ssh. It becomes ssh where git asks for the server
//! that the key is for, and ends with ssh's own code of a failure where it asks for another.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use image_factory_core::git::Origin;

use crate::source;

/// As ssh's where it could not connect.
const NO_CONNECTION: u8 = 255;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The server that the credentials are for, as scheme://host:port
    #[arg(long)]
    pub origin: Origin,
    /// Folder with the files ssh-privatekey and known_hosts, where there is a key
    #[arg(long)]
    pub folder: Option<PathBuf>,
    /// What git would have ssh do
    #[arg(last = true)]
    pub asked: Vec<String>,
}

/// Gives a code only where ssh was not started: this process becomes it.
pub fn run(arguments: &Arguments) -> ExitCode {
    match source::ssh_arguments(&arguments.origin, arguments.folder.as_deref(), &arguments.asked) {
        Ok(argv) => eprintln!("failed to start ssh: {}", Command::new("ssh").args(argv).exec()),
        Err(sentence) => eprintln!("{sentence}"),
    }
    ExitCode::from(NO_CONNECTION)
}
