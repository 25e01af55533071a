//! Requests and limits (`ValidateContainerResourceRequirements`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ContainerResizePolicy, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::{NEGATIVE, format};
use crate::path::Path;
use crate::problem::Findings;
use crate::quantity::{self, Amount};

pub(super) fn requirements(resources: &ResourceRequirements, path: &Path, findings: &mut Findings) {
    let limits = list(resources.limits.as_ref(), &path.field("limits"), findings);
    let requests = list(resources.requests.as_ref(), &path.field("requests"), findings);
    for (name, (request, text)) in &requests {
        let Some((limit, limit_text)) = limits.get(name) else {
            if name.contains('/') && !is_native(name) {
                findings.required(path.field("limits"), "Limit must be set for non overcommitable resources");
            }
            continue;
        };
        if name.contains('/') && !is_native(name) && request != limit {
            let detail = format!("must be equal to {name} limit of {limit_text}");
            findings.invalid(path.field("requests"), text.as_str(), &detail);
        } else if request > limit {
            let detail = format!("must be less than or equal to {name} limit of {limit_text}");
            findings.invalid(path.field("requests"), text.as_str(), &detail);
        }
    }
}

/// The well-formed amounts of a list, each with its canonical text.
fn list<'a>(
    list: Option<&'a BTreeMap<String, Quantity>>,
    path: &Path,
    findings: &mut Findings,
) -> BTreeMap<&'a str, (Amount, String)> {
    let mut amounts = BTreeMap::new();
    for (name, quantity) in list.into_iter().flatten() {
        let path = path.key(name);
        self::name(name, &path, findings);
        let Ok((amount, written)) = quantity::parse(&quantity.0) else {
            malformed(quantity, path, findings);
            continue;
        };
        let text = amount.display(written);
        if amount < Amount::default() {
            findings.invalid(path, text.as_str(), NEGATIVE);
        } else if name.contains('/') && !is_native(name) && amount.millis() % 1000 != 0 {
            findings.invalid(path, text.as_str(), "must be an integer");
        }
        amounts.insert(name.as_str(), (amount, text));
    }
    amounts
}

fn name(name: &str, path: &Path, findings: &mut Findings) {
    let complaints = format::qualified_name(name);
    if !complaints.is_empty() {
        return findings.each_invalid(path, name, complaints);
    }
    let standard = matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    if !name.contains('/') && !standard {
        findings.invalid(path.clone(), name, "must be a standard resource type or fully qualified");
        findings.invalid(path.clone(), name, "must be a standard resource for containers");
    }
    if name.contains('/') && !is_native(name) && name.starts_with("requests.") {
        findings.invalid(path.clone(), name, "doesn't follow extended resource name standard");
    }
}

/// In the `kubernetes.io/` name space, and therefore not an extended resource.
fn is_native(name: &str) -> bool {
    name.split_once('/').is_none_or(|(prefix, _)| prefix == "kubernetes.io" || prefix.ends_with(".kubernetes.io"))
}

/// A quantity nobody can read. The API server refuses these while decoding, in these words.
pub(super) fn malformed(quantity: &Quantity, path: Path, findings: &mut Findings) {
    if let Err(error) = quantity::parse(&quantity.0) {
        findings.invalid(path, quantity.0.as_str(), &error.to_string());
    }
}

pub(super) fn resize_policy(policies: &[ContainerResizePolicy], never: bool, path: &Path, findings: &mut Findings) {
    let mut seen: Vec<&str> = Vec::new();
    for (index, policy) in policies.iter().enumerate() {
        if seen.contains(&policy.resource_name.as_str()) {
            findings.duplicate(path.index(index), &policy.resource_name);
        }
        seen.push(&policy.resource_name);
        findings.one_of(path.index(index), Some(&policy.resource_name), &["cpu", "memory"]);
        findings.one_of(path.index(index), Some(&policy.restart_policy), &["NotRequired", "RestartContainer"]);
        if never && policy.restart_policy == "RestartContainer" {
            let detail = "must be 'NotRequired' when `restartPolicy` is 'Never'";
            findings.invalid(path.index(index), policy.restart_policy.as_str(), detail);
        }
    }
}
