//! One tree for all controllers.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::device::Devices;
use super::{CgroupError, Limits, Stats, Unapplied, device_filter, file};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tree {
    pub(super) root: PathBuf,
}

const DEFAULT_PERIOD_US: u64 = 100_000;
const DEFAULT_WEIGHT: u64 = 100;

impl Tree {
    /// Lets every group on the way down hand its controllers to its children.
    pub(super) fn enable_controllers(&self, relative: &Path, limits: &Limits, unapplied: &mut Vec<Unapplied>) {
        let mut directory = self.root.clone();
        for component in relative.components() {
            for (controller, limit, wanted) in [
                ("cpu", "cpu_shares", limits.cpu_shares.is_some() || limits.cpu_quota_us.is_some()),
                ("memory", "memory_limit", limits.memory_limit.is_some()),
                ("pids", "pids_max", limits.pids_max.is_some()),
            ] {
                let listed = |name: &str| {
                    file::read(&directory.join(name))
                        .is_ok_and(|list| list.split_whitespace().any(|known| known == controller))
                };
                if listed("cgroup.subtree_control") {
                    continue;
                }
                // Also without a limit, for statistics; but then nobody misses it.
                let written = file::write(&directory.join("cgroup.subtree_control"), &format!("+{controller}"));
                if let Err(error) = written
                    && wanted
                    && !unapplied.iter().any(|known| known.limit == limit)
                {
                    let reason = if listed("cgroup.controllers") {
                        format!("cannot enable `{controller}` below `{}`: {error}", directory.display())
                    } else {
                        format!("no cgroup controller `{controller}`")
                    };
                    unapplied.push(Unapplied { limit, reason });
                }
            }
            directory.push(component);
        }
    }

    /// Removes a group that is there but has no processes. Best effort: what stays can be used as it is.
    pub(super) fn clear(&self, relative: &Path) {
        let directory = self.root.join(relative);
        if file::keyed(&directory.join("cgroup.events"), "populated").is_ok_and(|populated| populated == 0) {
            let _ = super::remove_tree(&directory, Instant::now() + Duration::from_millis(100));
        }
    }

    pub(super) fn write(&self, directory: &Path, limits: &Limits, unapplied: &mut Vec<Unapplied>) {
        let mut set = |limit: &'static str, asked: bool, name: &str, value: String| {
            let Err(error) = file::write(&directory.join(name), &value) else { return };
            // What could not be enabled has been told already.
            if asked && !unapplied.iter().any(|known| known.limit == limit) {
                let lacking = error.kind() == io::ErrorKind::NotFound && directory.exists();
                let reason =
                    if lacking { format!("no cgroup controller for {name}") } else { format!("{name}: {error}") };
                unapplied.push(Unapplied { limit, reason });
            }
        };
        let weight = limits.cpu_shares.map_or(DEFAULT_WEIGHT, weight_from_shares);
        set("cpu_shares", limits.cpu_shares.is_some(), "cpu.weight", weight.to_string());
        let period = limits.cpu_period_us.unwrap_or(DEFAULT_PERIOD_US);
        let quota = limits.cpu_quota_us.map_or_else(|| "max".to_owned(), |quota| quota.max(1000).to_string());
        set("cpu_quota_us", limits.cpu_quota_us.is_some(), "cpu.max", format!("{quota} {period}"));
        let pids = limits.pids_max.map_or_else(|| "max".to_owned(), |max| max.to_string());
        set("pids_max", limits.pids_max.is_some(), "pids.max", pids);

        match limits.memory_limit {
            None => {
                set("memory_limit", false, "memory.max", "max".into());
                set("memory_limit", false, "memory.swap.max", "max".into());
            }
            Some(limit) => {
                // Swap off first. Its file is missing on kernels without swap, which is as good.
                if directory.join("memory.swap.max").exists() {
                    set("memory_limit", true, "memory.swap.max", "0".into());
                }
                // v2 would kill processes until the new limit holds; v1 refuses, and so does Kubernetes' resize.
                match file::number(&directory.join("memory.current")) {
                    Ok(usage) if usage > limit => unapplied.push(Unapplied {
                        limit: "memory_limit",
                        reason: format!("limit ({limit}) below current usage ({usage})"),
                    }),
                    _ => set("memory_limit", true, "memory.max", limit.to_string()),
                }
            }
        }
        let mut set = |limit: &'static str, asked: bool, name: &str, value: &str| {
            if let Err(error) = file::write(&directory.join(name), value)
                && asked
                && !unapplied.iter().any(|known| known.limit == "memory_limit")
            {
                unapplied.push(Unapplied { limit, reason: format!("{name}: {error}") });
            }
        };
        let group = if limits.memory_oom_group { "1" } else { "0" };
        set("memory_oom_group", limits.memory_oom_group, "memory.oom.group", group);
        if let Err(error) = write_devices(directory, &limits.devices) {
            unapplied.push(Unapplied { limit: "devices", reason: error.to_string() });
        }
    }

    pub(super) fn stats(&self, relative: &Path) -> Result<Stats, CgroupError> {
        let directory = self.root.join(relative);
        let memory_usage = file::number_if_present(&directory.join("memory.current"))?;
        let memory_working_set = match memory_usage {
            Some(usage) => Some(usage.saturating_sub(file::keyed(&directory.join("memory.stat"), "inactive_file")?)),
            None => None,
        };
        Ok(Stats {
            // There without any controller.
            cpu_usage_ns: Some(file::keyed(&directory.join("cpu.stat"), "usage_usec")?.saturating_mul(1000)),
            memory_usage,
            memory_working_set,
            pids: file::number_if_present(&directory.join("pids.current"))?,
        })
    }

    pub(super) fn kill(&self, relative: &Path, patience: Duration) -> Result<(), CgroupError> {
        let directory = self.root.join(relative);
        let failed = |source| CgroupError::Kill { path: relative.to_owned(), source };
        let deadline = Instant::now() + patience;
        let mut pause = Duration::from_micros(200);
        loop {
            match file::write(&directory.join("cgroup.kill"), "1") {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound && !directory.exists() => return Ok(()),
                // Before Linux 5.14.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let mut processes = Vec::new();
                    file::processes_below(&directory, &mut processes)?;
                    processes.into_iter().for_each(super::v1::kill_process);
                }
                Err(error) => return Err(failed(error)),
            }
            match file::keyed(&directory.join("cgroup.events"), "populated") {
                Ok(0) => return Ok(()),
                Err(CgroupError::Read { source, .. }) if file::is_gone(&source) => return Ok(()),
                Err(error) => return Err(error),
                Ok(_) if Instant::now() >= deadline => return Err(failed(io::ErrorKind::TimedOut.into())),
                Ok(_) => {}
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
}

fn write_devices(directory: &Path, devices: &Devices) -> io::Result<()> {
    match devices {
        Devices::Unchanged => Ok(()),
        // Filters of all levels must agree, so an explicit "all" is the absence of one.
        Devices::AllowAll => device_filter::detach_all(directory),
        Devices::Only(rules) => device_filter::replace(directory, rules),
    }
}

/// 2–262144 to 1–10000 so that 2 → 1, 1024 → 100, 262144 → 10000: the curve that Kubernetes' container runtimes agreed
/// on in 2025 (opencontainers/cgroups, `ConvertCPUSharesToCgroupV2Value`); the older straight line gave one cpu 39
/// against the default of 100 that everything outside of pods has.
pub(super) fn weight_from_shares(shares: u64) -> u64 {
    let shares = shares.clamp(2, 262_144);
    #[expect(clippy::cast_precision_loss, reason = "at most 2^18")]
    let logarithm = (shares as f64).log2();
    let exponent = (logarithm * logarithm + 125.0 * logarithm) / 612.0 - 7.0 / 34.0;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to 10000")]
    let weight = 10_f64.powf(exponent).ceil() as u64;
    weight.clamp(1, 10_000)
}
