//! The files of volumes whose content is Kubernetes data: configMap, secret, downwardAPI and projected. Writing them
//! atomically is the volume layer's job; here is only what they hold.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ConfigMapProjection, DownwardAPIVolumeFile, KeyToPath, SecretProjection, Volume, VolumeProjection,
};

use crate::context::PodContext;
use crate::downward::{self, DownwardError};

/// `defaultMode` of every volume here (API defaulting).
const DEFAULT_MODE: i32 = 0o644;

/// One regular file, relative to the volume's root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    pub path: String,
    /// Permission bits, before `fsGroup` widens them.
    pub mode: u32,
    pub data: Vec<u8>,
}

/// Why a volume cannot be filled, in upstream's words: the end of a `FailedMount` event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    #[error("configmap \"{0}\" not found")]
    ConfigMap(String),
    #[error("secret \"{0}\" not found")]
    Secret(String),
    #[error("configmap references non-existent config key: {0}")]
    ConfigMapKey(String),
    #[error("references non-existent secret key: {0}")]
    SecretKey(String),
    #[error(transparent)]
    Downward(#[from] DownwardError),
    #[error("downwardAPI file {0} has neither fieldRef nor resourceFieldRef")]
    NoField(String),
    #[error("projected volume source {0} is not supported")]
    Unsupported(&'static str),
    #[error("invalid path: must be relative path: {0}")]
    AbsolutePath(String),
    #[error("invalid path: must not contain '..': {0}")]
    Backstep(String),
    #[error("invalid path: must not start with '..': {0}")]
    LeadingDots(String),
    #[error("invalid path: must not be empty")]
    EmptyPath,
    #[error("path {inner} lies below {outer}, which is a file")]
    Nested { outer: String, inner: String },
    #[error("volume {0} is not of a type made from Kubernetes data")]
    NotContent(String),
    /// A projected volume reports all its sources at once.
    #[error("[{}]", .0.iter().map(ContentError::to_string).collect::<Vec<_>>().join(", "))]
    Several(Vec<ContentError>),
}

impl ContentError {
    /// The whole text of the `FailedMount` event.
    pub fn event_text(&self, volume: &str) -> String {
        format!("MountVolume.SetUp failed for volume \"{volume}\" : {self}")
    }
}

/// Whether [`files`] can be asked for this volume.
pub fn is_content(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some()
}

/// The volume's files, sorted by path. A missing optional object gives none.
pub fn files(volume: &Volume, cx: &PodContext<'_>) -> Result<Vec<FileEntry>, ContentError> {
    let mut payload = Payload::default();
    if let Some(source) = &volume.config_map {
        let projection =
            ConfigMapProjection { name: source.name.clone(), items: source.items.clone(), optional: source.optional };
        config_map(&mut payload, &projection, source.default_mode.unwrap_or(DEFAULT_MODE), cx)?;
    } else if let Some(source) = &volume.secret {
        let projection = SecretProjection {
            name: source.secret_name.clone().unwrap_or_default(),
            items: source.items.clone(),
            optional: source.optional,
        };
        secret(&mut payload, &projection, source.default_mode.unwrap_or(DEFAULT_MODE), cx)?;
    } else if let Some(source) = &volume.downward_api {
        let items = source.items.as_deref().unwrap_or_default();
        downward_api(&mut payload, items, source.default_mode.unwrap_or(DEFAULT_MODE), cx)?;
    } else if let Some(source) = &volume.projected {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let sources = source.sources.iter().flatten();
        let errors = sources.filter_map(|source| projected(&mut payload, source, mode, cx).err()).collect();
        all_or_nothing(errors)?;
    } else {
        return Err(ContentError::NotContent(volume.name.clone()));
    }
    payload.finish()
}

fn projected(
    payload: &mut Payload,
    source: &VolumeProjection,
    default_mode: i32,
    cx: &PodContext<'_>,
) -> Result<(), ContentError> {
    if let Some(source) = &source.config_map {
        config_map(payload, source, default_mode, cx)
    } else if let Some(source) = &source.secret {
        secret(payload, source, default_mode, cx)
    } else if let Some(source) = &source.downward_api {
        downward_api(payload, source.items.as_deref().unwrap_or_default(), default_mode, cx)
    } else if source.service_account_token.is_some() {
        Err(ContentError::Unsupported("serviceAccountToken"))
    } else if source.cluster_trust_bundle.is_some() {
        Err(ContentError::Unsupported("clusterTrustBundle"))
    } else if source.pod_certificate.is_some() {
        Err(ContentError::Unsupported("podCertificate"))
    } else {
        Ok(())
    }
}

fn config_map(
    payload: &mut Payload,
    source: &ConfigMapProjection,
    default_mode: i32,
    cx: &PodContext<'_>,
) -> Result<(), ContentError> {
    let optional = source.optional == Some(true);
    let found = cx.objects.config_map(cx.namespace(), &source.name);
    if found.is_none() && !optional {
        return Err(ContentError::ConfigMap(source.name.clone()));
    }
    let mut data: BTreeMap<&str, &[u8]> = BTreeMap::new();
    if let Some(found) = found {
        data.extend(found.data.iter().flatten().map(|(key, text)| (key.as_str(), text.as_bytes())));
        data.extend(found.binary_data.iter().flatten().map(|(key, bytes)| (key.as_str(), bytes.0.as_slice())));
    }
    keys(payload, &data, source.items.as_deref(), default_mode, optional, ContentError::ConfigMapKey)
}

fn secret(
    payload: &mut Payload,
    source: &SecretProjection,
    default_mode: i32,
    cx: &PodContext<'_>,
) -> Result<(), ContentError> {
    let optional = source.optional == Some(true);
    let found = cx.objects.secret(cx.namespace(), &source.name);
    if found.is_none() && !optional {
        return Err(ContentError::Secret(source.name.clone()));
    }
    let data = found.and_then(|found| found.data.as_ref()).into_iter().flatten();
    let data = data.map(|(key, bytes)| (key.as_str(), bytes.0.as_slice())).collect();
    keys(payload, &data, source.items.as_deref(), default_mode, optional, ContentError::SecretKey)
}

/// All keys as files of their names or, with `items`, only those listed.
fn keys(
    payload: &mut Payload,
    data: &BTreeMap<&str, &[u8]>,
    items: Option<&[KeyToPath]>,
    default_mode: i32,
    optional: bool,
    missing: fn(String) -> ContentError,
) -> Result<(), ContentError> {
    let items = items.unwrap_or_default();
    if items.is_empty() {
        return data.iter().try_for_each(|(key, bytes)| payload.put(key, default_mode, bytes));
    }
    for item in items {
        match data.get(item.key.as_str()) {
            Some(bytes) => payload.put(&item.path, item.mode.unwrap_or(default_mode), bytes)?,
            None if optional => {}
            None => return Err(missing(item.key.clone())),
        }
    }
    Ok(())
}

fn downward_api(
    payload: &mut Payload,
    items: &[DownwardAPIVolumeFile],
    default_mode: i32,
    cx: &PodContext<'_>,
) -> Result<(), ContentError> {
    let mut errors = Vec::new();
    for item in items {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(selector), _) => downward::file(selector, cx).map_err(ContentError::from),
            (None, Some(selector)) => downward::resource(selector, None, cx).map_err(ContentError::from),
            (None, None) => Err(ContentError::NoField(item.path.clone())),
        };
        let put = text.and_then(|text| payload.put(&item.path, item.mode.unwrap_or(default_mode), text.as_bytes()));
        errors.extend(put.err());
    }
    all_or_nothing(errors)
}

fn all_or_nothing(mut errors: Vec<ContentError>) -> Result<(), ContentError> {
    match errors.len() {
        0 => Ok(()),
        1 => Err(errors.remove(0)),
        _ => Err(ContentError::Several(errors)),
    }
}

/// Files by cleaned path, so that a later source replaces an earlier one.
#[derive(Debug, Default)]
struct Payload {
    files: BTreeMap<String, (u32, Vec<u8>)>,
}

impl Payload {
    fn put(&mut self, path: &str, mode: i32, data: &[u8]) -> Result<(), ContentError> {
        // Only permission bits: a manifest can set neither setuid nor anything above.
        let mode = u32::try_from(mode).unwrap_or_default() & 0o777;
        self.files.insert(clean(path)?, (mode, data.to_vec()));
        Ok(())
    }

    fn finish(self) -> Result<Vec<FileEntry>, ContentError> {
        for inner in self.files.keys() {
            let outer = inner.match_indices('/').map(|(slash, _)| &inner[..slash]);
            if let Some(outer) = outer.into_iter().find(|outer| self.files.contains_key(*outer)) {
                return Err(ContentError::Nested { outer: outer.to_owned(), inner: inner.clone() });
            }
        }
        let files = self.files.into_iter();
        Ok(files.map(|(path, (mode, data))| FileEntry { path, mode, data }).collect())
    }
}

/// A path that stays inside the volume and clear of the atomic writer's own names (`..data`).
fn clean(path: &str) -> Result<String, ContentError> {
    if path.starts_with('/') {
        return Err(ContentError::AbsolutePath(path.to_owned()));
    }
    if path.split('/').any(|part| part == "..") {
        return Err(ContentError::Backstep(path.to_owned()));
    }
    let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    match parts.first() {
        None => Err(ContentError::EmptyPath),
        Some(first) if first.starts_with("..") => Err(ContentError::LeadingDots(path.to_owned())),
        Some(_) => Ok(parts.join("/")),
    }
}

#[cfg(test)]
mod tests;
