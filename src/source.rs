//! Bringing the source into a build's Pod: how an inline source travels and is written, how one is fetched from Git, and
//! whether a Build's paths point into what arrived. This file decides which of it is whose fault.

mod git;
mod inline;
mod packer;
mod paths;

use std::io;
use std::path::Path;

use image_factory_core::report::PodFailure;

pub use git::{Credentials, Wanted, answer, check_git, fetch_git, list_heads, ssh_arguments};
pub use inline::{MAX_INLINE_BYTES, check_inline, decode_inline, encode_inline, write_inline};
pub use packer::{Template, check_template};
pub use paths::{CheckedPaths, check_paths};

#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("{0}")]
    InvalidSpec(String),
    #[error("{0}")]
    BuilderNotAllowed(String),
    #[error("{0}")]
    DockerfileNotFound(String),
    #[error("{message}")]
    Git { reason: &'static str, message: String },
    #[error("failed to unpack the inline source: {0}")]
    Encoding(String),
    #[error("failed to {action} {path}: {error}")]
    Io { action: &'static str, path: String, error: io::Error },
}

impl SourceError {
    pub fn reason(&self) -> &'static str {
        match self {
            Self::InvalidSpec(_) => "InvalidSpec",
            Self::BuilderNotAllowed(_) => "BuilderNotAllowed",
            Self::Git { reason, .. } => reason,
            Self::DockerfileNotFound(_) => "DockerfileNotFound",
            Self::Encoding(_) | Self::Io { .. } => "Internal",
        }
    }

    fn git(reason: &'static str, message: String) -> Self {
        Self::Git { reason, message }
    }

    fn io(action: &'static str, path: &Path, error: io::Error) -> Self {
        Self::Io { action, path: path.display().to_string(), error }
    }
}

impl From<&SourceError> for PodFailure {
    fn from(error: &SourceError) -> Self {
        Self::new(error.reason(), error.to_string())
    }
}

/// A folder of its own for every test.
#[cfg(test)]
mod scratch {
    use std::fs;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};

    pub struct Folder(pub PathBuf);

    impl Folder {
        pub fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let name = format!("source-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).expect("makes the folder");
            Self(path.canonicalize().expect("is there"))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}
