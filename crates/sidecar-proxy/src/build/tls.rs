//! Certificates and keys from files, both ways.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use dataplane::backend::Outward;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::config::{Certificate, ClientCertificate, ClientTls, Listener, ServerTls, TlsVersion};

/// What can be wrong with them.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    #[error("failed to read {path}")]
    Read { path: String, source: io::Error },
    #[error("{path} is no PEM file of what it should be")]
    Pem { path: String, source: pem::Error },
    #[error("{path} has no certificate")]
    Empty { path: String },
    #[error("{cert} and {key} cannot be used")]
    Pair { cert: String, key: String, source: rustls::Error },
    #[error("{path} cannot be trusted")]
    Trust { path: String, source: rustls::Error },
    #[error("clients cannot be verified")]
    Verifier(#[source] rustls::client::VerifierBuilderError),
    #[error("`{name}` is no server name")]
    Name { name: String },
    #[error("the machine's certificates cannot be read")]
    Machine,
    #[error("{path} is no OCSP response in DER")]
    Staple { path: String },
    #[error("the keys for session tickets cannot be made")]
    Tickets(#[source] rustls::Error),
    #[error("the settings do not fit together")]
    Settings(#[source] rustls::Error),
}

fn read(path: &str) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

fn chain(path: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read(path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let chain = chain.map_err(|source| TlsError::Pem { path: path.to_owned(), source })?;
    if chain.is_empty() { Err(TlsError::Empty { path: path.to_owned() }) } else { Ok(chain) }
}

fn key(path: &str) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = read(path)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|source| TlsError::Pem { path: path.to_owned(), source })
}

fn pair(one: &Certificate) -> Result<CertifiedKey, TlsError> {
    let (chain, key) = (chain(&one.cert_file)?, key(&one.key_file)?);
    let pair = CertifiedKey::from_der(chain, key, &ring::default_provider());
    let mut pair =
        pair.map_err(|source| TlsError::Pair { cert: one.cert_file.clone(), key: one.key_file.clone(), source })?;
    pair.ocsp = one.ocsp_file.as_deref().map(staple).transpose()?;
    Ok(pair)
}

/// What says that a certificate has not been revoked (RFC 6066 §8). Clients check it; here only a mistaken file is found.
fn staple(path: &str) -> Result<Vec<u8>, TlsError> {
    let bytes = read(path)?;
    // A SEQUENCE whose length takes two bytes or more.
    if matches!(bytes.as_slice(), [0x30, 0x80..=0xff, ..]) {
        Ok(bytes)
    } else {
        Err(TlsError::Staple { path: path.to_owned() })
    }
}

/// What seals session tickets, by listener; all workers share it, and a reload keeps it. Its keys change every six hours, and
/// a ticket is good for twice that. Never shared between listeners, and new when what is asked of clients changes: a
/// resumed session is not asked for a certificate again.
pub(super) type Tickets = HashMap<String, (String, Arc<dyn ProducesTickets>)>;

fn tickets(
    listener: &Listener,
    tls: &ServerTls,
    kept: &Tickets,
) -> Result<(String, Arc<dyn ProducesTickets>), TlsError> {
    let authority = tls.client_ca_file.as_deref().map(read).transpose()?;
    let asked = format!("{:?} {:?} {:?}", tls.client_certificate, tls.min_version, authority);
    match kept.get(&listener.name) {
        Some((before, tickets)) if *before == asked => Ok((asked, Arc::clone(tickets))),
        _ => ring::Ticketer::new().map(|tickets| (asked, tickets)).map_err(TlsError::Tickets),
    }
}

fn roots(path: &str) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(path)? {
        roots.add(certificate).map_err(|source| TlsError::Trust { path: path.to_owned(), source })?;
    }
    Ok(roots)
}

/// By the client's server name; the first for everybody else.
#[derive(Debug)]
struct ByName {
    keys: Vec<Arc<CertifiedKey>>,
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let fits = |key: &&Arc<CertifiedKey>| {
            let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
            let certificate =
                key.end_entity_cert().ok().and_then(|end| rustls::server::ParsedCertificate::try_from(end).ok());
            match (name, certificate) {
                (Some(name), Some(certificate)) => rustls::client::verify_server_name(&certificate, &name).is_ok(),
                _ => false,
            }
        };
        // A client that cannot use the kind of key is given another that fits the name, if there is one.
        let can = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        let found = self.keys.iter().find(|key| fits(key) && can(key));
        found.or_else(|| self.keys.iter().find(can)).or(self.keys.first()).cloned()
    }
}

pub(super) fn server(
    listener: &Listener,
    tls: &ServerTls,
    alpn: Vec<Vec<u8>>,
    (kept, fresh): (&Tickets, &mut Tickets),
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let versions = match tls.min_version {
        TlsVersion::Tls12 => rustls::ALL_VERSIONS,
        TlsVersion::Tls13 => &[&rustls::version::TLS13],
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_protocol_versions(versions).map_err(TlsError::Settings)?;
    let builder = match &tls.client_ca_file {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(path)?), provider);
            let verifier = match tls.client_certificate {
                ClientCertificate::Required => verifier,
                ClientCertificate::Optional => verifier.allow_unauthenticated(),
            };
            builder.with_client_cert_verifier(verifier.build().map_err(TlsError::Verifier)?)
        }
    };
    let keys = tls.certificates.iter().map(|one| pair(one).map(Arc::new)).collect::<Result<Vec<_>, _>>()?;
    let mut config = builder.with_cert_resolver(Arc::new(ByName { keys }));
    config.alpn_protocols = alpn;
    config.send_tls13_tickets = 1;
    // Ours are in the order of their strength; a client's list may begin with what somebody in between put there.
    config.ignore_client_order = true;
    // Nothing is kept here for clients that may come back: what they bring is sealed.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    let (asked, sealing) = tickets(listener, tls, kept)?;
    config.ticketer = Arc::clone(&sealing);
    fresh.insert(listener.name.clone(), (asked, sealing));
    Ok(Arc::new(config))
}

/// With a text that changes when the files do.
pub(super) fn client(tls: &ClientTls, endpoints: &[String], http2: bool) -> Result<(Outward, String), TlsError> {
    let mut fingerprint = String::new();
    let mut note = |path: &str| -> Result<(), TlsError> {
        use std::hash::{DefaultHasher, Hash as _, Hasher as _};
        let mut hasher = DefaultHasher::new();
        read(path)?.hash(&mut hasher);
        fingerprint.push_str(&format!("{path}={:x};", hasher.finish()));
        Ok(())
    };
    let roots = match &tls.ca_file {
        Some(path) => {
            note(path)?;
            roots(path)?
        }
        None => {
            let mut store = RootCertStore::empty();
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if store.is_empty() {
                return Err(TlsError::Machine);
            }
            store
        }
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder =
        builder.with_safe_default_protocol_versions().map_err(TlsError::Settings)?.with_root_certificates(roots);
    let mut config = match (&tls.cert_file, &tls.key_file) {
        (Some(cert), Some(secret)) => {
            note(cert)?;
            note(secret)?;
            builder.with_client_auth_cert(chain(cert)?, key(secret)?).map_err(|source| TlsError::Pair {
                cert: cert.clone(),
                key: secret.clone(),
                source,
            })?
        }
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let http1 = http2.then(|| Arc::new(config.clone()));
    if http2 {
        config.alpn_protocols = vec![b"h2".to_vec()];
    }
    // The check has seen that all have one host.
    let host = endpoints.first().and_then(|endpoint| super::host_of(endpoint)).unwrap_or_default();
    let name = tls.server_name.as_deref().unwrap_or(host);
    let server = ServerName::try_from(name.to_owned()).map_err(|_| TlsError::Name { name: name.to_owned() })?;
    Ok((Outward { config: Arc::new(config), http1, name: server }, fingerprint))
}
