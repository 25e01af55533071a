//! What the API server would say to an object, all of it at once and in its words.
//!
//! The rules are those of Kubernetes 1.35 `pkg/apis/core/validation`; the function a rule comes from is named in each
//! file. Objects must have been defaulted before: `imagePullPolicy: Required value` would otherwise be found.
//! Scheduling fields are checked only where that is cheap: nothing here acts on them.

mod container;
mod content;
mod environment;
pub(crate) mod format;
mod metadata;
mod mount;
mod pod;
mod probe;
mod resource;
mod security;
mod volume;

use k8s_openapi::api::core::v1::{ConfigMap, Pod, PodSpec, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde_json::Value;

use crate::path::Path;
use crate::problem::Findings;

/// What upstream says of a field that was changed and may not be.
pub(crate) const IMMUTABLE_FIELD: &str = "field is immutable";

const NEGATIVE: &str = "must be greater than or equal to 0";
const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];

/// One complaint about one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// `spec.containers[0].name`
    pub path: String,
    /// `Required value`
    pub message: String,
}

/// What is wrong with a defaulted pod; empty when it may be created.
pub fn pod(pod: &Pod) -> Vec<FieldError> {
    collect(|findings| pod::pod(pod, findings))
}

/// What is wrong with a pod that exists, as an update would make it. Which fields may change is another question.
pub fn existing_pod(pod: &Pod) -> Vec<FieldError> {
    collect(|findings| pod::existing(pod, findings))
}

/// What is wrong with a ConfigMap.
pub fn config_map(map: &ConfigMap) -> Vec<FieldError> {
    collect(|findings| content::config_map(map, findings))
}

/// What is wrong with a Secret whose `stringData` has been merged into `data` ([`crate::default::secret`]).
pub fn secret(secret: &Secret) -> Vec<FieldError> {
    collect(|findings| content::secret(secret, findings))
}

fn collect(check: impl FnOnce(&mut Findings)) -> Vec<FieldError> {
    let mut findings = Findings::default();
    check(&mut findings);
    errors(findings)
}

pub(crate) fn errors(findings: Findings) -> Vec<FieldError> {
    findings
        .0
        .into_iter()
        .map(|finding| FieldError { path: finding.path.to_string(), message: finding.message })
        .collect()
}

pub(crate) fn find_in_pod(pod: &Pod, findings: &mut Findings) {
    pod::pod(pod, findings);
}

pub(crate) fn find_in_config_map(map: &ConfigMap, findings: &mut Findings) {
    content::config_map(map, findings);
}

pub(crate) fn find_in_secret(secret: &Secret, findings: &mut Findings) {
    content::secret(secret, findings);
}

/// The metadata of a workload object.
pub(crate) fn find_in_metadata(meta: &ObjectMeta, findings: &mut Findings) {
    metadata::object(meta, &Path::of("metadata"), findings);
}

pub(crate) use metadata::NameRule;

/// The metadata of an object that stays JSON.
pub(crate) fn find_in_object_metadata(object: &Value, namespaced: bool, rule: NameRule, findings: &mut Findings) {
    metadata::of_json(object, namespaced, rule, findings);
}

/// Labels, or a selector of them, that stay JSON.
pub(crate) fn labels(labels: &Value, path: Path, findings: &mut Findings) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        findings.each_invalid(&path, key, format::qualified_name(key));
        let value = value.as_str().unwrap_or_default();
        findings.each_invalid(&path, value, format::label_value(value));
    }
}

pub(crate) use metadata::finalizer;

pub(crate) fn qualified_name(name: &str, path: Path, findings: &mut Findings) {
    findings.each_invalid(&path, name, format::qualified_name(name));
}

pub(crate) fn find_in_template(
    meta: Option<&ObjectMeta>,
    spec: Option<&PodSpec>,
    path: &Path,
    findings: &mut Findings,
) {
    pod::template(meta, spec, path, findings);
}

/// A workload's selector, and whether its template's labels match it.
pub(crate) fn find_in_selector(
    selector: &LabelSelector,
    path: &Path,
    template: Option<&ObjectMeta>,
    template_path: &Path,
    findings: &mut Findings,
) {
    let labels = template.and_then(|meta| meta.labels.as_ref());
    metadata::selector(selector, path, labels, template_path, findings);
}
