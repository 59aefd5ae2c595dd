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

/// The certificate of a folder.
#[derive(Debug)]
struct Kept {
    folder: PathBuf,
    in_force: RwLock<Arc<CertifiedKey>>,
}

/// Answers by the certificate of this folder, for as long as the process lives.
///
/// # Errors
/// When it can't be used.
pub fn acceptor(folder: &Path) -> Result<TlsAcceptor, Error> {
    let kept = Arc::new(Kept { folder: folder.to_owned(), in_force: RwLock::new(read(folder)?) });
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
        let found = read(&self.folder)?;
        let mut in_force = self.in_force.write().unwrap_or_else(PoisonError::into_inner);
        let is_other = found.cert != in_force.cert;
        *in_force = found;
        Ok(is_other)
    }
}

impl ResolvesServerCert for Kept {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.in_force.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

fn read(folder: &Path) -> Result<Arc<CertifiedKey>, Error> {
    let file = |path: &PathBuf| fs::read(path).map_err(|error| Error::File { path: path.clone(), error });
    let (certificate, key) = (folder.join("tls.crt"), folder.join("tls.key"));
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&file(&certificate)?)
        .collect::<Result<_, _>>()
        .map_err(|error| Error::Pem { path: certificate, error })?;
    let private = PrivateKeyDer::from_pem_slice(&file(&key)?).map_err(|error| Error::Pem { path: key, error })?;
    let provider = CryptoProvider::get_default().ok_or_else(|| rustls::Error::General("no provider".to_owned()))?;
    // Checks that they belong together.
    Ok(Arc::new(CertifiedKey::from_der(chain, private, provider)?))
}
