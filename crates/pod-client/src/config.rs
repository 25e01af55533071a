//! Which server, and as whom: the kubeconfig files of kubectl.
//!
//! Several files of `$KUBECONFIG` are merged as kubectl merges them: the first that has an entry of a name wins. What would
//! need another program or gives up checking the server (`exec`, `insecure-skip-tls-verify`, ...) is refused.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;

/// What the command line says about the server.
#[derive(Debug, Clone, Copy, Default)]
pub struct Choice<'a> {
    /// Instead of `$KUBECONFIG` and `~/.kube/config`.
    pub kubeconfig: Option<&'a Path>,
    pub context: &'a str,
}

/// A server and how to speak with it.
#[derive(Clone)]
pub struct Config {
    /// As the kubeconfig has it: `https://127.0.0.1:6443`.
    pub server: String,
    /// The context's namespace, if it names one.
    pub namespace: Option<String>,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Before every path; usually empty.
    pub(crate) prefix: String,
    pub(crate) tls: Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>,
    pub(crate) token: Option<String>,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config").field("server", &self.server).finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("no kubeconfig: {0} does not exist")]
    NoFile(String),
    #[error("no context \"{name}\" in {files}")]
    NoContext { name: String, files: String },
    #[error("failed to read `{path}`")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("`{path}` is no kubeconfig: {reason}")]
    Malformed { path: PathBuf, reason: String },
    #[error("context \"{context}\": {reason}")]
    Unusable { context: String, reason: String },
}

/// An entry of a kubeconfig, and the directory its relative paths start at.
type Entry<'a> = (&'a Value, &'a Path);

impl Config {
    /// # Errors
    /// No such context, a file that cannot be read, or a way to authenticate that is not supported here.
    pub fn load(choice: Choice<'_>) -> Result<Config, ConfigError> {
        let paths = match choice.kubeconfig {
            Some(path) => vec![path.to_owned()],
            None => usual_paths(),
        };
        let files = read(&paths, choice.kubeconfig.is_some())?;
        let names = paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        if files.is_empty() {
            return Err(ConfigError::NoFile(names));
        }
        let context = find(&files, "contexts", choice.context, "context")
            .ok_or_else(|| ConfigError::NoContext { name: choice.context.to_owned(), files: names })?;
        let unusable = |reason| ConfigError::Unusable { context: choice.context.to_owned(), reason };
        let part = |list: &str, inner: &str| {
            let name = context.0[inner].as_str().unwrap_or_default();
            find(&files, list, name, inner).ok_or_else(|| unusable(format!("there is no {inner} \"{name}\"")))
        };
        let cluster = part("clusters", "cluster")?;
        let user = match context.0["user"].as_str() {
            None | Some("") => None,
            Some(_) => Some(part("users", "user")?),
        };
        let namespace = context.0["namespace"].as_str().filter(|name| !name.is_empty()).map(str::to_owned);
        build(cluster, user, namespace).map_err(unusable)
    }
}

fn usual_paths() -> Vec<PathBuf> {
    if let Some(list) = std::env::var_os("KUBECONFIG").filter(|list| !list.is_empty()) {
        return std::env::split_paths(&list).filter(|path| !path.as_os_str().is_empty()).collect();
    }
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_else(|| PathBuf::from("/root"));
    vec![home.join(".kube/config")]
}

fn read(paths: &[PathBuf], required: bool) -> Result<Vec<(Value, PathBuf)>, ConfigError> {
    let mut files = Vec::new();
    for path in paths {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !required => continue,
            Err(source) => return Err(ConfigError::Read { path: path.clone(), source }),
        };
        let malformed = |reason| ConfigError::Malformed { path: path.clone(), reason };
        let (value, _) = pod_api::yaml_to_json(&text).map_err(malformed)?;
        let directory = path.parent().map(Path::to_owned).unwrap_or_default();
        files.push((value, directory));
    }
    Ok(files)
}

fn find<'a>(files: &'a [(Value, PathBuf)], list: &str, name: &str, inner: &str) -> Option<Entry<'a>> {
    files.iter().find_map(|(file, directory)| {
        let entry = file[list].as_array()?.iter().find(|entry| entry["name"] == name)?;
        Some((&entry[inner], directory.as_path()))
    })
}

fn build(cluster: Entry<'_>, user: Option<Entry<'_>>, namespace: Option<String>) -> Result<Config, String> {
    let server = cluster.0["server"].as_str().unwrap_or_default().to_owned();
    if let Some(url) = cluster.0["proxy-url"].as_str() {
        return Err(format!("proxy-url \"{url}\" is not supported"));
    }
    let uri: http::Uri = server.parse().map_err(|_| format!("server \"{server}\" is no address"))?;
    let host = uri.host().ok_or_else(|| format!("server \"{server}\" has no host"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let secure = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err(format!("server \"{server}\" is neither https nor http")),
    };
    let tls = match secure {
        true => {
            let name = cluster.0["tls-server-name"].as_str().unwrap_or(&host).to_owned();
            let name = ServerName::try_from(name.clone()).map_err(|_| format!("\"{name}\" is no server's name"))?;
            Some((Arc::new(tls(cluster, user)?), name))
        }
        false => None,
    };
    Ok(Config {
        port: uri.port_u16().unwrap_or(if secure { 443 } else { 80 }),
        prefix: uri.path().trim_end_matches('/').to_owned(),
        token: user.map(token).transpose()?.flatten(),
        server,
        namespace,
        host,
        tls,
    })
}

fn tls(cluster: Entry<'_>, user: Option<Entry<'_>>) -> Result<rustls::ClientConfig, String> {
    if cluster.0["insecure-skip-tls-verify"] == true {
        return Err("insecure-skip-tls-verify is not supported; name the certificate-authority".to_owned());
    }
    let authority = data(cluster, "certificate-authority")?.ok_or("the cluster has no certificate-authority")?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&authority, "certificate-authority")? {
        roots.add(certificate).map_err(|error| format!("certificate-authority: {error}"))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    let pair = match user {
        Some(user) => (data(user, "client-certificate")?, data(user, "client-key")?),
        None => (None, None),
    };
    match pair {
        (Some(certificate), Some(key)) => {
            let chain = certificates(&certificate, "client-certificate")?;
            let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| format!("client-key: {error}"))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| format!("client-certificate: {error}"))
        }
        (None, None) => Ok(builder.with_no_client_auth()),
        _ => Err("a client-certificate needs a client-key, and the other way round".to_owned()),
    }
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(format!("{what}: there is no certificate in it")),
        Err(error) => Err(format!("{what}: {error}")),
    }
}

/// `NAME-data` (base64) or the file `NAME`.
fn data((entry, directory): Entry<'_>, name: &str) -> Result<Option<Vec<u8>>, String> {
    if let Some(text) = entry[format!("{name}-data")].as_str().filter(|text| !text.is_empty()) {
        return STANDARD.decode(text.trim()).map(Some).map_err(|error| format!("{name}-data: {error}"));
    }
    match entry[name].as_str().filter(|text| !text.is_empty()) {
        Some(path) => {
            let path = directory.join(path);
            std::fs::read(&path).map(Some).map_err(|error| format!("{name} `{}`: {error}", path.display()))
        }
        None => Ok(None),
    }
}

fn token((user, directory): Entry<'_>) -> Result<Option<String>, String> {
    for name in ["exec", "auth-provider", "username", "as"] {
        if user.get(name).is_some_and(|value| !value.is_null()) {
            return Err(format!("the user's \"{name}\" is not supported; use a token or a client certificate"));
        }
    }
    match (user["tokenFile"].as_str(), user["token"].as_str()) {
        (Some(path), _) if !path.is_empty() => {
            let path = directory.join(path);
            let text =
                std::fs::read_to_string(&path).map_err(|error| format!("tokenFile `{}`: {error}", path.display()))?;
            Ok(Some(text.trim().to_owned()))
        }
        (_, token) => Ok(token.filter(|token| !token.is_empty()).map(str::to_owned)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, context: &str) -> Result<Config, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config");
        std::fs::write(&path, text).unwrap();
        Config::load(Choice { kubeconfig: Some(&path), context }).map_err(|error| error.to_string())
    }

    const PLAIN: &str = "
clusters:
- {name: c, cluster: {server: 'http://[::1]:8001/p/'}}
- {name: s, cluster: {server: 'https://localhost', insecure-skip-tls-verify: true}}
users:
- {name: u, user: {token: t}}
- {name: e, user: {exec: {command: x}}}
contexts:
- {name: a, context: {cluster: c, user: u, namespace: ns}}
- {name: b, context: {cluster: s, user: u}}
- {name: d, context: {cluster: c, user: e}}
- {name: f, context: {cluster: gone}}
";

    #[test]
    fn a_context_names_server_user_and_namespace() {
        let config = load(PLAIN, "a").unwrap();
        assert_eq!((config.host.as_str(), config.port, config.prefix.as_str()), ("::1", 8001, "/p"));
        assert_eq!((config.token.as_deref(), config.namespace.as_deref()), (Some("t"), Some("ns")));
    }

    #[test]
    fn what_cannot_be_honoured_is_refused() {
        assert!(load(PLAIN, "b").unwrap_err().contains("insecure-skip-tls-verify is not supported"));
        assert!(load(PLAIN, "d").unwrap_err().contains("\"exec\" is not supported"));
        assert_eq!(load(PLAIN, "f").unwrap_err(), "context \"f\": there is no cluster \"gone\"");
        assert!(load(PLAIN, "z").unwrap_err().starts_with("no context \"z\" in "));
        assert!(load("a: [", "z").unwrap_err().contains("is no kubeconfig"));
    }
}
