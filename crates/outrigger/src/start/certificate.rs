//! The node's certificates: an authority of its own, one certificate for the API, one for its person. Keys never leave the
//! data root (and the kubeconfig); everything is root's alone.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};

/// Ten years: longer than anybody keeps a node.
const AUTHORITY_DAYS: i64 = 3650;
/// Leaves are made anew at a start in their last half year.
const LEAF_DAYS: i64 = 730;
const RENEW_DAYS: i64 = 182;
/// A clock that is behind must not find them not valid yet.
const SLACK: SignedDuration = SignedDuration::from_hours(24);

/// Texts in PEM, and the token.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) authority: String,
    server: String,
    server_key: String,
    pub(crate) client: String,
    pub(crate) client_key: String,
    pub(crate) token: String,
    /// Service accounts' tokens are made with it.
    pub(crate) token_key: String,
}

/// What the leaves were made for and until when, beside them.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Made {
    authority_until: Timestamp,
    leaves_until: Timestamp,
    names: Vec<String>,
}

/// Reads them, or makes what is missing or about to end.
pub(crate) fn ensure(directory: &Path, names: &[String], now: Timestamp) -> anyhow::Result<Identity> {
    make_private(directory).with_context(|| format!("failed to make `{}`", directory.display()))?;
    match read(directory, names, now) {
        Some(identity) => Ok(identity),
        None => make(directory, names, now),
    }
}

fn read(directory: &Path, names: &[String], now: Timestamp) -> Option<Identity> {
    let text = |name: &str| std::fs::read_to_string(directory.join(name)).ok().filter(|text| !text.is_empty());
    let made: Made = serde_json::from_str(&text("certificates.json")?).ok()?;
    let renew = SignedDuration::from_hours(24 * RENEW_DAYS);
    if made.names != names || made.leaves_until.duration_since(now) < renew {
        return None;
    }
    let identity = Identity {
        authority: text("ca.crt")?,
        server: text("server.crt")?,
        server_key: text("server.key")?,
        client: text("client.crt")?,
        client_key: text("client.key")?,
        token: text("token")?,
        token_key: text("token.key")?,
    };
    // What a power cut has torn is made anew; the node must not stay down for it.
    CertificateDer::from_pem_slice(identity.client.as_bytes()).ok()?;
    KeyPair::from_pem(&identity.client_key).ok()?;
    identity.tls().ok().map(|_| identity)
}

fn make(directory: &Path, names: &[String], now: Timestamp) -> anyhow::Result<Identity> {
    let days = |days: i64| now.checked_add(SignedDuration::from_hours(24 * days)).unwrap_or(Timestamp::MAX);
    let (authority, authority_until, issuer) = authority(directory, now, days(AUTHORITY_DAYS))?;
    let leaves_until = days(LEAF_DAYS).min(authority_until);
    let mut server = parameters("outrigger-api", "", now, leaves_until)?;
    server.subject_alt_names = names.iter().map(|name| alternative(name)).collect::<Result<_, _>>()?;
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let mut client = parameters("outrigger-admin", "system:masters", now, leaves_until)?;
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let (server_key, client_key) = (KeyPair::generate()?, KeyPair::generate()?);
    let kept = |name: &str| match std::fs::read_to_string(directory.join(name)) {
        Ok(secret) if !secret.is_empty() => Ok(secret),
        _ => new_secret(),
    };
    let identity = Identity {
        authority,
        server: server.signed_by(&server_key, &issuer)?.pem(),
        server_key: server_key.serialize_pem(),
        client: client.signed_by(&client_key, &issuer)?.pem(),
        client_key: client_key.serialize_pem(),
        token: kept("token")?,
        token_key: kept("token.key")?,
    };
    let made = Made { authority_until, leaves_until, names: names.to_vec() };
    let made = serde_json::to_string(&made)?;
    forget(directory)?;
    // The list comes last: without it everything is made again.
    let files = [
        ("server.crt", &identity.server),
        ("server.key", &identity.server_key),
        ("client.crt", &identity.client),
        ("client.key", &identity.client_key),
        ("token", &identity.token),
        ("token.key", &identity.token_key),
        ("certificates.json", &made),
    ];
    for (name, text) in files {
        write_private(&directory.join(name), text)?;
    }
    Ok(identity)
}

/// The authority that is there, as long as it outlives new leaves; people may have trusted it.
fn authority(
    directory: &Path,
    now: Timestamp,
    until: Timestamp,
) -> anyhow::Result<(String, Timestamp, Issuer<'static, KeyPair>)> {
    let known = || {
        let made = std::fs::read_to_string(directory.join("certificates.json")).ok()?;
        let made: Made = serde_json::from_str(&made).ok()?;
        let key = KeyPair::from_pem(&std::fs::read_to_string(directory.join("ca.key")).ok()?).ok()?;
        let text = std::fs::read_to_string(directory.join("ca.crt")).ok()?;
        CertificateDer::from_pem_slice(text.as_bytes()).ok()?;
        let lasts = made.authority_until.duration_since(now) > SignedDuration::from_hours(24 * LEAF_DAYS);
        lasts.then_some((text, made.authority_until, key))
    };
    let parameters = || -> anyhow::Result<CertificateParams> {
        let mut parameters = parameters("outrigger-ca", "", now, until)?;
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        Ok(parameters)
    };
    if let Some((text, until, key)) = known() {
        return Ok((text, until, Issuer::new(parameters()?, key)));
    }
    let key = KeyPair::generate()?;
    let certificate = parameters()?.self_signed(&key)?;
    forget(directory)?;
    write_private(&directory.join("ca.key"), &key.serialize_pem())?;
    write_private(&directory.join("ca.crt"), &certificate.pem())?;
    Ok((certificate.pem(), until, Issuer::new(parameters()?, key)))
}

/// Takes the list away, so that files of two makings are never taken for one when this one is cut short.
fn forget(directory: &Path) -> anyhow::Result<()> {
    let list = directory.join("certificates.json");
    match std::fs::remove_file(&list) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("failed to remove `{}`", list.display()))
        }
        _ => Ok(()),
    }
}

fn parameters(name: &str, group: &str, now: Timestamp, until: Timestamp) -> anyhow::Result<CertificateParams> {
    let mut parameters = CertificateParams::default();
    let mut subject = rcgen::DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    if !group.is_empty() {
        subject.push(DnType::OrganizationName, group);
    }
    parameters.distinguished_name = subject;
    let (year, month, day) = day_of(now.checked_sub(SLACK).unwrap_or(now));
    parameters.not_before = rcgen::date_time_ymd(year, month, day);
    let (year, month, day) = day_of(until);
    parameters.not_after = rcgen::date_time_ymd(year, month, day);
    parameters.use_authority_key_identifier_extension = true;
    Ok(parameters)
}

/// The beginning of a day is exact enough.
fn day_of(at: Timestamp) -> (i32, u8, u8) {
    let day = jiff::tz::Offset::UTC.to_datetime(at).date();
    (day.year().into(), day.month().unsigned_abs(), day.day().unsigned_abs())
}

fn alternative(name: &str) -> anyhow::Result<SanType> {
    match name.parse::<IpAddr>() {
        Ok(address) => Ok(SanType::IpAddress(address)),
        Err(_) => Ok(SanType::DnsName(name.try_into()?)),
    }
}

fn new_secret() -> anyhow::Result<String> {
    let mut bytes = [0u8; 32];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

pub(crate) fn make_private(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700))
}

/// Whole or not at all, and never readable by others.
pub(crate) fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let temporary: PathBuf = path.with_extension("new");
    let write = || -> io::Result<()> {
        let _ = std::fs::remove_file(&temporary);
        let mut options = std::fs::File::options();
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.create_new(true).write(true).open(&temporary)?;
        io::Write::write_all(&mut file, text.as_bytes())?;
        std::fs::rename(&temporary, path)
    };
    write().with_context(|| format!("failed to write `{}`", path.display()))
}

// === impl Identity ===

impl Identity {
    /// For the API: clients with a certificate of ours are known by it, the others have to bring a token.
    pub(crate) fn tls(&self) -> anyhow::Result<rustls::ServerConfig> {
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.as_bytes())?)?;
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
            .allow_unauthenticated()
            .build()?;
        let certificate = CertificateDer::from_pem_slice(self.server.as_bytes())?;
        let key = PrivateKeyDer::from_pem_slice(self.server_key.as_bytes())?;
        Ok(rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate], key)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_made_once_and_renewed_in_time() {
        let dir = tempfile::tempdir().unwrap();
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let now: Timestamp = "2025-01-01T00:00:00Z".parse().unwrap();
        let first = ensure(dir.path(), &names, now).unwrap();
        first.tls().unwrap();
        let again = ensure(dir.path(), &names, now).unwrap();
        assert_eq!((&first.server, &first.client_key), (&again.server, &again.client_key));
        let mode = |name: &str| {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777
        };
        assert_eq!((mode("server.key"), mode("ca.key"), mode("token")), (0o600, 0o600, 0o600));
        let later: Timestamp = "2026-10-01T00:00:00Z".parse().unwrap();
        let renewed = ensure(dir.path(), &names, later).unwrap();
        assert_ne!(first.server, renewed.server);
        assert_eq!((&first.authority, &first.token), (&renewed.authority, &renewed.token));
        let moved = ensure(dir.path(), &["example.test".to_owned()], later).unwrap();
        assert_ne!(renewed.server, moved.server);
        let old: Timestamp = "2034-01-01T00:00:00Z".parse().unwrap();
        assert_ne!(ensure(dir.path(), &names, old).unwrap().authority, first.authority);
    }

    #[test]
    fn what_is_torn_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let names = ["localhost".to_owned()];
        let now: Timestamp = "2025-01-01T00:00:00Z".parse().unwrap();
        let mut token = ensure(dir.path(), &names, now).unwrap().token;
        let files = ["ca.crt", "ca.key", "server.crt", "server.key", "client.crt", "client.key", "certificates.json"];
        for (file, left) in files.iter().flat_map(|file| [(file, ""), (file, "garbage")]) {
            std::fs::write(dir.path().join(file), left).unwrap();
            let identity = ensure(dir.path(), &names, now).unwrap();
            identity.tls().unwrap_or_else(|error| panic!("{file}: {error}"));
            assert_eq!(identity.token, std::mem::replace(&mut token, identity.token.clone()), "{file}");
        }
    }

    #[test]
    fn a_making_cut_short_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let names = ["localhost".to_owned()];
        let now: Timestamp = "2025-01-01T00:00:00Z".parse().unwrap();
        let first = ensure(dir.path(), &names, now).unwrap();
        std::fs::remove_file(dir.path().join("ca.crt")).unwrap();
        // The new authority is written, and nothing more fits in.
        std::fs::create_dir(dir.path().join("server.new")).unwrap();
        ensure(dir.path(), &names, now).unwrap_err();
        std::fs::remove_dir(dir.path().join("server.new")).unwrap();
        let second = ensure(dir.path(), &names, now).unwrap();
        assert_ne!(first.authority, second.authority);
        assert_ne!(first.server, second.server, "a certificate of an authority that nobody trusts any more");
    }
}
