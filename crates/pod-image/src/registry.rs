//! Talking to registries: where a reference is to be asked for, and what their answers mean to a person.

use std::{
    error::Error,
    io,
    sync::{Once, OnceLock},
    time::Duration,
};

use oci_client::{
    Client, Reference as WireReference, RegistryOperation,
    client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol},
    errors::{DigestError, OciDistributionError, OciErrorCode},
    secrets::RegistryAuth,
};

use crate::{
    credentials::{Credential, Credentials},
    digest::Digest,
    manifest::{DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST},
    reference::Reference,
};

mod endpoint;

pub(crate) use endpoint::{Endpoint, Scheme};
pub use endpoint::{Registries, RegistriesError, RegistryConfig};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two pieces of an answer. Registries that copy from elsewhere on demand can take a while for the first.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const MANIFEST_TYPES: &[&str] = &[OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST];

/// What went wrong between us and a registry.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("no such host: registry `{registry}`")]
    NoSuchHost { registry: String, source: Cause },
    #[error("connection to registry `{registry}` was refused")]
    Refused { registry: String, source: Cause },
    #[error("registry `{registry}` did not answer in time")]
    Timeout { registry: String, source: Cause },
    #[error("no secure connection to registry `{registry}`")]
    Tls { registry: String, source: Cause },
    #[error("registry `{registry}` cannot be asked: this machine has no CA certificates")]
    NoCertificates { registry: String },
    #[error("failed to reach registry `{registry}`")]
    Unreachable { registry: String, source: Cause },
    #[error("access to `{reference}` denied by registry `{registry}`")]
    Unauthorized { reference: String, registry: String, logged_in: bool },
    #[error(
        "password for registry `{registry}` is kept by the credential helper `{helper}`, and helpers are not supported"
    )]
    CredentialHelper { registry: String, helper: String },
    #[error("login to registry `{registry}` is an identity token, which is not supported")]
    IdentityToken { registry: String },
    #[error("`{reference}` not found in registry `{registry}`: manifest unknown")]
    NotFound { reference: String, registry: String },
    #[error("too many requests to registry `{registry}`")]
    RateLimited { registry: String },
    #[error("registry `{registry}` answered {status}: {message}")]
    Answer { registry: String, status: String, message: String },
    #[error("registry `{registry}` sent content with the digest {actual} instead of {expected}")]
    DigestMismatch { registry: String, expected: String, actual: String },
    #[error("`{0}` is a built-in image and never asked of a registry")]
    Builtin(String),
}

type Cause = Box<dyn Error + Send + Sync>;

impl RegistryError {
    /// What the person in front of it can do.
    pub fn hint(&self) -> Option<String> {
        use RegistryError as E;
        Some(match self {
            E::NoSuchHost { registry, .. } => {
                format!("check the spelling of `{registry}` and this machine's DNS; --offline uses what is here")
            }
            E::Refused { registry, .. } => format!("nothing listens at `{registry}`: is the registry running?"),
            E::Timeout { .. } | E::Unreachable { .. } => {
                "check the network and HTTPS_PROXY/NO_PROXY; --offline uses what is here".to_owned()
            }
            E::Tls { registry, .. } => format!(
                "install the system's ca-certificates; for a private CA or plain HTTP configure `{registry}` in registries.json"
            ),
            E::NoCertificates { .. } => {
                "install ca-certificates, or name a PEM file in SSL_CERT_FILE (needed for plain HTTP as well)"
                    .to_owned()
            }
            E::Unauthorized { logged_in: false, registry, .. } => format!(
                "private, or not there at all (registries answer the same): log in with `docker login {registry}` or give an image pull secret"
            ),
            E::Unauthorized { registry, .. } => {
                format!(
                    "the credentials for `{registry}` were not enough: expired, or without rights to this repository"
                )
            }
            E::CredentialHelper { registry, .. } | E::IdentityToken { registry } => {
                format!(
                    "give user and password (or an access token as password) for `{registry}` in an image pull secret or under `auths`"
                )
            }
            E::NotFound { .. } => "check repository and tag".to_owned(),
            E::RateLimited { registry } if registry == "docker.io" => {
                "Docker Hub limits anonymous pulls: log in, or configure a mirror in registries.json".to_owned()
            }
            E::RateLimited { .. } => "try again later, or log in".to_owned(),
            E::DigestMismatch { .. } => "the registry or something on the way is broken; nothing was kept".to_owned(),
            E::Builtin(_) => "install the sidecar's program beside the engine".to_owned(),
            E::Answer { .. } => return None,
        })
    }

    /// Whether the network is to blame, so that the same request may succeed soon.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            RegistryError::Refused { .. } | RegistryError::Timeout { .. } | RegistryError::Unreachable { .. } => true,
            RegistryError::Answer { status, .. } => ["500", "502", "503", "504"].contains(&status.as_str()),
            _ => false,
        }
    }
}

/// A registry and who we are to it, for one repository.
pub(crate) struct Connection {
    pub client: Client,
    /// Names the repository for blobs, and for manifests by what it ends in.
    pub wire: WireReference,
    auth: RegistryAuth,
    /// For messages.
    registry: String,
    reference: String,
    /// What to say when access is denied.
    standing: Standing,
}

/// What we could bring along.
#[derive(Clone)]
enum Standing {
    Anonymous,
    LoggedIn,
    Helper(String),
    IdentityToken,
}

impl Connection {
    /// Logs in. Of several fitting credentials the first that the registry takes is used.
    pub(crate) async fn open(
        endpoint: &Endpoint,
        reference: &Reference,
        credentials: &Credentials,
        operation: RegistryOperation,
    ) -> Result<Connection, RegistryError> {
        let repository = endpoint.repository(reference);
        let found = credentials.matching(&endpoint.host, &repository);
        let mut auths: Vec<RegistryAuth> = found.iter().filter_map(|credential| wire_auth(credential)).collect();
        let standing = match (auths.is_empty(), credentials.helper(&endpoint.host)) {
            (false, _) => Standing::LoggedIn,
            (true, _) if !found.is_empty() => Standing::IdentityToken,
            (true, Some(helper)) => Standing::Helper(helper.to_owned()),
            (true, None) => Standing::Anonymous,
        };
        if auths.is_empty() {
            auths.push(RegistryAuth::Anonymous);
        }
        let last = auths.len() - 1;
        for (position, auth) in auths.into_iter().enumerate() {
            let connection = Connection {
                client: client(endpoint)?,
                wire: endpoint.wire(reference, &repository),
                auth,
                registry: endpoint.shown(),
                reference: reference.to_string(),
                standing: standing.clone(),
            };
            match connection.log_in(operation, position < last).await {
                Err(RegistryError::Unauthorized { .. }) if position < last => {}
                Err(error) => return Err(error),
                Ok(()) => return Ok(connection),
            }
        }
        // Not reached: the last one returns either way.
        Err(RegistryError::Unauthorized {
            reference: reference.to_string(),
            registry: endpoint.shown(),
            logged_in: true,
        })
    }

    /// A login alone proves little: many registries look at it only with the request itself. `thorough` makes one.
    async fn log_in(&self, operation: RegistryOperation, thorough: bool) -> Result<(), RegistryError> {
        self.client.auth(&self.wire, &self.auth, operation).await.map_err(|error| self.explain(error))?;
        if thorough && operation == RegistryOperation::Pull {
            let answer = self.client.fetch_manifest_digest(&self.wire, &self.auth).await;
            answer.map_err(|error| self.explain(error))?;
        }
        Ok(())
    }

    fn unauthorized(&self) -> RegistryError {
        let registry = self.registry.clone();
        let denied = |logged_in| RegistryError::Unauthorized {
            reference: self.reference.clone(),
            registry: self.registry.clone(),
            logged_in,
        };
        match &self.standing {
            Standing::Anonymous => denied(false),
            Standing::LoggedIn => denied(true),
            Standing::Helper(helper) => RegistryError::CredentialHelper { registry, helper: helper.clone() },
            Standing::IdentityToken => RegistryError::IdentityToken { registry },
        }
    }

    /// The bytes of the manifest or index that the reference means, and their digest.
    pub(crate) async fn manifest(&self) -> Result<(Vec<u8>, Digest), RegistryError> {
        self.manifest_of(&self.wire).await
    }

    pub(crate) async fn manifest_at(&self, digest: &Digest) -> Result<(Vec<u8>, Digest), RegistryError> {
        self.manifest_of(&self.wire.clone_with_digest(digest.to_string())).await
    }

    async fn manifest_of(&self, wire: &WireReference) -> Result<(Vec<u8>, Digest), RegistryError> {
        let answer = self.client.pull_manifest_raw(wire, &self.auth, MANIFEST_TYPES).await;
        let (bytes, _) = answer.map_err(|error| self.explain(error))?;
        let actual = Digest::of(&bytes);
        match wire.digest() {
            Some(expected) if expected != actual.to_string() => Err(RegistryError::DigestMismatch {
                registry: self.registry.clone(),
                expected: expected.to_owned(),
                actual: actual.to_string(),
            }),
            _ => Ok((bytes.to_vec(), actual)),
        }
    }

    /// A failure of the client library, as a person would tell it.
    pub(crate) fn explain(&self, error: OciDistributionError) -> RegistryError {
        let registry = self.registry.clone();
        let reference = || self.reference.clone();
        match error {
            OciDistributionError::UnauthorizedError { .. } | OciDistributionError::AuthenticationFailure(_) => {
                self.unauthorized()
            }
            OciDistributionError::ImageManifestNotFoundError(_) => {
                RegistryError::NotFound { reference: reference(), registry }
            }
            OciDistributionError::RegistryError { envelope, .. } => {
                let Some(first) = envelope.errors.first() else {
                    return RegistryError::Answer {
                        registry,
                        status: "an error".into(),
                        message: "without saying which".into(),
                    };
                };
                match first.code {
                    OciErrorCode::Unauthorized | OciErrorCode::Denied => self.unauthorized(),
                    OciErrorCode::ManifestUnknown
                    | OciErrorCode::NameUnknown
                    | OciErrorCode::NotFound
                    | OciErrorCode::ManifestBlobUnknown
                    | OciErrorCode::BlobUnknown => RegistryError::NotFound { reference: reference(), registry },
                    OciErrorCode::Toomanyrequests => RegistryError::RateLimited { registry },
                    ref code => RegistryError::Answer {
                        registry,
                        status: format!("{code:?}"),
                        message: one_line(&first.message),
                    },
                }
            }
            OciDistributionError::ServerError { code, message, .. } => self.explain_status(code, &message),
            OciDistributionError::RequestError(error) if error.status().is_some() => {
                self.explain_status(error.status().map_or(0, |status| status.as_u16()), "")
            }
            OciDistributionError::DigestError(error) => self.explain_digest(error),
            error => self.explain_network(error.into()),
        }
    }

    fn explain_status(&self, code: u16, message: &str) -> RegistryError {
        let registry = self.registry.clone();
        match code {
            401 | 403 => self.unauthorized(),
            404 => RegistryError::NotFound { reference: self.reference.clone(), registry },
            429 => RegistryError::RateLimited { registry },
            code => RegistryError::Answer { registry, status: code.to_string(), message: one_line(message) },
        }
    }

    /// A failure in the middle of a body.
    pub(crate) fn explain_stream(&self, error: io::Error) -> RegistryError {
        match error.downcast::<DigestError>() {
            Ok(error) => self.explain_digest(error),
            Err(error) => self.explain_network(error.into()),
        }
    }

    pub(crate) fn explain_digest_mismatch(&self, expected: &Digest, actual: &Digest) -> RegistryError {
        let (expected, actual) = (expected.to_string(), actual.to_string());
        RegistryError::DigestMismatch { registry: self.registry.clone(), expected, actual }
    }

    fn explain_digest(&self, error: DigestError) -> RegistryError {
        let registry = self.registry.clone();
        match error {
            DigestError::VerificationError { expected, actual } => {
                RegistryError::DigestMismatch { registry, expected, actual }
            }
            other => RegistryError::Answer { registry, status: "a bad digest".into(), message: other.to_string() },
        }
    }

    fn explain_network(&self, source: Cause) -> RegistryError {
        explain_network(self.registry.clone(), source)
    }
}

/// Sorts a network failure by what its chain of causes says; the libraries below give no better handle.
fn explain_network(registry: String, source: Cause) -> RegistryError {
    let mut refused = false;
    let mut timeout = false;
    let (mut no_host, mut tls) = (false, false);
    let mut next: Option<&(dyn Error + 'static)> = Some(&*source);
    while let Some(error) = next {
        let text = error.to_string();
        no_host |= text.contains("dns error") || text.contains("failed to lookup address");
        tls |= ["certificate", "CA certificates", "InvalidContentType", "tls handshake"]
            .iter()
            .any(|sign| text.contains(sign));
        timeout |= text.contains("timed out");
        if let Some(error) = error.downcast_ref::<io::Error>() {
            refused |= error.kind() == io::ErrorKind::ConnectionRefused;
            timeout |= error.kind() == io::ErrorKind::TimedOut;
        }
        next = error.source();
    }
    if no_host {
        RegistryError::NoSuchHost { registry, source }
    } else if refused {
        RegistryError::Refused { registry, source }
    } else if tls {
        RegistryError::Tls { registry, source }
    } else if timeout {
        RegistryError::Timeout { registry, source }
    } else {
        RegistryError::Unreachable { registry, source }
    }
}

/// `None` for what we cannot use.
fn wire_auth(credential: &Credential) -> Option<RegistryAuth> {
    match credential {
        Credential::Basic { username, password } => Some(RegistryAuth::Basic(username.clone(), password.clone())),
        Credential::Bearer(token) => Some(RegistryAuth::Bearer(token.clone())),
        Credential::Identity => None,
    }
}

fn client(endpoint: &Endpoint) -> Result<Client, RegistryError> {
    install_crypto();
    if !has_system_certificates() {
        // oci-client makes a spare client with default settings on the way, which panics without any: also when this
        // registry is spoken to in plain HTTP or has a certificate of its own.
        return Err(RegistryError::NoCertificates { registry: endpoint.shown() });
    }
    let mut config = ClientConfig {
        protocol: match endpoint.scheme {
            Scheme::Http => ClientProtocol::Http,
            Scheme::Https => ClientProtocol::Https,
        },
        // Also spares a machine without CA certificates the failure of loading them for plain HTTP.
        accept_invalid_certificates: endpoint.insecure || endpoint.scheme == Scheme::Http,
        // One PUT a blob, as containerd does: chunked uploads are the less trodden path in registries.
        use_monolithic_push: true,
        platform_resolver: None,
        connect_timeout: Some(CONNECT_TIMEOUT),
        read_timeout: Some(READ_TIMEOUT),
        user_agent: concat!("outrigger/", env!("CARGO_PKG_VERSION")),
        ..ClientConfig::default()
    };
    if let Some(pem) = &endpoint.ca {
        config.extra_root_certificates = vec![Certificate { encoding: CertificateEncoding::Pem, data: pem.clone() }];
    }
    if endpoint.is_loopback() {
        // HTTP_PROXY does not know this machine's loopback. Naming a proxy switches the environment's off, and this one
        // is never used: every name and every address is excepted.
        config.https_proxy = Some("http://127.0.0.1:9".to_owned());
        config.no_proxy = Some("*,0.0.0.0/0,::/0".to_owned());
    }
    Client::try_from(config).map_err(|error| explain_network(endpoint.shown(), error.into()))
}

/// rustls needs to be told once which cryptography to use; whoever was first (`main`, usually) has chosen the same.
fn install_crypto() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

/// Reading them takes milliseconds, so it is done once.
fn has_system_certificates() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| !rustls_native_certs::load_native_certs().certs.is_empty())
}

/// Servers answer with whole HTML pages.
fn one_line(message: &str) -> String {
    const LONGEST: usize = 200;
    let line: String = message.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
