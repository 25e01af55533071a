//! Names, labels and annotations (apimachinery `api/validation/objectmeta.go`).

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use serde_json::Value;

use super::format;
use crate::decode;
use crate::path::Path;
use crate::problem::Findings;

/// Bytes all annotations may have together.
const ANNOTATIONS_LIMIT: usize = 256 << 10;

/// What a kind's names must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NameRule {
    /// DNS-1123 subdomain: most kinds.
    Subdomain,
    /// DNS-1123 label: namespaces.
    Label,
    /// DNS-1035 label, which begins with a letter: services.
    Label1035,
}

impl NameRule {
    fn complaints(self, name: &str) -> Vec<String> {
        match self {
            NameRule::Subdomain => format::dns_subdomain(name),
            NameRule::Label => format::dns_label(name),
            NameRule::Label1035 => format::dns_label_1035(name),
        }
    }
}

/// The metadata of an object that stays JSON: name by `rule`, namespace, labels, annotations, finalizers, owners.
pub(super) fn of_json(object: &Value, namespaced: bool, rule: NameRule, findings: &mut Findings) {
    let path = Path::of("metadata");
    let meta: ObjectMeta = decode::lenient(&object["metadata"]);
    match meta.name.as_deref() {
        None | Some("") => {
            if let Some(prefix) = meta.generate_name.as_deref().filter(|prefix| !prefix.is_empty()) {
                let complaints = rule.complaints(&format!("{prefix}x"));
                findings.each_invalid(&path.field("generateName"), prefix, complaints);
            }
            findings.required(path.field("name"), "name or generateName is required");
        }
        Some(name) => findings.each_invalid(&path.field("name"), name, rule.complaints(name)),
    }
    match meta.namespace.as_deref() {
        Some(namespace) if namespaced => {
            findings.each_invalid(&path.field("namespace"), namespace, format::dns_label(namespace));
        }
        Some(namespace) if !namespace.is_empty() => {
            findings.forbidden(path.field("namespace"), "not allowed on this type");
        }
        None if namespaced => findings.required(path.field("namespace"), ""),
        _ => {}
    }
    unnamed(&meta, &path, findings);
    owners(&meta, &path.field("ownerReferences"), findings);
}

/// `ValidateOwnerReferences`.
fn owners(meta: &ObjectMeta, path: &Path, findings: &mut Findings) {
    let mut controller: Option<&str> = None;
    for (index, owner) in meta.owner_references.iter().flatten().enumerate() {
        let at = path.index(index);
        if owner.api_version.is_empty() {
            findings.invalid(at.field("apiVersion"), "", "version must not be empty");
        }
        for (field, value) in [("kind", &owner.kind), ("name", &owner.name), ("uid", &owner.uid)] {
            if value.is_empty() {
                findings.invalid(at.field(field), "", &format!("{field} must not be empty"));
            }
        }
        if owner.controller == Some(true) {
            if let Some(first) = controller {
                let detail = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {}",
                    owner.name
                );
                findings.invalid(path.clone(), owner.name.as_str(), &detail);
            }
            controller = controller.or(Some(&owner.name));
        }
    }
}

/// What a named object of any kind must have. `generateName` must have become a name before.
pub(super) fn object(meta: &ObjectMeta, path: &Path, findings: &mut Findings) {
    match meta.name.as_deref() {
        None | Some("") => {
            // Were generateName usable, there would be a name.
            if let Some(prefix) = meta.generate_name.as_deref().filter(|prefix| !prefix.is_empty()) {
                // The random tail makes a trailing hyphen or dot good.
                let complaints = format::dns_subdomain(&format!("{prefix}x"));
                findings.each_invalid(&path.field("generateName"), prefix, complaints);
            }
            findings.required(path.field("name"), "name or generateName is required");
        }
        Some(name) => findings.each_invalid(&path.field("name"), name, format::dns_subdomain(name)),
    }
    if let Some(namespace) = &meta.namespace {
        findings.each_invalid(&path.field("namespace"), namespace, format::dns_label(namespace));
    }
    unnamed(meta, path, findings);
    owners(meta, &path.field("ownerReferences"), findings);
}

/// What also the metadata of a template must be.
pub(super) fn unnamed(meta: &ObjectMeta, path: &Path, findings: &mut Findings) {
    labels(meta.labels.as_ref(), &path.field("labels"), findings);
    let annotations = path.field("annotations");
    let mut bytes = 0;
    for (key, value) in meta.annotations.iter().flatten() {
        findings.each_invalid(&annotations, key, format::qualified_name(&key.to_lowercase()));
        bytes += key.len() + value.len();
    }
    if bytes > ANNOTATIONS_LIMIT {
        findings.too_long(annotations, ANNOTATIONS_LIMIT);
    }
    for (index, finalizer) in meta.finalizers.iter().flatten().enumerate() {
        self::finalizer(finalizer, path.field("finalizers").index(index), findings);
    }
    let has = |name: &str| meta.finalizers.iter().flatten().any(|finalizer| finalizer == name);
    if has("orphan") && has("foregroundDeletion") {
        let detail = "finalizers orphan and foregroundDeletion cannot be both set";
        findings.invalid(path.field("finalizers"), meta.finalizers.clone().unwrap_or_default(), detail);
    }
}

/// A finalizer's name has a domain, unless it is one of upstream's own (`validateKubeFinalizerName`).
pub(crate) fn finalizer(name: &str, path: Path, findings: &mut Findings) {
    let complaints = format::qualified_name(name);
    if complaints.is_empty() && !name.contains('/') && !matches!(name, "kubernetes" | "orphan" | "foregroundDeletion") {
        let detail = "name is neither a standard finalizer name nor is it fully qualified";
        return findings.invalid(path, name, detail);
    }
    findings.each_invalid(&path, name, complaints);
}

/// Labels, or the label-like map of a node selector.
pub(super) fn labels(labels: Option<&BTreeMap<String, String>>, path: &Path, findings: &mut Findings) {
    for (key, value) in labels.into_iter().flatten() {
        findings.each_invalid(path, key, format::qualified_name(key));
        findings.each_invalid(path, value, format::label_value(value));
    }
}

/// A workload's selector must choose the pods of its own template.
pub(super) fn selector(
    selector: &LabelSelector,
    path: &Path,
    template: Option<&BTreeMap<String, String>>,
    template_path: &Path,
    findings: &mut Findings,
) {
    let expressions = selector.match_expressions.as_deref().unwrap_or_default();
    labels(selector.match_labels.as_ref(), &path.field("matchLabels"), findings);
    if selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty) && expressions.is_empty() {
        findings.invalid(path.clone(), serde_json::json!({}), "empty selector is invalid for deployment");
        return;
    }
    let empty = BTreeMap::new();
    let template = template.unwrap_or(&empty);
    let mut matches = selector.match_labels.iter().flatten().all(|(key, value)| template.get(key) == Some(value));
    for (index, expression) in expressions.iter().enumerate() {
        let path = path.field("matchExpressions").index(index);
        let values = expression.values.as_deref().unwrap_or_default();
        let value = template.get(&expression.key);
        findings.each_invalid(&path.field("key"), &expression.key, format::qualified_name(&expression.key));
        let has_values = !values.is_empty();
        match expression.operator.as_str() {
            "In" | "NotIn" if !has_values => {
                findings.required(path.field("values"), "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if has_values => {
                findings.forbidden(
                    path.field("values"),
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                );
            }
            "In" => matches &= value.is_some_and(|value| values.contains(value)),
            "NotIn" => matches &= value.is_none_or(|value| !values.contains(value)),
            "Exists" => matches &= value.is_some(),
            "DoesNotExist" => matches &= value.is_none(),
            operator => findings.invalid(path.field("operator"), operator, "not a valid selector operator"),
        }
    }
    if !matches {
        let path = template_path.under("metadata.labels");
        findings.invalid(path, serde_json::json!(template), "`selector` does not match template `labels`");
    }
}
