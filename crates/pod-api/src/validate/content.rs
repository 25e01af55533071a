//! ConfigMaps and Secrets (`ValidateConfigMap`, `ValidateSecret`).

use k8s_openapi::api::core::v1::{ConfigMap, Secret};

use super::{format, metadata};
use crate::path::Path;
use crate::problem::Findings;

/// Bytes the values of one ConfigMap or Secret may have together.
const SIZE_LIMIT: usize = 1 << 20;

pub(super) fn config_map(map: &ConfigMap, findings: &mut Findings) {
    metadata::object(&map.metadata, &Path::of("metadata"), findings);
    let mut size = 0;
    for (key, value) in map.data.iter().flatten() {
        let path = Path::of("data").key(key);
        findings.each_invalid(&path, key, format::config_key(key));
        if map.binary_data.as_ref().is_some_and(|binary| binary.contains_key(key)) {
            findings.invalid(path, key.as_str(), "duplicate of key present in binaryData");
        }
        size += value.len();
    }
    for (key, value) in map.binary_data.iter().flatten() {
        findings.each_invalid(&Path::of("binaryData").key(key), key, format::config_key(key));
        size += value.0.len();
    }
    if size > SIZE_LIMIT {
        findings.too_long(Path::root(), SIZE_LIMIT);
    }
}

/// `stringData` must have been merged into `data`.
pub(super) fn secret(secret: &Secret, findings: &mut Findings) {
    metadata::object(&secret.metadata, &Path::of("metadata"), findings);
    let data = Path::of("data");
    let mut size = 0;
    for (key, value) in secret.data.iter().flatten() {
        findings.each_invalid(&data.key(key), key, format::config_key(key));
        size += value.0.len();
    }
    if size > SIZE_LIMIT {
        findings.too_long(data.clone(), SIZE_LIMIT);
    }
    let has = |key: &str| secret.data.as_ref().is_some_and(|data| data.contains_key(key));
    let required: &[&str] = match secret.type_.as_deref().unwrap_or_default() {
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => &["username", "password"],
        _ => &[],
    };
    for key in required {
        if !has(key) {
            findings.required(data.key(key), "");
        }
    }
    for key in [".dockercfg", ".dockerconfigjson"].iter().filter(|key| required.contains(key)) {
        let value = secret.data.as_ref().and_then(|data| data.get(*key));
        if value.is_some_and(|value| serde_json::from_slice::<serde::de::IgnoredAny>(&value.0).is_err()) {
            findings.invalid(data.key(key), "<secret contents redacted>", "must be valid JSON");
        }
    }
}
