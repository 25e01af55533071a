//! `outrigger status`: whether the node runs, where, and what it takes.

use jiff::Timestamp;
use pod_engine::record;

use crate::cli::{Global, Status};
use crate::exit;
use crate::host;
use crate::start;
use crate::stdout::print;

/// As service managers have it (LSB, `systemctl status`).
const NOT_RUNNING: u8 = 3;

pub(crate) fn run(global: &Global, _arguments: &Status) -> anyhow::Result<u8> {
    let roots = host::roots(global);
    let Some(card) = start::alive(&roots) else {
        // Who may not look cannot tell.
        std::fs::metadata(&roots.run).or_else(|error| match error.kind() {
            std::io::ErrorKind::PermissionDenied => Err(error),
            _ => std::fs::metadata("/"),
        })?;
        print("the node is not running\n")?;
        return Ok(NOT_RUNNING);
    };
    let pods = record::list(&roots)?;
    let phase = |wanted: &[&str]| {
        let of_store = pods.iter().filter(|pod| pod.record.of_store);
        of_store.filter(|pod| wanted.contains(&pod.status.phase.as_deref().unwrap_or("Pending"))).count()
    };
    let store = pod_image::Store::open(&roots.images())?;
    let size = store.size()?;
    let since = Timestamp::now().duration_since(card.since).as_secs();
    let mut rows = vec![
        ("version", card.version),
        ("address", format!("https://{}", card.address)),
        ("context", start::context_name(&roots)),
        ("process", format!("{}, up {}", card.pid, pod_api::status::human_duration(since))),
        (
            "pods",
            format!(
                "{} running, {} pending, {} ended",
                phase(&["Running"]),
                phase(&["Pending"]),
                phase(&["Succeeded", "Failed"])
            ),
        ),
        ("memory", proportional(card.pid).map_or("unknown".into(), bytes)),
        ("images", format!("{} in {}", bytes(size.blobs + size.layers), roots.images().display())),
    ];
    if card.offline {
        rows.push(("registries", "none (--offline)".into()));
    }
    let text: Vec<String> = rows.iter().map(|(name, value)| format!("{name:<11}{value}\n")).collect();
    print(text.concat())?;
    Ok(exit::OK)
}

/// Resident memory, with shared pages counted in parts (proc_pid_smaps(5)), in bytes.
fn proportional(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// One decimal of the largest unit that fits.
fn bytes(count: u64) -> String {
    let units = [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.iter().find(|(_, size)| count >= *size) {
        Some((unit, size)) => format!("{}.{} {unit}", count / size, count % size * 10 / size),
        None => format!("{count} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_by_people() {
        assert_eq!(bytes(12), "12 B");
        assert_eq!(bytes(11 * (1 << 20) + (1 << 19)), "11.5 MiB");
        assert!(proportional(std::process::id()).is_some_and(|bytes| bytes > 1 << 16));
    }
}
