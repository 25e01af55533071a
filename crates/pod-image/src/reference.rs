//! Image references: what a person writes (`alpine`, `localhost:5000/app@sha256:…`) and the one full form that everything
//! else uses. Grammar and normalising are those of Docker and containerd (distribution/reference), so that a manifest means
//! the same image here as in a cluster.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, DigestError};

#[cfg(test)]
mod tests;

/// The registry that a reference without one means.
const DEFAULT_REGISTRY: &str = "docker.io";
/// Docker Hub's old name, still found in manifests and credential files.
const LEGACY_DEFAULT_REGISTRY: &str = "index.docker.io";
/// Where one-word names live on Docker Hub.
const OFFICIAL_NAMESPACE: &str = "library/";
const DEFAULT_TAG: &str = "latest";
/// distribution/reference limits registry and repository together.
const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;
/// Our own images live below this name on a registry that does not exist.
const BUILTIN_REGISTRY: &str = "localhost";
const BUILTIN_NAMESPACE: &str = "outrigger/";

/// A checked, normalised image reference. [`fmt::Display`] is the full form, e.g. `docker.io/library/alpine:latest`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is no image reference.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParseReferenceError {
    #[error("image reference is empty")]
    Empty,
    #[error("image reference `{0}` has a repository name with upper case letters; it must be lower case")]
    UpperCase(String),
    #[error("image reference `{0}` is longer than {MAX_NAME} characters before its tag")]
    TooLong(String),
    #[error("image reference `{reference}` has an invalid registry `{registry}`")]
    Registry { reference: String, registry: String },
    #[error("image reference `{reference}` has an invalid repository name `{repository}`")]
    Repository { reference: String, repository: String },
    #[error("image reference `{reference}` has an invalid tag `{tag}`")]
    Tag { reference: String, tag: String },
    #[error("image reference `{reference}` has an invalid digest")]
    Digest { reference: String, source: DigestError },
    #[error("image reference `{0}` looks like an image id; a name cannot be 64 hexadecimal digits")]
    LooksLikeId(String),
}

impl Reference {
    /// The registry's host, with its port if one was written: `docker.io`, `localhost:5000`, `[::1]:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path below the registry: `library/alpine`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// `None` only when a digest was given without a tag.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Registry and repository: `docker.io/library/alpine`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The shortest text that means the same: `alpine:latest`.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        if self.registry != DEFAULT_REGISTRY {
            return full;
        }
        let rest = &full[DEFAULT_REGISTRY.len() + 1..];
        match rest.strip_prefix(OFFICIAL_NAMESPACE) {
            // Cut only if what remains would be completed to the same again.
            Some(short) if !short.contains('/') => short.to_owned(),
            _ => rest.to_owned(),
        }
    }

    /// The same repository, pinned to `digest`, without a tag.
    pub fn at(&self, digest: Digest) -> Reference {
        Reference { digest: Some(digest), tag: None, ..self.clone() }
    }

    /// Whether a pull policy that was not given means `Always`: the tag is `latest`, or there is neither tag nor digest.
    /// A digest beside the tag `latest` does not change that (Kubernetes' `SetDefaults_Container`).
    pub fn is_latest_or_untagged(&self) -> bool {
        self.tag.as_deref() == Some(DEFAULT_TAG)
    }

    /// `localhost/outrigger/NAME:VERSION` stands for a program beside the engine and is never asked of a registry.
    pub fn is_builtin(&self) -> bool {
        self.builtin_name().is_some()
    }

    /// `NAME` of `localhost/outrigger/NAME:VERSION`.
    pub fn builtin_name(&self) -> Option<&str> {
        if self.registry != BUILTIN_REGISTRY {
            return None;
        }
        self.repository.strip_prefix(BUILTIN_NAMESPACE).filter(|name| !name.contains('/'))
    }

    /// What the store files the image under. As with Docker, a digest wins over the tag beside it: the tag was not
    /// asked for and may point elsewhere.
    pub(crate) fn store_name(&self) -> String {
        match &self.digest {
            Some(digest) => format!("{}@{digest}", self.name()),
            None => self.to_string(),
        }
    }
}

impl FromStr for Reference {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let reference = || text.to_owned();
        if text.is_empty() {
            return Err(ParseReferenceError::Empty);
        }
        if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(ParseReferenceError::LooksLikeId(reference()));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest =
                    digest.parse().map_err(|source| ParseReferenceError::Digest { reference: reference(), source })?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        // A colon behind the last slash starts a tag; before it, a port.
        let path_start = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest[path_start..].find(':') {
            Some(colon) => (&rest[..path_start + colon], Some(&rest[path_start + colon + 1..])),
            None => (rest, None),
        };
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(ParseReferenceError::Tag { reference: reference(), tag: tag.to_owned() });
        }
        let (registry, repository) = split_registry(name);
        if !is_registry(registry) {
            return Err(ParseReferenceError::Registry { reference: reference(), registry: registry.to_owned() });
        }
        if repository.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(ParseReferenceError::UpperCase(reference()));
        }
        if !repository.split('/').all(is_path_component) {
            return Err(ParseReferenceError::Repository { reference: reference(), repository: repository.to_owned() });
        }
        let registry = if registry == LEGACY_DEFAULT_REGISTRY { DEFAULT_REGISTRY } else { registry };
        let repository = if registry == DEFAULT_REGISTRY && !repository.contains('/') {
            format!("{OFFICIAL_NAMESPACE}{repository}")
        } else {
            repository.to_owned()
        };
        if registry.len() + 1 + repository.len() > MAX_NAME {
            return Err(ParseReferenceError::TooLong(reference()));
        }
        let tag = match (tag, &digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some(DEFAULT_TAG.to_owned()),
        };
        Ok(Reference { registry: registry.to_owned(), repository, tag, digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl TryFrom<String> for Reference {
    type Error = ParseReferenceError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> String {
        reference.to_string()
    }
}

/// The first component is a registry only if it cannot be part of a Docker Hub name: it has a dot or a colon, is
/// `localhost`, or has upper case letters.
fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_REGISTRY, name),
    }
}

fn is_registry(registry: &str) -> bool {
    let (host, port) = if let Some(rest) = registry.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        if address.parse::<std::net::Ipv6Addr>().is_err() {
            return false;
        }
        match port.strip_prefix(':') {
            Some(port) => return is_port(port),
            None => return port.is_empty(),
        }
    } else {
        match registry.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (registry, None),
        }
    };
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.split('.').all(is_label) && port.is_none_or(is_port)
}

fn is_port(port: &str) -> bool {
    !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= MAX_TAG
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

/// Lower-case letters and digits in groups, between them one `.`, one or two `_`, or any number of `-`.
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    if !alphanumeric(first) || !alphanumeric(last) {
        return false;
    }
    bytes
        .split(|&b| alphanumeric(b))
        .all(|separator| matches!(separator, [] | b"." | b"_" | b"__") || separator.iter().all(|&b| b == b'-'))
}
