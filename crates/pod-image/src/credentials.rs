//! Who we are to a registry: Docker's `config.json`, from a file or handed in as bytes (an image pull secret is one).

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use base64::Engine as _;
use serde::Deserialize;

#[cfg(test)]
mod tests;

/// Every name under which `docker login` and others file Docker Hub.
const DOCKER_HUB: [&str; 4] = ["docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"];

/// Credentials for any number of registries. The default is none: everything is asked for anonymously.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    entries: Vec<Entry>,
    /// Registries whose password only a helper program knows, and `""` for all others.
    helpers: BTreeMap<String, String>,
}

/// One way to prove who we are. Shown in no message and no debug output.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    Basic {
        username: String,
        password: String,
    },
    /// A token that the registry itself takes (`registrytoken`).
    Bearer(String),
    /// A token to be exchanged with the registry's token service (`identitytoken`), which we cannot do.
    Identity,
}

#[derive(Debug, Clone)]
struct Entry {
    /// May begin with `*.` labels, as Kubernetes allows.
    host: String,
    /// Only repositories below this path; empty is all.
    path: String,
    credential: Credential,
}

/// Why credentials could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("failed to read the credential file `{path}`")]
    Read { path: PathBuf, source: io::Error },
    #[error("credentials are not valid JSON of the form of Docker's config.json")]
    Json { source: serde_json::Error },
    #[error("credentials for `{server}` have an `auth` that is not base64 of user:password")]
    Auth { server: String },
    #[error("in the credential file `{path}`")]
    File { path: PathBuf, source: Box<CredentialsError> },
}

#[derive(Deserialize)]
struct ConfigJson {
    #[serde(default)]
    auths: Option<BTreeMap<String, AuthJson>>,
    #[serde(default, rename = "credHelpers")]
    helpers: Option<BTreeMap<String, String>>,
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AuthJson {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    #[serde(rename = "identitytoken")]
    identity_token: Option<String>,
    #[serde(rename = "registrytoken")]
    registry_token: Option<String>,
}

// === impl Credentials ===

impl Credentials {
    /// What the user logged in to with docker or podman: the first that exists of `$REGISTRY_AUTH_FILE`,
    /// `$DOCKER_CONFIG/config.json` and `~/.docker/config.json`. None of them is no error; a named one that is
    /// missing is.
    pub fn load() -> Result<Credentials, CredentialsError> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(path) = variable("REGISTRY_AUTH_FILE") {
            return Credentials::read(&path);
        }
        let directory = variable("DOCKER_CONFIG").or_else(|| variable("HOME").map(|home| home.join(".docker")));
        match directory.map(|directory| Credentials::read(&directory.join("config.json"))) {
            Some(Err(CredentialsError::Read { source, .. })) if source.kind() == io::ErrorKind::NotFound => {
                Ok(Credentials::default())
            }
            Some(result) => result,
            None => Ok(Credentials::default()),
        }
    }

    pub fn read(path: &Path) -> Result<Credentials, CredentialsError> {
        let bytes = fs::read(path).map_err(|source| CredentialsError::Read { path: path.to_owned(), source })?;
        Credentials::parse(&bytes)
            .map_err(|error| CredentialsError::File { path: path.to_owned(), source: Box::new(error) })
    }

    /// Docker's `config.json`, or the older `.dockercfg`, which is the content of `auths` alone.
    pub fn parse(json: &[u8]) -> Result<Credentials, CredentialsError> {
        let fail = |source| CredentialsError::Json { source };
        let value: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(json).map_err(fail)?;
        let is_config = ["auths", "credHelpers", "credsStore"].iter().any(|key| value.contains_key(*key));
        let looks_old = value.values().any(|entry| entry.get("auth").is_some());
        let config: ConfigJson = if !is_config && looks_old {
            let auths = serde_json::from_value(value.into()).map_err(fail)?;
            ConfigJson { auths: Some(auths), helpers: None, store: None }
        } else {
            serde_json::from_value(value.into()).map_err(fail)?
        };
        let mut credentials = Credentials::default();
        for (server, auth) in config.auths.unwrap_or_default() {
            if let Some(credential) = auth.credential(&server)? {
                credentials.add(&server, credential);
            }
        }
        for (server, helper) in config.helpers.unwrap_or_default() {
            credentials.helpers.insert(split_server(&server).0, helper);
        }
        if let Some(helper) = config.store.filter(|helper| !helper.is_empty()) {
            credentials.helpers.insert(String::new(), helper);
        }
        Ok(credentials)
    }

    /// One user name and password for `server` (`quay.io`, `localhost:5000`, `quay.io/team`).
    pub fn basic(server: &str, username: &str, password: &str) -> Credentials {
        let mut credentials = Credentials::default();
        let credential = Credential::Basic { username: username.to_owned(), password: password.to_owned() };
        credentials.add(server, credential);
        credentials
    }

    /// Adds `others` behind these: where both fit equally well, these are tried first.
    pub fn extend(&mut self, others: Credentials) {
        self.entries.extend(others.entries);
        self.entries.sort_by_key(|entry| std::cmp::Reverse(entry.path.len()));
        for (host, helper) in others.helpers {
            self.helpers.entry(host).or_insert(helper);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn add(&mut self, server: &str, credential: Credential) {
        let (host, path) = split_server(server);
        self.entries.push(Entry { host, path, credential });
        self.entries.sort_by_key(|entry| std::cmp::Reverse(entry.path.len()));
    }

    /// What to try for a repository, in order: the longest path first.
    pub(crate) fn matching(&self, host: &str, repository: &str) -> Vec<&Credential> {
        let host = canonical_host(host);
        let fits = |entry: &&Entry| {
            let path = repository.strip_prefix(entry.path.as_str());
            host_matches(&entry.host, &host)
                && path.is_some_and(|rest| entry.path.is_empty() || rest.is_empty() || rest.starts_with('/'))
        };
        self.entries.iter().filter(fits).map(|entry| &entry.credential).collect()
    }

    /// The helper program that would know the password.
    pub(crate) fn helper(&self, host: &str) -> Option<&str> {
        self.helpers.get(&canonical_host(host)).or_else(|| self.helpers.get("")).map(String::as_str)
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Credential::Basic { username, .. } => {
                f.debug_struct("Basic").field("username", username).finish_non_exhaustive()
            }
            Credential::Bearer(_) => f.write_str("Bearer(..)"),
            Credential::Identity => f.write_str("Identity(..)"),
        }
    }
}

impl AuthJson {
    fn credential(self, server: &str) -> Result<Option<Credential>, CredentialsError> {
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        if let Some(token) = given(self.registry_token) {
            return Ok(Some(Credential::Bearer(token)));
        }
        if given(self.identity_token).is_some() {
            return Ok(Some(Credential::Identity));
        }
        if let (Some(username), Some(password)) = (given(self.username), given(self.password)) {
            return Ok(Some(Credential::Basic { username, password }));
        }
        // An entry with nothing in it says that a helper has the rest.
        let Some(auth) = given(self.auth) else { return Ok(None) };
        let fail = || CredentialsError::Auth { server: server.to_owned() };
        let decoded = base64::engine::general_purpose::STANDARD.decode(auth.trim()).map_err(|_| fail())?;
        let text = String::from_utf8(decoded).map_err(|_| fail())?;
        let (username, password) = text.trim_end_matches('\0').split_once(':').ok_or_else(fail)?;
        Ok(Some(Credential::Basic { username: username.to_owned(), password: password.to_owned() }))
    }
}

/// Host and path of a key such as `https://index.docker.io/v1/` or `quay.io/team`.
fn split_server(server: &str) -> (String, String) {
    let rest = server.strip_prefix("https://").or_else(|| server.strip_prefix("http://")).unwrap_or(server);
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    // Version prefixes of the API are no part of a repository.
    let path = match path.trim_matches('/') {
        "v1" | "v2" => "",
        path => path,
    };
    (canonical_host(host), path.to_owned())
}

fn canonical_host(host: &str) -> String {
    let host = host.to_ascii_lowercase();
    if DOCKER_HUB.contains(&host.as_str()) { DOCKER_HUB[0].to_owned() } else { host }
}

/// `*` stands for one label, or part of one.
fn host_matches(pattern: &str, host: &str) -> bool {
    if !pattern.contains('*') {
        return pattern == host;
    }
    let (patterns, labels): (Vec<&str>, Vec<&str>) = (pattern.split('.').collect(), host.split('.').collect());
    let label_matches = |pattern: &str, label: &str| match pattern.split_once('*') {
        Some((start, end)) => {
            label.len() >= start.len() + end.len() && label.starts_with(start) && label.ends_with(end)
        }
        None => pattern == label,
    };
    patterns.len() == labels.len() && patterns.iter().zip(labels).all(|(pattern, label)| label_matches(pattern, label))
}
