//! `image-factory git-credential`: what git runs in a build's Pod when a server asks for a password. Only the question
//! `get` is answered, and only for the server that the password is for.

use std::io::{self, Read, Write};
use std::path::PathBuf;

use image_factory_core::git::Origin;

use crate::source;

/// git's questions are a few short lines.
const MAX_QUESTION_BYTES: u64 = 64 * 1024;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The server that the credential is for, as scheme://host:port
    #[arg(long)]
    pub origin: Origin,
    /// Folder with the files username and password
    #[arg(long)]
    pub folder: PathBuf,
    /// What git wants: get, store or erase
    pub operation: String,
}

/// # Errors
/// When the question can't be read, or nobody takes the answer.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if arguments.operation != "get" {
        return Ok(());
    }
    let mut question = Vec::new();
    io::stdin().take(MAX_QUESTION_BYTES).read_to_end(&mut question)?;
    let question = String::from_utf8_lossy(&question);
    if let Some(answer) = source::answer(&arguments.origin, &arguments.folder, &question) {
        io::stdout().write_all(&answer)?;
    }
    Ok(())
}
