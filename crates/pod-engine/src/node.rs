//! The machine as a node: what the downward API and resource arithmetic ask for.

use pod_api::context::NodeInfo;

/// Reads `/proc/meminfo`, the CPU count and, without a `name`, the host's once, at start.
pub(crate) fn observe(name: Option<String>) -> NodeInfo {
    let name = name.unwrap_or_else(host_name);
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    NodeInfo {
        name,
        host_ips: pod_network::host_ips(),
        cpu_millis: i64::try_from(cpus).unwrap_or(1) * 1000,
        memory_bytes: memory_bytes().unwrap_or(0),
        ephemeral_bytes: disk_bytes().unwrap_or(0),
    }
}

/// The host's name in lower case: a node's name is a DNS subdomain (RFC 1123), as the kubelet makes it.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().trim().to_lowercase()
}

fn memory_bytes() -> Option<i64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
    let kib: i64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

fn disk_bytes() -> Option<i64> {
    let stat = rustix::fs::statvfs("/var/lib").ok()?;
    i64::try_from(stat.f_blocks.saturating_mul(stat.f_frsize)).ok()
}

/// Whether this process holds CAP_SYS_RESOURCE (capabilities(7)).
pub(crate) fn may_lower_oom_score() -> bool {
    const CAP_SYS_RESOURCE: u32 = 24;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .is_some_and(|mask| mask >> CAP_SYS_RESOURCE & 1 == 1)
}
