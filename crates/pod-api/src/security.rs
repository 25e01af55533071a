//! The security context a container really runs with: the pod's and the container's merged, defaults filled in.
//!
//! A container's field overrides the pod's one by one; sidecars and init containers follow the same rules.

use k8s_openapi::api::core::v1::{Container, PodSecurityContext, PodSpec, SeccompProfile, SecurityContext};

use crate::capability;

/// `/proc` and `/sys` paths hidden from containers (`procMount: Default`). See also [`thermal_throttle_paths`].
pub const MASKED_PATHS: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// `/proc` paths containers cannot write to.
pub const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Namespaced and harmless to the neighbours, so any pod may set them.
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecurityError {
    #[error("unknown capability {0:?}")]
    Capability(String),
    #[error("unknown seccomp profile type {0:?}")]
    SeccompType(String),
    #[error("seccomp profile of type Localhost without localhostProfile")]
    SeccompPath,
    #[error("seccomp profile path {0:?} must be relative and must not contain '..'")]
    SeccompEscape(String),
    #[error("unknown procMount {0:?}")]
    ProcMount(String),
    #[error("unknown supplementalGroupsPolicy {0:?}")]
    GroupsPolicy(String),
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Seccomp {
    /// Also when nothing is said: Kubernetes confines only where the node says so.
    #[default]
    Unconfined,
    RuntimeDefault,
    /// Relative to the engine's directory of seccomp profiles.
    Localhost(String),
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum GroupsPolicy {
    /// Also the groups the image's `/etc/group` puts the user in.
    #[default]
    Merge,
    Strict,
}

/// Everything decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    /// `None`: the image's user.
    pub user: Option<i64>,
    /// `None`: the primary group of the user, else 0.
    pub group: Option<i64>,
    pub non_root: bool,
    pub supplemental_groups: Vec<i64>,
    pub fs_group: Option<i64>,
    pub groups_policy: GroupsPolicy,
    /// Capability mask of the bounding set.
    pub bounding: u64,
    /// Given to a root process; another keeps only the bounding set.
    pub permitted: u64,
    pub privileged: bool,
    /// `allowPrivilegeEscalation: false`.
    pub no_new_privileges: bool,
    pub read_only_root: bool,
    pub seccomp: Seccomp,
    pub masked_paths: Vec<String>,
    pub readonly_paths: Vec<String>,
}

impl Effective {
    pub fn of(spec: &PodSpec, container: &Container) -> Result<Effective, SecurityError> {
        let pod = spec.security_context.clone().unwrap_or_default();
        let own = container.security_context.clone().unwrap_or_default();
        let privileged = own.privileged == Some(true);
        let capabilities = capabilities(&own, privileged)?;
        let unmasked = privileged || unmasked_proc(&own)?;
        let listed = |paths: &[&str]| {
            let paths = if unmasked { &[] } else { paths };
            paths.iter().map(|path| (*path).to_owned()).collect()
        };
        Ok(Effective {
            user: own.run_as_user.or(pod.run_as_user),
            group: own.run_as_group.or(pod.run_as_group),
            non_root: own.run_as_non_root.or(pod.run_as_non_root) == Some(true),
            groups_policy: groups_policy(&pod)?,
            supplemental_groups: pod.supplemental_groups.unwrap_or_default(),
            fs_group: pod.fs_group,
            bounding: capabilities,
            permitted: capabilities,
            privileged,
            no_new_privileges: own.allow_privilege_escalation == Some(false),
            read_only_root: own.read_only_root_filesystem == Some(true),
            seccomp: if privileged {
                Seccomp::Unconfined
            } else {
                seccomp(own.seccomp_profile.as_ref().or(pod.seccomp_profile.as_ref()))?
            },
            masked_paths: listed(&MASKED_PATHS),
            readonly_paths: listed(&READONLY_PATHS),
        })
    }

    /// The groups a process gets besides its primary one and the image's: the supplemental ones and `fsGroup`.
    pub fn additional_groups(&self) -> Vec<i64> {
        let mut groups = self.supplemental_groups.clone();
        groups.extend(self.fs_group.filter(|group| !self.supplemental_groups.contains(group)));
        groups
    }
}

fn capabilities(own: &SecurityContext, privileged: bool) -> Result<u64, SecurityError> {
    if privileged {
        return Ok(capability::ALL);
    }
    let lists = own.capabilities.as_ref();
    let add = lists.and_then(|lists| lists.add.as_deref()).unwrap_or_default();
    let drop = lists.and_then(|lists| lists.drop.as_deref()).unwrap_or_default();
    capability::adjusted(capability::DEFAULT, add, drop).map_err(|name| SecurityError::Capability(name.to_owned()))
}

fn unmasked_proc(own: &SecurityContext) -> Result<bool, SecurityError> {
    match own.proc_mount.as_deref() {
        None | Some("" | "Default") => Ok(false),
        Some("Unmasked") => Ok(true),
        Some(other) => Err(SecurityError::ProcMount(other.to_owned())),
    }
}

fn groups_policy(pod: &PodSecurityContext) -> Result<GroupsPolicy, SecurityError> {
    match pod.supplemental_groups_policy.as_deref() {
        None | Some("" | "Merge") => Ok(GroupsPolicy::Merge),
        Some("Strict") => Ok(GroupsPolicy::Strict),
        Some(other) => Err(SecurityError::GroupsPolicy(other.to_owned())),
    }
}

fn seccomp(profile: Option<&SeccompProfile>) -> Result<Seccomp, SecurityError> {
    let Some(profile) = profile else { return Ok(Seccomp::Unconfined) };
    match profile.type_.as_str() {
        "Unconfined" => Ok(Seccomp::Unconfined),
        "RuntimeDefault" => Ok(Seccomp::RuntimeDefault),
        "Localhost" => match profile.localhost_profile.as_deref() {
            None | Some("") => Err(SecurityError::SeccompPath),
            Some(path) if path.starts_with('/') || path.split('/').any(|part| part == "..") => {
                Err(SecurityError::SeccompEscape(path.to_owned()))
            }
            Some(path) => Ok(Seccomp::Localhost(path.to_owned())),
        },
        other => Err(SecurityError::SeccompType(other.to_owned())),
    }
}

/// The per-CPU paths that are masked along with [`MASKED_PATHS`], for a machine with that many CPUs.
pub fn thermal_throttle_paths(cpus: usize) -> impl Iterator<Item = String> {
    (0..cpus).map(|cpu| format!("/sys/devices/system/cpu/cpu{cpu}/thermal_throttle"))
}

/// `runAsNonRoot` refuses to start the container (`CreateContainerConfigError`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NonRootViolation {
    #[error("container's runAsUser breaks non-root policy")]
    ExplicitRoot,
    #[error("container has runAsNonRoot and image will run as root")]
    ImageRoot,
    #[error("container has runAsNonRoot and image has non-numeric user ({0}), cannot verify user is non-root")]
    ImageName(String),
}

/// `image_user` is the image config's `User`: empty, `uid`, `name`, each with an optional `:group`.
pub fn check_non_root(effective: &Effective, image_user: &str) -> Result<(), NonRootViolation> {
    if !effective.non_root {
        return Ok(());
    }
    if let Some(user) = effective.user {
        return if user == 0 { Err(NonRootViolation::ExplicitRoot) } else { Ok(()) };
    }
    let user = image_user.split(':').next().unwrap_or_default();
    match user.parse::<i64>() {
        _ if user.is_empty() => Err(NonRootViolation::ImageRoot),
        Ok(0) => Err(NonRootViolation::ImageRoot),
        Ok(_) => Ok(()),
        Err(_) => Err(NonRootViolation::ImageName(user.to_owned())),
    }
}

/// Kernel settings of the pod's namespaces, names with dots.
pub fn sysctls(spec: &PodSpec) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    if spec.host_network != Some(true) {
        // As containerd does, so that a non-root process can serve port 80 and ping.
        all.push(("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned()));
        if spec.host_users != Some(false) {
            all.push(("net.ipv4.ping_group_range".to_owned(), "0 2147483647".to_owned()));
        }
    }
    for sysctl in spec.security_context.iter().flat_map(|context| context.sysctls.iter().flatten()) {
        let name = dotted(&sysctl.name);
        all.retain(|(known, _)| *known != name);
        all.push((name, sysctl.value.clone()));
    }
    all
}

/// Why the pod's sysctls make it fail at admission (phase Failed, reason `SysctlForbidden`): the first refusal.
pub fn forbidden_sysctl(spec: &PodSpec) -> Option<String> {
    let names = spec.security_context.iter().flat_map(|context| context.sysctls.iter().flatten());
    names.map(|sysctl| dotted(&sysctl.name)).find_map(|name| {
        let refusal = if name.starts_with("net.") && spec.host_network == Some(true) {
            "not allowed with host net enabled"
        } else if is_ipc(&name) && spec.host_ipc == Some(true) {
            "not allowed with host ipc enabled"
        } else if !SAFE_SYSCTLS.contains(&name.as_str()) {
            "not allowlisted"
        } else {
            return None;
        };
        Some(format!("forbidden sysctl: {name:?} {refusal}"))
    })
}

fn is_ipc(name: &str) -> bool {
    name.starts_with("kernel.shm")
        || name.starts_with("kernel.msg")
        || name.starts_with("fs.mqueue.")
        || name == "kernel.sem"
}

/// sysctl.d(5): where the first separator is a slash, slashes and dots change places.
fn dotted(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(first) if name.as_bytes()[first] == b'/' => {
            let swap = |c| match c {
                '/' => '.',
                '.' => '/',
                other => other,
            };
            name.chars().map(swap).collect()
        }
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests;
