//! Environment variables and what a downward-API reference may name (`ValidateEnv`, `validateObjectFieldSelector`).

use k8s_openapi::api::core::v1::{
    ConfigMapKeySelector, Container, EnvFromSource, EnvVar, EnvVarSource, ObjectFieldSelector, ResourceFieldSelector,
    SecretKeySelector,
};

use super::format;
use crate::path::Path;
use crate::problem::Findings;

const FIELDS_FOR_VARIABLES: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

pub(super) const FIELDS_FOR_FILES: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

const ONE_AT_A_TIME: &str = "may not have more than one field specified at a time";

pub(super) fn container(container: &Container, path: &Path, findings: &mut Findings) {
    for (index, variable) in container.env.iter().flatten().enumerate() {
        self::variable(variable, &path.field("env").index(index), findings);
    }
    for (index, source) in container.env_from.iter().flatten().enumerate() {
        from(source, &path.field("envFrom").index(index), findings);
    }
}

fn variable(variable: &EnvVar, path: &Path, findings: &mut Findings) {
    if variable.name.is_empty() {
        findings.required(path.field("name"), "");
    } else {
        findings.each_invalid(&path.field("name"), &variable.name, format::environment_name(&variable.name));
    }
    if let Some(source) = &variable.value_from {
        let has_value = variable.value.as_deref().is_some_and(|value| !value.is_empty());
        value_from(source, has_value, &path.field("valueFrom"), findings);
    }
}

fn value_from(source: &EnvVarSource, has_value: bool, path: &Path, findings: &mut Findings) {
    let mut sources = 0;
    if let Some(field) = &source.field_ref {
        sources += 1;
        field_ref(field, FIELDS_FOR_VARIABLES, &path.field("fieldRef"), findings);
    }
    if let Some(resource) = &source.resource_field_ref {
        sources += 1;
        resource_ref(resource, false, &path.field("resourceFieldRef"), findings);
    }
    if let Some(ConfigMapKeySelector { name, key, .. }) = &source.config_map_key_ref {
        sources += 1;
        key_ref(name, key, &path.field("configMapKeyRef"), findings);
    }
    if let Some(SecretKeySelector { name, key, .. }) = &source.secret_key_ref {
        sources += 1;
        key_ref(name, key, &path.field("secretKeyRef"), findings);
    }
    if source.file_key_ref.is_some() {
        // Not supported here yet; unsupported.rs says so.
        sources += 1;
    }
    if sources == 0 {
        let detail = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`";
        findings.invalid(path.clone(), "", detail);
    } else if has_value {
        findings.invalid(path.clone(), "", "may not be specified when `value` is not empty");
    } else if sources > 1 {
        findings.invalid(path.clone(), "", ONE_AT_A_TIME);
    }
}

fn from(source: &EnvFromSource, path: &Path, findings: &mut Findings) {
    if let Some(prefix) = source.prefix.as_deref().filter(|prefix| !prefix.is_empty()) {
        findings.each_invalid(&path.field("prefix"), prefix, format::environment_name(prefix));
    }
    let references = [
        ("configMapRef", source.config_map_ref.as_ref().map(|reference| &reference.name)),
        ("secretRef", source.secret_ref.as_ref().map(|reference| &reference.name)),
    ];
    for (field, name) in references {
        let path = path.field(field).field("name");
        match name.map(String::as_str) {
            Some("") => findings.required(path, ""),
            Some(name) => findings.each_invalid(&path, name, format::dns_subdomain(name)),
            None => {}
        }
    }
    match (&source.config_map_ref, &source.secret_ref) {
        (None, None) => findings.invalid(path.clone(), "", "must specify one of: `configMapRef` or `secretRef`"),
        (Some(_), Some(_)) => findings.invalid(path.clone(), "", ONE_AT_A_TIME),
        _ => {}
    }
}

fn key_ref(name: &str, key: &str, path: &Path, findings: &mut Findings) {
    findings.each_invalid(&path.field("name"), name, format::dns_subdomain(name));
    if key.is_empty() {
        findings.required(path.field("key"), "");
    } else {
        findings.each_invalid(&path.field("key"), key, format::config_key(key));
    }
}

/// `allowed` are the plain paths; `metadata.labels['key']` and `metadata.annotations['key']` always are.
pub(super) fn field_ref(field: &ObjectFieldSelector, allowed: &[&str], path: &Path, findings: &mut Findings) {
    match field.api_version.as_deref() {
        Some("v1") => {}
        None | Some("") => return findings.required(path.field("apiVersion"), ""),
        Some(version) => {
            let detail = format!("error converting fieldPath: unsupported pod version: {version}");
            return findings.invalid(path.field("fieldPath"), field.field_path.as_str(), &detail);
        }
    }
    let name = field.field_path.as_str();
    if name.is_empty() {
        return findings.required(path.field("fieldPath"), "");
    }
    let subscripted = name.strip_suffix("']").and_then(|rest| rest.split_once("['"));
    match subscripted {
        Some(("metadata.annotations", key)) => {
            findings.each_invalid(path, key, format::qualified_name(&key.to_lowercase()));
        }
        Some(("metadata.labels", key)) => findings.each_invalid(path, key, format::qualified_name(key)),
        Some((name, _)) => findings.invalid(path.clone(), name, "does not support subscript"),
        None if FIELDS_FOR_VARIABLES.contains(&name) || FIELDS_FOR_FILES.contains(&name) => {
            if !allowed.contains(&name) {
                findings.not_supported(path.field("fieldPath"), name, allowed);
            }
        }
        None => {
            let detail = format!("error converting fieldPath: field label not supported: {name}");
            findings.invalid(path.field("fieldPath"), name, &detail);
        }
    }
}

pub(super) fn resource_ref(resource: &ResourceFieldSelector, file: bool, path: &Path, findings: &mut Findings) {
    let name = resource.resource.as_str();
    let huge = name.starts_with("limits.hugepages-") || name.starts_with("requests.hugepages-");
    if file && resource.container_name.as_deref().is_none_or(str::is_empty) {
        findings.required(path.field("containerName"), "");
    } else if name.is_empty() {
        findings.required(path.field("resource"), "");
    } else if !huge && !RESOURCES.contains(&name) {
        findings.not_supported(path.field("resource"), name, RESOURCES);
    }
    let Some(divisor) = &resource.divisor else { return };
    let Ok((amount, format)) = crate::quantity::parse(&divisor.0) else {
        return super::resource::malformed(divisor, path.field("divisor"), findings);
    };
    if amount.is_zero() {
        return;
    }
    let text = amount.display(format);
    let bytes =
        ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"].contains(&text.as_str());
    let what = match name.split_once('.').map(|(_, resource)| resource) {
        Some("cpu") if !matches!(text.as_str(), "1" | "1m") => {
            let detail = "only divisor's values 1m and 1 are supported with the cpu resource";
            return findings.invalid(path.field("divisor"), name, detail);
        }
        Some("memory") if !bytes => "memory",
        Some("ephemeral-storage") if !bytes => "local ephemeral storage",
        Some(_) if huge && !bytes => "hugepages",
        _ => return,
    };
    let detail = format!(
        "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the {what} \
         resource"
    );
    findings.invalid(path.field("divisor"), name, &detail);
}
