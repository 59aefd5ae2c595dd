//! The branches of a repository and their commits, without fetching anything.

use std::path::Path;

use image_factory_core::git::{Reference, references};

use super::{
    super::SourceError,
    Command, Fetch, Wanted, check_git,
    command::{Failure, MAX_CAPTURED_BYTES},
    patiently,
};

/// What the server lists. `folder` need hold nothing.
pub fn list_heads(folder: &Path, wanted: &Wanted) -> Result<Vec<Reference>, SourceError> {
    let url = check_git(&wanted.url, None, wanted.credentials.is_some(), &wanted.insecure_protocols)?;
    let hidden = match &wanted.credentials {
        Some(credentials) => credentials.check(url.protocol())?,
        None => Vec::new(),
    };
    let git = Fetch { wanted, url: &url, command: Command::new(folder, wanted, &url, hidden) };
    let listed = patiently(|| git.command.capture(&["ls-remote", "--heads", "--", url.as_str()]));
    let too_many = || {
        let sentence = format!("{url} has more branches than are read: their list is longer than 1 MiB");
        SourceError::InvalidSpec(sentence)
    };
    match listed {
        Ok(listing) if listing.len() as u64 >= MAX_CAPTURED_BYTES => Err(too_many()),
        Ok(listing) => Ok(references(&listing)),
        // Nobody reads on.
        Err(Failure::Killed(13)) => Err(too_many()),
        Err(Failure::TimedOut) => {
            Err(SourceError::git("TimedOut", format!("the server of {url} took too long to list its branches")))
        }
        Err(failure) => Err(git.explain(failure, "ls-remote")),
    }
}
