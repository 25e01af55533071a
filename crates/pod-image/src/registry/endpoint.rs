//! Where to ask for a reference: mirrors first, then the registry itself.

use std::{
    collections::BTreeMap,
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use oci_client::Reference as WireReference;
use serde::{Deserialize, Serialize};

use crate::reference::Reference;

/// The operator's word on registries, `registries.json` in the store's root:
///
/// ```json
/// {
///   "registries": {
///     "docker.io": { "mirrors": ["https://mirror.example.com/hub", "http://10.0.0.5:5000"] },
///     "registry.lan:5000": { "insecure": true },
///     "registry.corp": { "ca": "/etc/ssl/corp.pem" }
///   }
/// }
/// ```
///
/// Mirrors are tried in order, the registry itself last. A path behind a mirror's host goes before the repository.
/// `insecure` speaks plain HTTP to the registry and does not check certificates of its HTTPS mirrors. `ca` is trusted in
/// addition to the system's certificates. A mirror with settings of its own has them under its own host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registries {
    #[serde(default)]
    pub registries: BTreeMap<String, RegistryConfig>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RegistryConfig {
    pub mirrors: Vec<String>,
    pub insecure: bool,
    /// PEM file.
    pub ca: Option<PathBuf>,
}

/// Why the registry configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum RegistriesError {
    #[error("failed to read `{path}`")]
    Read { path: PathBuf, source: io::Error },
    #[error("`{path}` is no registry configuration")]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("mirror `{mirror}` of `{registry}` must be a URL http://HOST[:PORT][/PATH] or https://…")]
    Mirror { registry: String, mirror: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
}

/// One place to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub scheme: Scheme,
    /// With its port, if one was given.
    pub host: String,
    /// Goes before the repository.
    prefix: String,
    mirror: bool,
    /// Certificates are not checked.
    pub insecure: bool,
    /// PEM.
    pub ca: Option<Vec<u8>>,
}

impl Registries {
    /// Reads `registries.json` in the store's root; none is an empty configuration.
    pub fn load(store_root: &Path) -> Result<Registries, RegistriesError> {
        let path = store_root.join("registries.json");
        match fs::read(&path) {
            Ok(bytes) => {
                let registries: Registries =
                    serde_json::from_slice(&bytes).map_err(|source| RegistriesError::Json { path, source })?;
                registries.check().map(|()| registries)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Registries::default()),
            Err(source) => Err(RegistriesError::Read { path, source }),
        }
    }

    fn check(&self) -> Result<(), RegistriesError> {
        for (registry, config) in &self.registries {
            if let Some(mirror) = config.mirrors.iter().find(|mirror| parse_url(mirror).is_none()) {
                return Err(RegistriesError::Mirror { registry: registry.clone(), mirror: mirror.clone() });
            }
        }
        Ok(())
    }

    /// Where to ask for `reference`, in order.
    pub(crate) fn endpoints(
        &self,
        reference: &Reference,
        insecure: &[String],
    ) -> Result<Vec<Endpoint>, RegistriesError> {
        self.check()?;
        let registry = reference.registry();
        let config = self.registries.get(registry);
        let mut endpoints = Vec::new();
        for (scheme, host, prefix) in config.iter().flat_map(|config| &config.mirrors).filter_map(|url| parse_url(url))
        {
            let own = self.registries.get(&host);
            let insecure = config.is_some_and(|config| config.insecure) || own.is_some_and(|own| own.insecure);
            let ca = read_ca(own.or(config))?;
            endpoints.push(Endpoint { scheme, host, prefix, mirror: true, insecure, ca });
        }
        endpoints.push(self.upstream(reference, insecure)?);
        Ok(endpoints)
    }

    /// The registry itself; where to push.
    pub(crate) fn upstream(&self, reference: &Reference, insecure: &[String]) -> Result<Endpoint, RegistriesError> {
        let host = reference.registry().to_owned();
        let config = self.registries.get(&host);
        let insecure = insecure.contains(&host) || config.is_some_and(|config| config.insecure);
        let scheme = if insecure || is_loopback(&host) { Scheme::Http } else { Scheme::Https };
        Ok(Endpoint { scheme, host, prefix: String::new(), mirror: false, insecure, ca: read_ca(config)? })
    }
}

impl Endpoint {
    pub(crate) fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }

    /// For messages.
    pub(crate) fn shown(&self) -> String {
        self.host.clone()
    }

    pub(crate) fn repository(&self, reference: &Reference) -> String {
        if self.prefix.is_empty() {
            reference.repository().to_owned()
        } else {
            format!("{}/{}", self.prefix, reference.repository())
        }
    }

    /// The reference as the client library wants it.
    pub(crate) fn wire(&self, reference: &Reference, repository: &str) -> WireReference {
        let (registry, repository) = (reference.registry().to_owned(), repository.to_owned());
        let mut wire = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => WireReference::with_digest(registry, repository, digest.to_string()),
            (None, tag) => WireReference::with_tag(registry, repository, tag.unwrap_or("latest").to_owned()),
        };
        if self.mirror {
            wire.set_mirror_registry(self.host.clone());
        }
        wire
    }
}

fn read_ca(config: Option<&RegistryConfig>) -> Result<Option<Vec<u8>>, RegistriesError> {
    let Some(path) = config.and_then(|config| config.ca.as_ref()) else { return Ok(None) };
    fs::read(path).map(Some).map_err(|source| RegistriesError::Read { path: path.clone(), source })
}

/// As Docker does, registries on this machine are spoken to in plain HTTP.
fn is_loopback(host: &str) -> bool {
    let name = if let Some(rest) = host.strip_prefix('[') {
        rest.split(']').next().unwrap_or(rest)
    } else {
        host.split(':').next().unwrap_or(host)
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Scheme, host and path without slashes at the ends.
fn parse_url(url: &str) -> Option<(Scheme, String, String)> {
    let (scheme, rest) = match url.split_once("://")? {
        ("http", rest) => (Scheme::Http, rest),
        ("https", rest) => (Scheme::Https, rest),
        _ => return None,
    };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let path = path.trim_matches('/');
    // Checked by the one grammar there is for them.
    let probe = if path.is_empty() { format!("{host}/x") } else { format!("{host}/{path}/x") };
    let probe: Reference = probe.parse().ok()?;
    (probe.registry() == host).then(|| (scheme, host.to_owned(), path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(json: &str, reference: &str, insecure: &[&str]) -> Vec<(Scheme, String, String)> {
        let registries: Registries = serde_json::from_str(json).unwrap();
        let reference = reference.parse().unwrap();
        let insecure: Vec<String> = insecure.iter().map(|host| host.to_string()).collect();
        let endpoints = registries.endpoints(&reference, &insecure).unwrap();
        endpoints.into_iter().map(|e| (e.scheme, e.host.clone(), e.repository(&reference))).collect()
    }

    #[test]
    fn loopback_and_named_hosts_are_plain_http() {
        let scheme = |reference: &str, insecure: &[&str]| endpoints("{}", reference, insecure)[0].0;
        assert_eq!(scheme("quay.io/a", &[]), Scheme::Https);
        assert_eq!(scheme("localhost:5000/a", &[]), Scheme::Http);
        assert_eq!(scheme("127.0.0.3/a", &[]), Scheme::Http);
        assert_eq!(scheme("[::1]:5000/a", &[]), Scheme::Http);
        assert_eq!(scheme("10.0.0.1:5000/a", &[]), Scheme::Https);
        assert_eq!(scheme("10.0.0.1:5000/a", &["10.0.0.1:5000"]), Scheme::Http);
        assert_eq!(scheme("localhost.example.com/a", &[]), Scheme::Https);
    }

    #[test]
    fn mirrors_come_first_and_may_have_a_path() {
        let json = r#"{"registries": {"docker.io": {"mirrors": ["https://m.example/hub/", "http://10.0.0.5:5000"]}}}"#;
        assert_eq!(
            endpoints(json, "alpine", &[]),
            [
                (Scheme::Https, "m.example".to_owned(), "hub/library/alpine".to_owned()),
                (Scheme::Http, "10.0.0.5:5000".to_owned(), "library/alpine".to_owned()),
                (Scheme::Https, "docker.io".to_owned(), "library/alpine".to_owned()),
            ]
        );
        assert_eq!(endpoints(json, "quay.io/a", &[]).len(), 1);
    }

    #[test]
    fn a_configuration_with_mistakes_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let load = |text: &str| {
            fs::write(directory.path().join("registries.json"), text).unwrap();
            Registries::load(directory.path()).unwrap_err().to_string()
        };
        assert!(load(r#"{"registries": {"a.io": {"mirror": []}}}"#).contains("no registry configuration"));
        assert!(
            load(r#"{"registries": {"a.io": {"mirrors": ["m.example"]}}}"#).contains("mirror `m.example` of `a.io`")
        );
        assert!(load(r#"{"registries": {"a.io": {"mirrors": ["https:///x"]}}}"#).contains("must be a URL"));
    }
}
