//! `image-factory git-credential`: what git runs in a build's Pod when a server asks for a password. Only the question
//! `get` is answered, and only for the server that the password is for.

use std::io::{self, Read};
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
/// When the question can't be read.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if arguments.operation != "get" {
        return Ok(());
    }
    let mut question = String::new();
    io::stdin().take(MAX_QUESTION_BYTES).read_to_string(&mut question)?;
    if let Some(answer) = source::answer(&arguments.origin, &arguments.folder, &question) {
        print!("{answer}");
    }
    Ok(())
}
