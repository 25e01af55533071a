//! The JSON documents of an image: index, manifest, config. OCI's and Docker's (schema 2) differ only in media types, so
//! one set of types reads both. Fields we do not use are ignored: documents are kept as the bytes they came in.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::{compression::Compression, digest::Digest, platform::Platform};

#[cfg(test)]
mod tests;

pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub(crate) const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
pub(crate) const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// What Docker writes into the manifests of local layers.
const DOCKER_LAYER_LOCAL: &str = "application/vnd.docker.image.rootfs.diff.tar.gz";
const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
const DOCKER_SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1";

/// distribution-spec asks clients and registries to accept manifests up to this many bytes.
pub(crate) const MAX_MANIFEST: u64 = 4 << 20;
/// Bytes of a config. Real ones have a few kilobytes; history and labels can grow them.
pub(crate) const MAX_CONFIG: u64 = 8 << 20;
/// overlayfs stacks at most 500 lower layers.
const MAX_LAYERS: usize = 500;

/// Why a document is not one we can run an image from.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("image manifest is not valid JSON of the expected form")]
    Json { source: serde_json::Error },
    #[error("image manifest has the media type `{0}`, which is neither OCI's nor Docker schema 2")]
    MediaType(String),
    #[error("image manifest has schema version {0}; only version 2 is supported")]
    SchemaVersion(u64),
    #[error("image manifest is an index and a manifest at once")]
    Ambiguous,
    #[error("image manifest has {0} layers; at most {MAX_LAYERS} are supported")]
    TooManyLayers(usize),
    #[error("`{0}` is no container image: its config has this media type")]
    NotAnImage(String),
    #[error("layer {digest} has the media type `{media_type}`, which is not supported")]
    LayerType { digest: Digest, media_type: String },
    #[error("image config is not valid JSON of the expected form")]
    Config { source: serde_json::Error },
    #[error("image config names {diff_ids} layers and the manifest {layers}")]
    LayerCount { diff_ids: usize, layers: usize },
}

/// How to run the image's program, from its config (image-spec, `config`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    /// In the image's order. An entry without `=` is a variable set to nothing.
    pub env: Vec<(String, String)>,
    /// `uid`, `name`, `uid:gid` …; empty is root.
    pub user: String,
    /// Empty is `/`.
    pub working_dir: String,
    /// `SIGTERM`, `15` …
    pub stop_signal: Option<String>,
    pub labels: BTreeMap<String, String>,
    /// `8080/tcp`
    pub exposed_ports: Vec<String>,
    pub volumes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub schema_version: u64,
    pub media_type: String,
    pub config: Descriptor,
    /// Bottom first.
    pub layers: Vec<Descriptor>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    pub schema_version: u64,
    pub media_type: String,
    pub manifests: Vec<Descriptor>,
}

#[derive(Debug)]
pub(crate) enum Document {
    Index(Index),
    Manifest(Manifest),
}

/// The config blob, as far as we read it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ConfigFile {
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(default, deserialize_with = "null_is_empty")]
    pub config: RawConfig,
    pub rootfs: RootFs,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct RootFs {
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Digests of the uncompressed layers, bottom first.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub diff_ids: Vec<Digest>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct RawConfig {
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "String::is_empty")]
    pub user: String,
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, serde_json::Value>,
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, serde_json::Value>,
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
}

impl Document {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Document, ManifestError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Raw {
            #[serde(default)]
            schema_version: u64,
            #[serde(default, deserialize_with = "null_is_empty")]
            media_type: String,
            config: Option<Descriptor>,
            layers: Option<Vec<Descriptor>>,
            manifests: Option<Vec<Descriptor>>,
        }
        let raw: Raw = serde_json::from_slice(bytes).map_err(|source| ManifestError::Json { source })?;
        if raw.media_type.starts_with(DOCKER_SCHEMA_1) || raw.schema_version != 2 {
            return Err(ManifestError::SchemaVersion(raw.schema_version));
        }
        // A document that two readers could take for different things is an attack, not an image (CVE-2021-41190).
        match (raw.manifests, raw.config, raw.layers) {
            (Some(manifests), None, None) => {
                let media_type = known(raw.media_type, &[OCI_INDEX, DOCKER_INDEX])?;
                Ok(Document::Index(Index { schema_version: 2, media_type, manifests }))
            }
            (None, Some(config), layers) => {
                let media_type = known(raw.media_type, &[OCI_MANIFEST, DOCKER_MANIFEST])?;
                let manifest = Manifest { schema_version: 2, media_type, config, layers: layers.unwrap_or_default() };
                manifest.check()?;
                Ok(Document::Manifest(manifest))
            }
            (None, None, _) => Err(ManifestError::MediaType(raw.media_type)),
            _ => Err(ManifestError::Ambiguous),
        }
    }
}

impl Manifest {
    /// Config and layers.
    pub(crate) fn blobs(&self) -> Vec<Digest> {
        let layers = self.layers.iter().map(|layer| &layer.digest);
        std::iter::once(&self.config.digest).chain(layers).cloned().collect()
    }

    fn check(&self) -> Result<(), ManifestError> {
        let config = self.config.media_type.as_str();
        if !["", OCI_CONFIG, DOCKER_CONFIG, "application/octet-stream"].contains(&config) {
            return Err(ManifestError::NotAnImage(config.to_owned()));
        }
        if self.layers.len() > MAX_LAYERS {
            return Err(ManifestError::TooManyLayers(self.layers.len()));
        }
        const LAYERS: [&str; 7] = [
            OCI_LAYER,
            OCI_LAYER_GZIP,
            OCI_LAYER_ZSTD,
            DOCKER_LAYER,
            DOCKER_LAYER_GZIP,
            DOCKER_LAYER_ZSTD,
            DOCKER_LAYER_LOCAL,
        ];
        match self.layers.iter().find(|layer| !LAYERS.contains(&layer.media_type.as_str())) {
            Some(layer) => {
                Err(ManifestError::LayerType { digest: layer.digest.clone(), media_type: layer.media_type.clone() })
            }
            None => Ok(()),
        }
    }
}

impl Descriptor {
    pub(crate) fn new(media_type: &str, digest: Digest, size: u64) -> Descriptor {
        let media_type = media_type.to_owned();
        Descriptor { media_type, digest, size, platform: None, annotations: BTreeMap::new() }
    }
}

/// OCI's name for a layer type of Docker's: one manifest should not mix them.
pub(crate) fn oci_layer_type(media_type: &str) -> &str {
    match media_type {
        DOCKER_LAYER => OCI_LAYER,
        DOCKER_LAYER_GZIP | DOCKER_LAYER_LOCAL => OCI_LAYER_GZIP,
        DOCKER_LAYER_ZSTD => OCI_LAYER_ZSTD,
        other => other,
    }
}

/// OCI's name for a tar compressed so.
pub(crate) fn layer_type(compression: Compression) -> &'static str {
    match compression {
        Compression::None => OCI_LAYER,
        Compression::Gzip => OCI_LAYER_GZIP,
        Compression::Zstd => OCI_LAYER_ZSTD,
    }
}

impl Index {
    /// The image that runs best on `platform`. The first of equals wins, as containerd does.
    pub(crate) fn select(&self, platform: &Platform) -> Option<&Descriptor> {
        let mut best: Option<(u32, &Descriptor)> = None;
        for entry in &self.manifests {
            let Some(rank) = entry.platform.as_ref().and_then(|offered| platform.rank(offered)) else { continue };
            if best.is_none_or(|(known, _)| rank > known) {
                best = Some((rank, entry));
            }
        }
        match (best, self.manifests.as_slice()) {
            (Some((_, entry)), _) => Some(entry),
            // Tools that make images for one platform leave it out; the config tells.
            (None, [only]) if only.platform.is_none() => Some(only),
            _ => None,
        }
    }

    /// What there is, for the message when nothing fits. Attestations (`unknown/unknown`) are not worth a mention.
    pub(crate) fn platforms(&self) -> Vec<String> {
        let known = self.manifests.iter().filter_map(|entry| entry.platform.as_ref());
        known.filter(|platform| platform.os != "unknown").map(Platform::to_string).collect()
    }
}

impl ConfigFile {
    /// A config for `platform` that depends on nothing but its arguments.
    pub(crate) fn new(platform: &Platform, config: RawConfig, diff_ids: Vec<Digest>) -> ConfigFile {
        ConfigFile {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            // What we pack runs on every variant of the architecture.
            variant: None,
            created: Some("1970-01-01T00:00:00Z".to_owned()),
            config,
            rootfs: RootFs { kind: "layers".to_owned(), diff_ids },
        }
    }

    /// Reads a config and checks that it has a diff id for each of the manifest's `layers`.
    pub(crate) fn parse(bytes: &[u8], layers: usize) -> Result<ConfigFile, ManifestError> {
        let file: ConfigFile = serde_json::from_slice(bytes).map_err(|source| ManifestError::Config { source })?;
        match file.rootfs.diff_ids.len() {
            diff_ids if diff_ids == layers => Ok(file),
            diff_ids => Err(ManifestError::LayerCount { diff_ids, layers }),
        }
    }

    /// `None` where the config does not say.
    pub(crate) fn platform(&self) -> Option<Platform> {
        if self.os.is_empty() || self.architecture.is_empty() {
            return None;
        }
        Some(Platform {
            os: self.os.clone(),
            architecture: self.architecture.clone(),
            variant: self.variant.clone().filter(|variant| !variant.is_empty()),
        })
    }
}

impl From<RawConfig> for ImageConfig {
    fn from(raw: RawConfig) -> ImageConfig {
        let pair = |entry: String| match entry.split_once('=') {
            Some((key, value)) => (key.to_owned(), value.to_owned()),
            None => (entry, String::new()),
        };
        ImageConfig {
            entrypoint: raw.entrypoint,
            cmd: raw.cmd,
            env: raw.env.into_iter().map(pair).collect(),
            user: raw.user,
            working_dir: raw.working_dir,
            stop_signal: Some(raw.stop_signal).filter(|signal| !signal.is_empty()),
            labels: raw.labels,
            exposed_ports: raw.exposed_ports.into_keys().collect(),
            volumes: raw.volumes.into_keys().collect(),
        }
    }
}

fn known(media_type: String, expected: &[&str]) -> Result<String, ManifestError> {
    match media_type.as_str() {
        // OCI lets a manifest leave its own type out.
        "" => Ok(expected[0].to_owned()),
        known if expected.contains(&known) => Ok(media_type),
        _ => Err(ManifestError::MediaType(media_type)),
    }
}

/// Go writes `null` for an empty slice, map or struct.
fn null_is_empty<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
