//! A container's environment and command line, resolved to plain text.
//!
//! Low to high: the runtime's own variables < image < services < `envFrom` < `env`. Only what the manifest and services
//! declare can be referred to by `$(NAME)`; the image's variables cannot, as in Kubernetes.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Container, EnvFromSource, EnvVarSource, VolumeMount};

use crate::context::PodContext;
use crate::downward::{self, DownwardError};
use crate::expansion::expand;

/// `PATH` of an image that sets none (containerd's default).
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a container cannot be configured: the message of `CreateContainerConfigError`, in upstream's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("configmap \"{0}\" not found")]
    ConfigMap(String),
    #[error("secret \"{0}\" not found")]
    Secret(String),
    #[error("couldn't find key {key} in ConfigMap {namespace}/{name}")]
    ConfigMapKey { namespace: String, name: String, key: String },
    #[error("couldn't find key {key} in Secret {namespace}/{name}")]
    SecretKey { namespace: String, name: String, key: String },
    /// The kernel passes any bytes but NUL; we promise text to the layers below.
    #[error("environment variable {variable} from key {key} in {object} is not valid UTF-8")]
    NotText { variable: String, key: String, object: String },
    #[error("environment variable {0:?} contains a NUL byte")]
    Nul(String),
    #[error("fileKeyRef of environment variable {0} is not supported")]
    FileKeyRef(String),
    #[error("valueFrom of environment variable {0} names no source")]
    NoSource(String),
    #[error(transparent)]
    Downward(#[from] DownwardError),
    #[error("missing value for {0:?}")]
    MissingReference(String),
    #[error("error SubPath `{0}` must not be an absolute path")]
    AbsoluteSubPath(String),
    #[error("unable to provision SubPath `{0}`: must not contain '..'")]
    BackstepSubPath(String),
}

/// Variables in the order they first appeared, each name once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// From services, `envFrom` and `env`: what `$(NAME)` in commands and sub paths may refer to.
    pub declared: Vec<(String, String)>,
    /// What the process gets: `declared` over the image's variables, `PATH`, `HOSTNAME` and, with a terminal, `TERM`.
    pub all: Vec<(String, String)>,
}

/// `image_env` is the image config's `Env` (`NAME=value` each); `services` are variables for the services of the pod's
/// namespace (empty without an API server).
pub fn resolve(
    container: &Container,
    image_env: &[String],
    services: &[(String, String)],
    cx: &PodContext<'_>,
) -> Result<Environment, ConfigError> {
    let mut declared = Variables::default();
    for source in container.env_from.iter().flatten() {
        extend_from(&mut declared, source, cx)?;
    }
    let services: Vec<_> = services.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    for variable in container.env.iter().flatten() {
        let written = variable.value.as_deref().filter(|value| !value.is_empty());
        let value = match (written, &variable.value_from) {
            (Some(text), _) => {
                let known = |name: &str| declared.get(name).or_else(|| find(&services, name));
                Some(expand(text, known))
            }
            (None, Some(source)) => value_from(&variable.name, source, container, cx)?,
            (None, None) => Some(String::new()),
        };
        if let Some(value) = value {
            declared.set(&variable.name, value);
        }
    }
    for (name, value) in services {
        if declared.get(name).is_none() {
            declared.set(name, value.to_owned());
        }
    }

    let mut all = Variables::default();
    all.set("PATH", DEFAULT_PATH.to_owned());
    all.set("HOSTNAME", cx.hostname.to_owned());
    if container.tty == Some(true) {
        all.set("TERM", "xterm".to_owned());
    }
    for entry in image_env {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        all.set(name, value.to_owned());
    }
    for (name, value) in &declared.list {
        all.set(name, value.clone());
    }
    if let Some((name, _)) = all.list.iter().find(|(name, value)| name.contains('\0') || value.contains('\0')) {
        return Err(ConfigError::Nul(name.clone()));
    }
    Ok(Environment { declared: declared.list, all: all.list })
}

/// The command line: `command` replaces the image's entrypoint and drops its arguments, `args` alone replaces the
/// arguments. References are to `declared` variables. Empty when neither pod nor image names a program.
pub fn command(
    container: &Container,
    image_entrypoint: &[String],
    image_cmd: &[String],
    declared: &[(String, String)],
) -> Vec<String> {
    let expanded = |texts: &[String]| -> Vec<String> {
        texts.iter().map(|text| expand(text, |name| lookup(declared, name))).collect()
    };
    let own_command = container.command.as_deref().unwrap_or_default();
    let own_args = container.args.as_deref().unwrap_or_default();
    match (own_command, own_args) {
        ([], []) => [image_entrypoint, image_cmd].concat(),
        ([], args) => [image_entrypoint, &expanded(args)].concat(),
        (command, args) => [expanded(command), expanded(args)].concat(),
    }
}

/// The path below the volume's root that a mount shows, if not the root: `subPath`, or `subPathExpr` expanded.
pub fn sub_path(mount: &VolumeMount, declared: &[(String, String)]) -> Result<Option<String>, ConfigError> {
    let path = match (mount.sub_path.as_deref(), mount.sub_path_expr.as_deref()) {
        (Some(path), _) if !path.is_empty() => path.to_owned(),
        (_, Some(expression)) if !expression.is_empty() => return sub_path_expr(expression, declared).map(Some),
        _ => return Ok(None),
    };
    checked_sub_path(path).map(Some)
}

/// Expands a `subPathExpr`; unlike in commands, an unknown name is an error.
pub fn sub_path_expr(expression: &str, declared: &[(String, String)]) -> Result<String, ConfigError> {
    let mut missing = None;
    let path = expand(expression, |name| {
        let value = lookup(declared, name);
        if value.is_none() {
            missing.get_or_insert_with(|| name.to_owned());
        }
        value
    });
    missing.map_or(Ok(()), |name| Err(ConfigError::MissingReference(name)))?;
    checked_sub_path(path)
}

fn checked_sub_path(path: String) -> Result<String, ConfigError> {
    if path.starts_with('/') {
        return Err(ConfigError::AbsoluteSubPath(path));
    }
    if path.split('/').any(|part| part == "..") {
        return Err(ConfigError::BackstepSubPath(path));
    }
    Ok(path)
}

fn extend_from(variables: &mut Variables, source: &EnvFromSource, cx: &PodContext<'_>) -> Result<(), ConfigError> {
    let prefix = source.prefix.as_deref().unwrap_or_default();
    if let Some(reference) = &source.config_map_ref {
        match cx.objects.config_map(cx.namespace(), &reference.name) {
            Some(config_map) => {
                for (key, value) in config_map.data.iter().flatten() {
                    variables.set(&format!("{prefix}{key}"), value.clone());
                }
            }
            None if reference.optional == Some(true) => {}
            None => return Err(ConfigError::ConfigMap(reference.name.clone())),
        }
    } else if let Some(reference) = &source.secret_ref {
        match cx.objects.secret(cx.namespace(), &reference.name) {
            Some(secret) => {
                for (key, value) in secret.data.iter().flatten() {
                    let variable = format!("{prefix}{key}");
                    let value = secret_text(&variable, key, &reference.name, &value.0, cx)?;
                    variables.set(&variable, value);
                }
            }
            None if reference.optional == Some(true) => {}
            None => return Err(ConfigError::Secret(reference.name.clone())),
        }
    }
    Ok(())
}

/// `None` leaves the variable out: its source is optional and missing.
fn value_from(
    variable: &str,
    source: &EnvVarSource,
    container: &Container,
    cx: &PodContext<'_>,
) -> Result<Option<String>, ConfigError> {
    let namespace = cx.namespace();
    if let Some(selector) = &source.field_ref {
        Ok(Some(downward::variable(selector, cx)?))
    } else if let Some(selector) = &source.resource_field_ref {
        Ok(Some(downward::resource(selector, Some(container), cx)?))
    } else if let Some(selector) = &source.config_map_key_ref {
        let (name, key) = (selector.name.clone(), selector.key.clone());
        let config_map = cx.objects.config_map(namespace, &name);
        let value = config_map.map(|config_map| config_map.data.as_ref().and_then(|data| data.get(&key)));
        match value {
            Some(Some(value)) => Ok(Some(value.clone())),
            _ if selector.optional == Some(true) => Ok(None),
            Some(None) => Err(ConfigError::ConfigMapKey { namespace: namespace.to_owned(), name, key }),
            None => Err(ConfigError::ConfigMap(name)),
        }
    } else if let Some(selector) = &source.secret_key_ref {
        let (name, key) = (selector.name.clone(), selector.key.clone());
        let secret = cx.objects.secret(namespace, &name);
        let value = secret.map(|secret| secret.data.as_ref().and_then(|data| data.get(&key)));
        match value {
            Some(Some(value)) => secret_text(variable, &key, &name, &value.0, cx).map(Some),
            _ if selector.optional == Some(true) => Ok(None),
            Some(None) => Err(ConfigError::SecretKey { namespace: namespace.to_owned(), name, key }),
            None => Err(ConfigError::Secret(name)),
        }
    } else if source.file_key_ref.is_some() {
        Err(ConfigError::FileKeyRef(variable.to_owned()))
    } else {
        Err(ConfigError::NoSource(variable.to_owned()))
    }
}

fn secret_text(
    variable: &str,
    key: &str,
    name: &str,
    value: &[u8],
    cx: &PodContext<'_>,
) -> Result<String, ConfigError> {
    let text = std::str::from_utf8(value).map_err(|_| ConfigError::NotText {
        variable: variable.to_owned(),
        key: key.to_owned(),
        object: format!("Secret {}/{name}", cx.namespace()),
    })?;
    Ok(text.to_owned())
}

/// Variables by name, in the order of their first setting.
#[derive(Debug, Default)]
struct Variables {
    list: Vec<(String, String)>,
    places: HashMap<String, usize>,
}

impl Variables {
    fn set(&mut self, name: &str, value: String) {
        match self.places.get(name) {
            Some(&place) => self.list[place].1 = value,
            None => {
                self.places.insert(name.to_owned(), self.list.len());
                self.list.push((name.to_owned(), value));
            }
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.places.get(name).map(|&place| self.list[place].1.as_str())
    }
}

fn find<'a>(variables: &[(&'a str, &'a str)], name: &str) -> Option<&'a str> {
    variables.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

fn lookup<'a>(variables: &'a [(String, String)], name: &str) -> Option<&'a str> {
    variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

#[cfg(test)]
mod tests;
