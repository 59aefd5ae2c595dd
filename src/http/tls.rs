//! TLS by files: a folder with `tls.crt` and `tls.key`, as a Secret of type `kubernetes.io/tls` is mounted. They are looked
//! at again each minute, since whoever renews a certificate restarts nobody. What can't be used leaves the one before in
//! force.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use rustls::{
    ServerConfig,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio_rustls::TlsAcceptor;

/// Between two looks at the files.
const LOOK: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 60 });

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to read {path}: {error}")]
    File { path: PathBuf, error: io::Error },
    #[error("{path} is not what it should be: {error}")]
    Pem { path: PathBuf, error: pem::Error },
    #[error("certificate and key can't be used: {0}")]
    Key(#[from] rustls::Error),
}

/// The certificate in force, and the text it was read from.
#[derive(Debug)]
struct InForce {
    text: (Vec<u8>, Vec<u8>),
    key: Arc<CertifiedKey>,
}

/// The certificate of a folder.
#[derive(Debug)]
struct Kept {
    folder: PathBuf,
    in_force: RwLock<InForce>,
}

/// Answers by the certificate of this folder, for as long as the process lives.
///
/// # Errors
/// When it can't be used.
pub fn acceptor(folder: &Path) -> Result<TlsAcceptor, Error> {
    let kept = Arc::new(Kept { folder: folder.to_owned(), in_force: RwLock::new(usable(folder, read(folder)?)?) });
    let mut config = ServerConfig::builder().with_no_client_auth().with_cert_resolver(kept.clone());
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(LOOK).await;
            match kept.renewed() {
                Ok(true) => tracing::info!("the certificate of this server was renewed"),
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "the certificate of this server stays the one before"),
            }
        }
    });
    Ok(TlsAcceptor::from(Arc::new(config)))
}

impl Kept {
    /// Whether there is another than before.
    fn renewed(&self) -> Result<bool, Error> {
        let text = read(&self.folder)?;
        if self.in_force.read().unwrap_or_else(PoisonError::into_inner).text == text {
            return Ok(false);
        }
        let renewed = usable(&self.folder, text)?;
        *self.in_force.write().unwrap_or_else(PoisonError::into_inner) = renewed;
        Ok(true)
    }
}

impl ResolvesServerCert for Kept {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.in_force.read().unwrap_or_else(PoisonError::into_inner).key.clone())
    }
}

fn places(folder: &Path) -> (PathBuf, PathBuf) {
    (folder.join("tls.crt"), folder.join("tls.key"))
}

fn read(folder: &Path) -> Result<(Vec<u8>, Vec<u8>), Error> {
    let file = |path: PathBuf| fs::read(&path).map_err(|error| Error::File { path, error });
    let (certificate, key) = places(folder);
    Ok((file(certificate)?, file(key)?))
}

fn usable(folder: &Path, text: (Vec<u8>, Vec<u8>)) -> Result<InForce, Error> {
    let (certificate, key) = places(folder);
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&text.0)
        .collect::<Result<_, _>>()
        .map_err(|error| Error::Pem { path: certificate, error })?;
    let private = PrivateKeyDer::from_pem_slice(&text.1).map_err(|error| Error::Pem { path: key, error })?;
    let provider = CryptoProvider::get_default().ok_or_else(|| rustls::Error::General("no provider".to_owned()))?;
    // Checks that they belong together.
    let key = Arc::new(CertifiedKey::from_der(chain, private, provider)?);
    Ok(InForce { text, key })
}
