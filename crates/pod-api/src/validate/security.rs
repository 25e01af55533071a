//! Security contexts and what namespaces may be combined (`ValidateSecurityContext`, `validatePodSpecSecurityContext`).

use k8s_openapi::api::core::v1::{AppArmorProfile, PodSpec, SeccompProfile, SecurityContext};

use super::{format, volume};
use crate::path::Path;
use crate::problem::Findings;

/// Linux ids are 32 bits, and Kubernetes allows half of them.
const MAX_ID: i64 = 2_147_483_647;

pub(super) fn pod(spec: &PodSpec, path: &Path, findings: &mut Findings) {
    let host_network = spec.host_network == Some(true);
    let host_pid = spec.host_pid == Some(true);
    let host_ipc = spec.host_ipc == Some(true);
    if spec.share_process_namespace == Some(true) && host_pid {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        findings.invalid(path.field("shareProcessNamespace"), true, detail);
    }
    if spec.host_users == Some(false) {
        for (field, set) in [("hostNetwork", host_network), ("HostPID", host_pid), ("HostIPC", host_ipc)] {
            if set {
                findings.forbidden(path.field(field), "when `pod.Spec.HostUsers` is false");
            }
        }
    }
    let Some(context) = &spec.security_context else { return };
    let path = path.field("securityContext");
    let ids = [("fsGroup", context.fs_group), ("runAsUser", context.run_as_user), ("runAsGroup", context.run_as_group)];
    for (field, id) in ids {
        self::id(id, path.field(field), findings);
    }
    for (index, group) in context.supplemental_groups.iter().flatten().enumerate() {
        self::id(Some(*group), path.field("supplementalGroups").index(index), findings);
    }
    let enums: [(_, _, &[&str]); 3] = [
        ("fsGroupChangePolicy", &context.fs_group_change_policy, &["Always", "OnRootMismatch"]),
        ("supplementalGroupsPolicy", &context.supplemental_groups_policy, &["Merge", "Strict"]),
        ("seLinuxChangePolicy", &context.se_linux_change_policy, &["MountOption", "Recursive"]),
    ];
    for (field, value, supported) in enums {
        if let Some(value) = value.as_deref().filter(|value| !supported.contains(value)) {
            findings.not_supported(path.field(field), value, supported);
        }
    }
    let mut seen: Vec<&str> = Vec::new();
    for (index, sysctl) in context.sysctls.iter().flatten().enumerate() {
        let path = path.field("sysctls").index(index).field("name");
        let name = sysctl.name.as_str();
        if name.is_empty() {
            findings.required(path.clone(), "");
        } else if !format::is_sysctl_name(name) {
            let detail = "must have at most 253 characters and match regex \
                          ([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?";
            findings.invalid(path.clone(), name, detail);
        } else if seen.contains(&name) {
            findings.duplicate(path.clone(), name);
        }
        seen.push(name);
        let dotted = name.replace('/', ".");
        if host_network && dotted.starts_with("net.") {
            findings.invalid(path, name, "may not be specified when 'hostNetwork' is true");
        } else if host_ipc
            && (dotted.starts_with("kernel.shm")
                || dotted.starts_with("kernel.msg")
                || dotted.starts_with("fs.mqueue.")
                || dotted == "kernel.sem")
        {
            findings.invalid(path, name, "may not be specified when 'hostIPC' is true");
        }
    }
    seccomp(context.seccomp_profile.as_ref(), &path.field("seccompProfile"), findings);
    app_armor(context.app_armor_profile.as_ref(), &path.field("appArmorProfile"), findings);
}

pub(super) fn container(context: &SecurityContext, host_users: bool, path: &Path, findings: &mut Findings) {
    id(context.run_as_user, path.field("runAsUser"), findings);
    id(context.run_as_group, path.field("runAsGroup"), findings);
    if let Some(mount) = context.proc_mount.as_deref() {
        let supported = ["Default", "Unmasked"];
        let path = path.field("procMount");
        if !supported.contains(&mount) {
            findings.not_supported(path.clone(), mount, &supported);
        }
        if mount == "Unmasked" && host_users {
            findings.invalid(path, mount, "`hostUsers` must be false to use `Unmasked`");
        }
    }
    seccomp(context.seccomp_profile.as_ref(), &path.field("seccompProfile"), findings);
    app_armor(context.app_armor_profile.as_ref(), &path.field("appArmorProfile"), findings);
    if context.allow_privilege_escalation == Some(false) {
        let added = context.capabilities.as_ref().and_then(|capabilities| capabilities.add.as_deref());
        // Upstream compares with the prefix only; without it the kernel simply grants nothing through set-user-id.
        if added.unwrap_or_default().iter().any(|capability| capability == "CAP_SYS_ADMIN") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            findings.invalid(path.clone(), shown(context), detail);
        }
        if context.privileged == Some(true) {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            findings.invalid(path.clone(), shown(context), detail);
        }
    }
}

fn shown(context: &SecurityContext) -> serde_json::Value {
    serde_json::to_value(context).unwrap_or_default()
}

fn id(id: Option<i64>, path: Path, findings: &mut Findings) {
    if let Some(id) = id.filter(|id| !(0..=MAX_ID).contains(id)) {
        findings.invalid(path, id, &format::inclusive_range(0, MAX_ID));
    }
}

fn seccomp(profile: Option<&SeccompProfile>, path: &Path, findings: &mut Findings) {
    let Some(profile) = profile else { return };
    let supported = ["Localhost", "RuntimeDefault", "Unconfined"];
    match profile.type_.as_str() {
        "" => findings.required(path.field("type"), "type is required when seccompProfile is set"),
        type_ if !supported.contains(&type_) => findings.not_supported(path.field("type"), type_, &supported),
        _ => {}
    }
    let path = path.field("localhostProfile");
    match (&profile.localhost_profile, profile.type_ == "Localhost") {
        (None, true) => findings.required(path, "must be set when seccomp type is Localhost"),
        (Some(file), true) => volume::descending(file, &path, findings),
        (Some(file), false) => {
            findings.invalid(path, file.as_str(), "can only be set when seccomp type is Localhost");
        }
        (None, false) => {}
    }
}

fn app_armor(profile: Option<&AppArmorProfile>, path: &Path, findings: &mut Findings) {
    let Some(profile) = profile else { return };
    let supported = ["Localhost", "RuntimeDefault", "Unconfined"];
    match profile.type_.as_str() {
        "" => findings.required(path.field("type"), "type is required when appArmorProfile is set"),
        type_ if !supported.contains(&type_) => findings.not_supported(path.field("type"), type_, &supported),
        _ => {}
    }
    let path = path.field("localhostProfile");
    match (profile.localhost_profile.as_deref(), profile.type_ == "Localhost") {
        (None | Some(""), true) => findings.required(path, "must be set when AppArmor type is Localhost"),
        (Some(name), false) => findings.invalid(path, name, "can only be set when AppArmor type is Localhost"),
        _ => {}
    }
}
