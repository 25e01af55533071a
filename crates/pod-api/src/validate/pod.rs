//! Pods and pod templates (`ValidatePodSpec` and the pod-only checks around it).

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{HostAlias, Pod, PodDNSConfig, PodSpec, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{container, format, metadata, security, volume};
use crate::path::Path;
use crate::problem::Findings;

const MAX_INT32: i64 = 2_147_483_647;
/// Of libc's resolver and of Kubernetes since 1.28.
const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCH_DOMAINS: usize = 32;
const MAX_SEARCH_CHARACTERS: usize = 2048;
/// Linux' limit for a host name.
const MAX_HOSTNAME: usize = 64;

/// A pod that is to be created.
pub(super) fn pod(pod: &Pod, findings: &mut Findings) {
    let ephemeral = pod.spec.as_ref().and_then(|spec| spec.ephemeral_containers.as_ref());
    if ephemeral.is_some_and(|containers| !containers.is_empty()) {
        findings.forbidden(Path::of("spec.ephemeralContainers"), "cannot be set on create");
    }
    existing(pod, findings);
}

/// A pod that is there already, as it would become.
pub(super) fn existing(pod: &Pod, findings: &mut Findings) {
    metadata::object(&pod.metadata, &Path::of("metadata"), findings);
    match &pod.spec {
        Some(spec) => self::spec(spec, pod.metadata.name.as_deref(), &Path::of("spec"), findings),
        None => findings.required(Path::of("spec.containers"), ""),
    }
}

/// A workload's template; its pods get their names from the workload.
pub(super) fn template(meta: Option<&ObjectMeta>, spec: Option<&PodSpec>, path: &Path, findings: &mut Findings) {
    if let Some(meta) = meta {
        metadata::unnamed(meta, &path.field("metadata"), findings);
    }
    if spec.and_then(|spec| spec.ephemeral_containers.as_ref()).is_some_and(|containers| !containers.is_empty()) {
        let detail = "ephemeral containers not allowed in pod template";
        findings.forbidden(path.under("spec.ephemeralContainers"), detail);
    }
    match spec {
        Some(spec) => self::spec(spec, None, &path.field("spec"), findings),
        None => findings.required(path.under("spec.containers"), ""),
    }
}

fn spec(spec: &PodSpec, pod: Option<&str>, path: &Path, findings: &mut Findings) {
    let volumes = volume::volumes(spec.volumes.as_deref().unwrap_or_default(), pod, &path.field("volumes"), findings);
    container::containers(spec, &volumes, path, findings);
    findings.one_of(path.field("restartPolicy"), spec.restart_policy.as_deref(), &["Always", "OnFailure", "Never"]);
    findings.one_of(
        path.field("dnsPolicy"),
        spec.dns_policy.as_deref(),
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
    );
    if let Some(policy) = spec.preemption_policy.as_deref() {
        findings.one_of(path.field("preemptionPolicy"), Some(policy), &["PreemptLowerPriority", "Never"]);
    }
    if let Some(seconds) = spec.active_deadline_seconds.filter(|seconds| !(1..=MAX_INT32).contains(seconds)) {
        let path = path.field("activeDeadlineSeconds");
        findings.invalid(path, seconds, &format::inclusive_range(1, MAX_INT32));
    }
    security::pod(spec, path, findings);
    metadata::labels(spec.node_selector.as_ref(), &path.field("nodeSelector"), findings);
    names(spec, path, findings);
    dns(spec.dns_config.as_ref(), spec.dns_policy.as_deref(), &path.field("dnsConfig"), findings);
    host_aliases(spec.host_aliases.as_deref().unwrap_or_default(), &path.field("hostAliases"), findings);
    tolerations(spec.tolerations.as_deref().unwrap_or_default(), &path.field("tolerations"), findings);
    for (index, gate) in spec.readiness_gates.iter().flatten().enumerate() {
        let path = path.field("readinessGates").index(index).field("conditionType");
        findings.each_invalid(&path, &gate.condition_type, format::qualified_name(&gate.condition_type));
    }
    if let Some(os) = &spec.os {
        findings.one_of(path.under("os.name"), Some(&os.name), &["linux", "windows"]);
    }
}

fn names(spec: &PodSpec, path: &Path, findings: &mut Findings) {
    let labels = [("hostname", &spec.hostname), ("subdomain", &spec.subdomain)];
    for (field, name) in labels {
        if let Some(name) = name.as_deref().filter(|name| !name.is_empty()) {
            findings.each_invalid(&path.field(field), name, format::dns_label(name));
        }
    }
    let objects = [
        ("serviceAccountName", &spec.service_account_name),
        ("nodeName", &spec.node_name),
        ("priorityClassName", &spec.priority_class_name),
        ("runtimeClassName", &spec.runtime_class_name),
    ];
    for (field, name) in objects {
        if let Some(name) = name.as_deref().filter(|name| !name.is_empty()) {
            findings.each_invalid(&path.field(field), name, format::dns_subdomain(name));
        }
    }
    if let Some(name) = &spec.hostname_override {
        let path = path.field("hostnameOverride");
        if name.len() > MAX_HOSTNAME {
            findings.too_long(path.clone(), MAX_HOSTNAME);
        }
        findings.each_invalid(&path, name, format::dns_subdomain(name));
        if spec.host_network == Some(true) {
            findings.forbidden(path.clone(), "may not be specified when `hostNetwork` is true");
        }
        if spec.set_hostname_as_fqdn == Some(true) {
            findings.forbidden(path, "may not be specified when `setHostnameAsFQDN` is true");
        }
    }
}

fn dns(config: Option<&PodDNSConfig>, policy: Option<&str>, path: &Path, findings: &mut Findings) {
    let servers_path = path.field("nameservers");
    let Some(config) = config else {
        if policy == Some("None") {
            findings.required(path.clone(), "must provide `dnsConfig` when `dnsPolicy` is None");
        }
        return;
    };
    let servers = config.nameservers.as_deref().unwrap_or_default();
    if policy == Some("None") && servers.is_empty() {
        let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        return findings.required(servers_path, detail);
    }
    if servers.len() > MAX_NAMESERVERS {
        let detail = format!("must not have more than {MAX_NAMESERVERS} nameservers");
        findings.invalid(servers_path.clone(), servers, &detail);
    }
    for (index, server) in servers.iter().enumerate() {
        if let Some(complaint) = format::ip_address(server) {
            findings.invalid(servers_path.index(index), server.as_str(), complaint);
        }
    }
    let searches = config.searches.as_deref().unwrap_or_default();
    let searches_path = path.field("searches");
    if searches.len() > MAX_SEARCH_DOMAINS {
        let detail = format!("must not have more than {MAX_SEARCH_DOMAINS} search paths");
        findings.invalid(searches_path.clone(), searches, &detail);
    }
    if searches.join(" ").len() > MAX_SEARCH_CHARACTERS {
        let detail =
            format!("must not have more than {MAX_SEARCH_CHARACTERS} characters (including spaces) in the search list");
        findings.invalid(searches_path.clone(), searches, &detail);
    }
    for (index, search) in searches.iter().enumerate().filter(|(_, search)| *search != ".") {
        let complaints = format::dns_subdomain_with_underscore(search.strip_suffix('.').unwrap_or(search));
        findings.each_invalid(&searches_path.index(index), search, complaints);
    }
    for (index, option) in config.options.iter().flatten().enumerate() {
        if option.name.as_deref().is_none_or(str::is_empty) {
            findings.required(path.field("options").index(index), "must not be empty");
        }
    }
}

fn host_aliases(aliases: &[HostAlias], path: &Path, findings: &mut Findings) {
    for (index, alias) in aliases.iter().enumerate() {
        let path = path.index(index);
        if alias.ip.parse::<IpAddr>().is_err() {
            let complaint = format::ip_address(&alias.ip).unwrap_or_default();
            findings.invalid(path.field("ip"), alias.ip.as_str(), complaint);
        }
        for (index, hostname) in alias.hostnames.iter().flatten().enumerate() {
            findings.each_invalid(&path.field("hostnames").index(index), hostname, format::dns_subdomain(hostname));
        }
    }
}

fn tolerations(tolerations: &[Toleration], path: &Path, findings: &mut Findings) {
    for (index, toleration) in tolerations.iter().enumerate() {
        let path = path.index(index);
        let key = toleration.key.as_deref().unwrap_or_default();
        let operator = toleration.operator.as_deref().unwrap_or_default();
        let value = toleration.value.as_deref().unwrap_or_default();
        let effect = toleration.effect.as_deref().unwrap_or_default();
        if !key.is_empty() {
            findings.each_invalid(&path.field("key"), key, format::qualified_name(key));
        } else if operator != "Exists" {
            let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            findings.invalid(path.field("operator"), operator, detail);
        }
        if toleration.toleration_seconds.is_some() && effect != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            findings.invalid(path.field("effect"), effect, detail);
        }
        match operator {
            "" | "Equal" => {
                let complaints = format::label_value(value);
                if !complaints.is_empty() {
                    findings.invalid(path.field("operator"), value, &complaints.join(";"));
                }
            }
            "Exists" if !value.is_empty() => {
                findings.invalid(path.field("operator"), value, "value must be empty when `operator` is 'Exists'");
            }
            "Exists" => {}
            _ => findings.not_supported(path.field("operator"), operator, &["Equal", "Exists"]),
        }
        let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        if !effect.is_empty() && !effects.contains(&effect) {
            findings.not_supported(path.field("effect"), effect, &effects);
        }
    }
}
