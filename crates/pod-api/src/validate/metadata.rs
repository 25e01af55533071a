//! Names, labels and annotations (apimachinery `api/validation/objectmeta.go`).

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::format;
use crate::path::Path;
use crate::problem::Findings;

/// Bytes all annotations may have together.
const ANNOTATIONS_LIMIT: usize = 256 << 10;

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
        findings.each_invalid(&path.field("finalizers").index(index), finalizer, format::qualified_name(finalizer));
    }
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
