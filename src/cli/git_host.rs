//! How a Pod reaches a Git host: the arguments that `prepare` and `heads` share, and what they ask git for by them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use image_factory_core::git::Protocol;
use image_factory_core::pod::GIT_CREDENTIALS;
use image_factory_core::report::PodFailure;

use super::prepare::failed;
use crate::source::{Credentials, Wanted};

/// At the top of the volume.
pub(super) const AUTHORITIES_NAME: &str = "git-authorities.pem";
/// The authorities that the operator's image trusts.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

#[derive(Debug, clap::Args)]
pub struct GitHost {
    /// A protocol that is allowed beside https and ssh
    #[arg(long = "git-insecure-protocol")]
    pub insecure_protocols: Vec<Protocol>,
    /// Certificate authorities in PEM that a server by https may be signed by, beside those of this system
    #[arg(long = "git-authorities", value_name = "PEM")]
    pub authorities: Option<String>,
    /// The Secret with the repository's credentials, where it has any
    #[arg(long = "git-secret")]
    pub secret: Option<String>,
    /// Where that Secret is mounted
    #[arg(long = "git-credentials", default_value = GIT_CREDENTIALS)]
    pub credentials: PathBuf,
}

impl GitHost {
    /// The whole history of the repository's default branch, without submodules. `volume` takes the authorities.
    ///
    /// # Errors
    /// When a file can't be read or written.
    pub fn wanted(&self, url: &str, volume: &Path, deadline: Instant, max_bytes: u64) -> Result<Wanted, PodFailure> {
        let helper = std::env::current_exe()
            .map_err(|error| PodFailure::new("Internal", format!("failed to find this program: {error}")))?;
        let folder = &self.credentials;
        Ok(Wanted {
            url: url.to_owned(),
            revision: None,
            depth: 0,
            submodules: false,
            insecure_protocols: self.insecure_protocols.clone(),
            credentials: self.secret.clone().map(|secret| Credentials { secret, folder: folder.clone() }),
            authorities: self.authorities.as_deref().map(|pem| trusted(volume, pem)).transpose()?,
            helper,
            deadline,
            max_bytes,
        })
    }
}

/// git takes one file, and it in place of the system's.
fn trusted(volume: &Path, pem: &str) -> Result<PathBuf, PodFailure> {
    let path = volume.join(AUTHORITIES_NAME);
    let system = match fs::read_to_string(SYSTEM_AUTHORITIES) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("read", Path::new(SYSTEM_AUTHORITIES), &error));
        }
        read => read.unwrap_or_default(),
    };
    fs::write(&path, format!("{system}\n{pem}\n")).map_err(|error| failed("write", &path, &error))?;
    Ok(path)
}
