//! The machine as a node: what the downward API and resource arithmetic ask for.

use pod_api::context::NodeInfo;

/// Reads `/proc/meminfo`, the CPU count and the host's name once, at start.
pub(crate) fn observe() -> NodeInfo {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    NodeInfo {
        name,
        host_ips: pod_network::host_ips(),
        cpu_millis: i64::try_from(cpus).unwrap_or(1) * 1000,
        memory_bytes: memory_bytes().unwrap_or(0),
        ephemeral_bytes: disk_bytes().unwrap_or(0),
    }
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
