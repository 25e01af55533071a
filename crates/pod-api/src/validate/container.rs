//! Main and init containers (`validateContainers`, `validateInitContainers`; KEP-753 sidecars, KEP-5307 restart rules).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ContainerPort, PodSpec, Volume};

use super::{environment, format, mount, probe, resource, security};
use crate::ephemeral;
use crate::path::Path;
use crate::problem::Findings;

const ONLY_SIDECARS: &str = "may not be set for init containers without restartPolicy=Always";
const RESTART_POLICIES: &[&str] = &["Always", "Never", "OnFailure"];
const NOT_EPHEMERAL: &str = "cannot be set for an Ephemeral Container";
/// KEP-5307.
const MAX_RESTART_RULES: usize = 20;
const MAX_EXIT_CODES: usize = 255;

/// What a container needs to know of its pod.
struct Surroundings<'a> {
    spec: &'a PodSpec,
    volumes: &'a BTreeMap<&'a str, &'a Volume>,
    grace: Option<i64>,
    os: &'a str,
}

pub(super) fn containers(spec: &PodSpec, volumes: &BTreeMap<&str, &Volume>, path: &Path, findings: &mut Findings) {
    let surroundings = Surroundings {
        spec,
        volumes,
        // A negative one is allowed and means one second.
        grace: spec.termination_grace_period_seconds.map(|seconds| if seconds < 0 { 1 } else { seconds }),
        os: spec.os.as_ref().map_or("", |os| &os.name),
    };
    let mut names: Vec<&str> = Vec::new();
    let mains = path.field("containers");
    if spec.containers.is_empty() {
        findings.required(mains.clone(), "");
    }
    let mut host_ports = Vec::new();
    for (index, container) in spec.containers.iter().enumerate() {
        let path = mains.index(index);
        surroundings.common(container, &path, findings);
        unique_name(container, &mut names, &path, findings);
        probe::container(container, surroundings.grace, surroundings.os, &path, findings);
        host_port_conflicts(container, &mut host_ports, Findings::duplicate, &path, findings);
    }
    let mut published = if spec.host_network == Some(true) { Vec::new() } else { host_ports };
    for (index, container) in spec.init_containers.iter().flatten().enumerate() {
        let path = path.field("initContainers").index(index);
        surroundings.common(container, &path, findings);
        unique_name(container, &mut names, &path, findings);
        let before = findings.0.len();
        // Upstream compares each only with itself, as it publishes none of them.
        host_port_conflicts(container, &mut Vec::new(), Findings::duplicate, &path, findings);
        if findings.0.len() == before {
            host_port_conflicts(container, &mut published, published_twice, &path, findings);
        }
        if container.restart_policy.as_deref() == Some("Always") {
            probe::container(container, surroundings.grace, surroundings.os, &path, findings);
            if container.restart_policy_rules.as_ref().is_some_and(|rules| !rules.is_empty()) {
                findings.forbidden(
                    path.field("restartPolicyRules"),
                    "restartPolicyRules are not allowed for init containers with restart policy Always",
                );
            }
        } else {
            plain_init(container, &path, findings);
        }
    }
    ephemeral(&surroundings, &mut names, &path.field("ephemeralContainers"), findings);
}

/// The containers that were added to a running pod (`validateEphemeralContainers`). `names` are those of all others.
fn ephemeral<'a>(surroundings: &Surroundings<'a>, names: &mut Vec<&'a str>, path: &Path, findings: &mut Findings) {
    let targets = names.clone();
    for (index, ephemeral) in surroundings.spec.ephemeral_containers.iter().flatten().enumerate() {
        let path = path.index(index);
        let container = ephemeral::as_container(ephemeral.clone());
        surroundings.common(&container, &path, findings);
        if names.contains(&ephemeral.name.as_str()) {
            findings.duplicate(path.field("name"), &ephemeral.name);
        } else if !ephemeral.name.is_empty() {
            names.push(&ephemeral.name);
        }
        if let Some(target) = ephemeral.target_container_name.as_deref().filter(|name| !name.is_empty())
            && !targets.contains(&target)
        {
            findings.not_found(path.field("targetContainerName"), target);
        }
        let resources = container.resources.as_ref();
        let lists = resources.is_some_and(|resources| {
            let is_set = |list: &Option<BTreeMap<_, _>>| list.as_ref().is_some_and(|list| !list.is_empty());
            is_set(&resources.limits) || is_set(&resources.requests) || resources.claims.is_some()
        });
        let set = [
            ("ports", container.ports.as_ref().is_some_and(|ports| !ports.is_empty())),
            ("livenessProbe", container.liveness_probe.is_some()),
            ("readinessProbe", container.readiness_probe.is_some()),
            ("startupProbe", container.startup_probe.is_some()),
            ("lifecycle", container.lifecycle.is_some()),
            ("resources", lists),
            ("resizePolicy", container.resize_policy.as_ref().is_some_and(|policies| !policies.is_empty())),
            ("restartPolicy", container.restart_policy.is_some()),
            ("restartPolicyRules", container.restart_policy_rules.as_ref().is_some_and(|rules| !rules.is_empty())),
        ];
        for (field, _) in set.into_iter().filter(|(_, set)| *set) {
            findings.forbidden(path.field(field), NOT_EPHEMERAL);
        }
        for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
            let path = path.field("volumeMounts").index(index);
            let set = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
            if set(&mount.sub_path) {
                findings.forbidden(path.field("subPath"), NOT_EPHEMERAL);
            }
            if set(&mount.sub_path_expr) {
                findings.forbidden(path.field("subPathExpr"), NOT_EPHEMERAL);
            }
        }
    }
}

fn plain_init(container: &Container, path: &Path, findings: &mut Findings) {
    let set = [
        ("lifecycle", container.lifecycle.is_some()),
        ("livenessProbe", container.liveness_probe.is_some()),
        ("readinessProbe", container.readiness_probe.is_some()),
        ("startupProbe", container.startup_probe.is_some()),
    ];
    for (field, set) in set {
        if set {
            findings.forbidden(path.field(field), ONLY_SIDECARS);
        }
    }
}

fn unique_name<'a>(container: &'a Container, names: &mut Vec<&'a str>, path: &Path, findings: &mut Findings) {
    if container.name.is_empty() {
        return;
    }
    if names.contains(&container.name.as_str()) {
        findings.duplicate(path.field("name"), &container.name);
    } else {
        names.push(&container.name);
    }
}

fn published_twice(findings: &mut Findings, path: Path, port: &str) {
    let port = port.replace("//", "/");
    findings.add(
        path,
        format!(
            "Unsupported by outrigger: ports of init containers and sidecars are published too, and another container \
             has {port} already; take another hostPort"
        ),
    );
}

/// Two containers, or two ports of one, that want the same port of the host. Compared as upstream does, by text: an
/// address and "all addresses" are not seen as a conflict.
fn host_port_conflicts(
    container: &Container,
    taken: &mut Vec<String>,
    refuse: impl Fn(&mut Findings, Path, &str),
    path: &Path,
    findings: &mut Findings,
) {
    for (index, port) in container.ports.iter().flatten().enumerate() {
        let Some(host_port) = port.host_port.filter(|port| *port != 0) else { continue };
        let protocol = port.protocol.as_deref().unwrap_or_default();
        let wanted = format!("{protocol}/{}/{host_port}", port.host_ip.as_deref().unwrap_or_default());
        if taken.contains(&wanted) {
            refuse(findings, path.field("ports").index(index).field("hostPort"), &wanted);
        } else {
            taken.push(wanted);
        }
    }
}

impl Surroundings<'_> {
    fn common(&self, container: &Container, path: &Path, findings: &mut Findings) {
        if container.name.is_empty() {
            findings.required(path.field("name"), "");
        } else {
            findings.each_invalid(&path.field("name"), &container.name, format::dns_label(&container.name));
        }
        match container.image.as_deref().unwrap_or_default() {
            "" => findings.required(path.field("image"), ""),
            image if image.trim() != image => {
                findings.invalid(path.field("image"), image, "must not have leading or trailing whitespace");
            }
            _ => {}
        }
        let policies = ["FallbackToLogsOnError", "File"];
        let policy = container.termination_message_policy.as_deref();
        findings.one_of(path.field("terminationMessagePolicy"), policy, &policies);
        let pull = container.image_pull_policy.as_deref();
        findings.one_of(path.field("imagePullPolicy"), pull, super::PULL_POLICIES);
        restart_policy(container, path, findings);
        self.ports(container.ports.as_deref().unwrap_or_default(), &path.field("ports"), findings);
        environment::container(container, path, findings);
        mount::mounts(container, self.volumes, &path.field("volumeMounts"), findings);
        if let Some(resources) = &container.resources {
            resource::requirements(resources, &path.field("resources"), findings);
        }
        if let Some(policies) = &container.resize_policy {
            let never = self.spec.restart_policy.as_deref() == Some("Never");
            resource::resize_policy(policies, never, &path.field("resizePolicy"), findings);
        }
        if let Some(context) = &container.security_context {
            let host_users = self.spec.host_users != Some(false);
            security::container(context, host_users, &path.field("securityContext"), findings);
        }
    }

    fn ports(&self, ports: &[ContainerPort], path: &Path, findings: &mut Findings) {
        let mut names: Vec<&str> = Vec::new();
        for (index, port) in ports.iter().enumerate() {
            let path = path.index(index);
            if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
                let complaints = format::port_name(name);
                if !complaints.is_empty() {
                    findings.each_invalid(&path.field("name"), name, complaints);
                } else if names.contains(&name) {
                    findings.duplicate(path.field("name"), name);
                } else {
                    names.push(name);
                }
            }
            if port.container_port == 0 {
                findings.required(path.field("containerPort"), "");
            } else if let Some(complaint) = format::port_number(i64::from(port.container_port)) {
                findings.invalid(path.field("containerPort"), port.container_port, &complaint);
            }
            if let Some(host_port) = port.host_port.filter(|port| *port != 0) {
                if let Some(complaint) = format::port_number(i64::from(host_port)) {
                    findings.invalid(path.field("hostPort"), host_port, &complaint);
                }
                if self.spec.host_network == Some(true) && host_port != port.container_port {
                    let detail = "must match `containerPort` when `hostNetwork` is true";
                    findings.invalid(path.field("hostPort"), host_port, detail);
                }
            }
            let address = port.host_ip.as_deref().unwrap_or_default();
            if let Some(complaint) = format::ip_address(address).filter(|_| !address.is_empty()) {
                findings.invalid(path.field("hostIP"), address, complaint);
            }
            findings.one_of(path.field("protocol"), port.protocol.as_deref(), &["SCTP", "TCP", "UDP"]);
        }
    }
}

/// A container's own restart policy and rules (`validateContainerRestartPolicy`, 1.35).
fn restart_policy(container: &Container, path: &Path, findings: &mut Findings) {
    let rules = container.restart_policy_rules.as_deref().unwrap_or_default();
    match container.restart_policy.as_deref() {
        None if !rules.is_empty() => {
            findings.required(path.field("restartPolicy"), "must specify restartPolicy when restart rules are used");
        }
        Some(policy) if !RESTART_POLICIES.contains(&policy) => {
            findings.not_supported(path.field("restartPolicy"), policy, RESTART_POLICIES);
        }
        _ => {}
    }
    let path = path.field("restartPolicyRules");
    if rules.len() > MAX_RESTART_RULES {
        findings.too_many(path.clone(), rules.len(), MAX_RESTART_RULES);
    }
    for (index, rule) in rules.iter().enumerate() {
        let path = path.index(index);
        // RestartAllContainers is a valid word (KEP-5532); unsupported.rs decides on it.
        if !matches!(rule.action.as_str(), "Restart" | "RestartAllContainers") {
            findings.not_supported(path.field("action"), &rule.action, &["Restart"]);
        }
        let Some(codes) = &rule.exit_codes else {
            findings.required(path.field("exitCodes"), "must be specified");
            continue;
        };
        let path = path.field("exitCodes");
        if !matches!(codes.operator.as_str(), "In" | "NotIn") {
            findings.not_supported(path.field("operator"), &codes.operator, &["In", "NotIn"]);
        }
        let values = codes.values.as_deref().unwrap_or_default();
        if values.len() > MAX_EXIT_CODES {
            findings.too_many(path.field("values"), values.len(), MAX_EXIT_CODES);
        }
    }
}
