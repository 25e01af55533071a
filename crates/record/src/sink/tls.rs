//! TLS towards receivers: the machine's certificate bundle or one's own, client certificates, read again when the files
//! change. Only `ring`, named explicitly, so that no other provider can get in the way.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// Where Debian, Alpine, Fedora and SUSE keep the bundle.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/ssl/cert.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
];

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// PEM certificates to trust instead of the machine's.
    pub ca_file: Option<PathBuf>,
    /// PEM chain and key to present.
    pub client: Option<(PathBuf, PathBuf)>,
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("failed to read certificates from {0}")]
    Certificates(PathBuf, #[source] rustls::pki_types::pem::Error),
    #[error("failed to read the key from {0}")]
    Key(PathBuf, #[source] rustls::pki_types::pem::Error),
    #[error("no certificate bundle found on this machine; set tls.caFile")]
    NoBundle,
    #[error("failed to set up TLS")]
    Setup(#[from] rustls::Error),
}

/// A TLS setup that follows its files.
#[derive(Debug)]
pub struct Tls {
    options: TlsOptions,
    config: Arc<ClientConfig>,
    loaded: Vec<Option<SystemTime>>,
}

impl Tls {
    pub fn new(options: TlsOptions) -> Result<Tls, TlsError> {
        let loaded = times(&options);
        let config = load(&options)?;
        Ok(Tls { options, config, loaded })
    }

    /// For a new connection. Files that changed are read again; if they are broken, the old ones go on.
    pub fn config(&mut self) -> Arc<ClientConfig> {
        let now = times(&self.options);
        if now != self.loaded
            && let Ok(config) = load(&self.options)
        {
            self.config = config;
            self.loaded = now;
        }
        Arc::clone(&self.config)
    }
}

impl Tls {
    /// The same, for HTTP/2.
    pub fn alpn_h2(&mut self) -> Arc<ClientConfig> {
        let mut config = ClientConfig::clone(&self.config());
        config.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(config)
    }
}

fn times(options: &TlsOptions) -> Vec<Option<SystemTime>> {
    let client = options.client.iter().flat_map(|(chain, key)| [chain, key]);
    options.ca_file.iter().chain(client).map(|path| fs::metadata(path).and_then(|m| m.modified()).ok()).collect()
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |error| TlsError::Certificates(path.to_owned(), error);
    CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)
}

fn load(options: &TlsOptions) -> Result<Arc<ClientConfig>, TlsError> {
    let bundle = || BUNDLES.iter().map(PathBuf::from).find(|path| path.exists());
    let path = options.ca_file.clone().or_else(bundle).ok_or(TlsError::NoBundle)?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(&path)?);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = builder.with_root_certificates(roots);
    let config = match &options.client {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| TlsError::Key(key.clone(), error))?;
            builder.with_client_auth_cert(certificates(chain)?, secret)?
        }
    };
    Ok(Arc::new(config))
}

#[cfg(test)]
pub(super) mod tests;
