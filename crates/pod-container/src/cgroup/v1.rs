//! One tree per controller.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::device::Devices;
use super::{CgroupError, Limits, Stats, Unapplied, file};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trees {
    /// (controller, root of its tree)
    pub(super) controllers: Vec<(String, PathBuf)>,
}

/// The values that mean "no limit".
const NO_QUOTA: &str = "-1";
const NO_MEMORY_LIMIT: &str = "-1";
const DEFAULT_SHARES: u64 = 1024;
const DEFAULT_PERIOD_US: u64 = 100_000;

impl Trees {
    /// Each root once: `cpu` and `cpuacct` often share a tree.
    pub(super) fn roots(&self) -> impl Iterator<Item = &Path> {
        self.controllers.iter().enumerate().filter_map(|(index, (_, root))| {
            let first = !self.controllers[..index].iter().any(|(_, earlier)| earlier == root);
            first.then_some(root.as_path())
        })
    }

    pub(super) fn memory_file(&self, relative: &Path, name: &str) -> Result<PathBuf, CgroupError> {
        self.path("memory", relative).map(|directory| directory.join(name)).ok_or_else(|| CgroupError::Read {
            path: relative.join(name),
            source: io::Error::new(io::ErrorKind::Unsupported, "no memory controller"),
        })
    }

    pub(super) fn write(&self, relative: &Path, limits: &Limits, unapplied: &mut Vec<Unapplied>) {
        let mut report = |limit: &'static str, outcome: Result<(), String>| {
            if let Err(reason) = outcome {
                unapplied.push(Unapplied { limit, reason });
            }
        };
        let shares = limits.cpu_shares.unwrap_or(DEFAULT_SHARES).clamp(2, 262_144);
        let written = self.set("cpu", relative, "cpu.shares", &shares.to_string());
        report("cpu_shares", written.or_else(|reason| excuse(limits.cpu_shares.is_none(), reason)));
        report("cpu_quota_us", self.write_quota(relative, limits));
        report("memory_limit", self.write_memory(relative, limits));
        let pids = limits.pids_max.map_or_else(|| "max".to_owned(), |max| max.to_string());
        let written = self.set("pids", relative, "pids.max", &pids);
        report("pids_max", written.or_else(|reason| excuse(limits.pids_max.is_none(), reason)));
        report("devices", self.write_devices(relative, &limits.devices));
    }

    pub(super) fn stats(&self, relative: &Path) -> Result<Stats, CgroupError> {
        let read = |controller: &str, name: &str| match self.path(controller, relative) {
            Some(directory) => file::number(&directory.join(name)).map(Some),
            None => Ok(None),
        };
        let memory_usage = read("memory", "memory.usage_in_bytes")?;
        let memory_working_set = match memory_usage {
            Some(usage) => {
                let inactive = file::keyed(&self.memory_file(relative, "memory.stat")?, "total_inactive_file")?;
                Some(usage.saturating_sub(inactive))
            }
            None => None,
        };
        Ok(Stats {
            cpu_usage_ns: read("cpuacct", "cpuacct.usage")?,
            memory_usage,
            memory_working_set,
            pids: read("pids", "pids.current")?,
        })
    }

    /// v1 has no kill switch. Freezing first stops a fork bomb from outrunning the list; a frozen process takes its
    /// SIGKILL when thawed.
    pub(super) fn kill(&self, relative: &Path, patience: Duration) -> Result<(), CgroupError> {
        let deadline = Instant::now() + patience;
        let freezer = self.path("freezer", relative).map(|directory| directory.join("freezer.state"));
        let mut pause = Duration::from_micros(200);
        loop {
            let mut processes = Vec::new();
            for root in self.roots() {
                file::processes_below(&root.join(relative), &mut processes)?;
            }
            processes.sort_unstable();
            processes.dedup();
            if processes.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let source = io::Error::from(io::ErrorKind::TimedOut);
                return Err(CgroupError::Kill { path: relative.to_owned(), source });
            }
            // Failure to freeze only makes the race possible again; the loop still ends it.
            if let Some(state) = &freezer
                && file::write(state, "FROZEN").is_ok()
            {
                processes.clear();
                for root in self.roots() {
                    file::processes_below(&root.join(relative), &mut processes)?;
                }
            }
            for pid in processes {
                kill_process(pid);
            }
            if let Some(state) = &freezer {
                let _ = file::write(state, "THAWED");
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    fn path(&self, controller: &str, relative: &Path) -> Option<PathBuf> {
        self.controllers.iter().find(|(name, _)| name == controller).map(|(_, root)| root.join(relative))
    }

    fn set(&self, controller: &str, relative: &Path, name: &str, value: &str) -> Result<(), String> {
        let directory =
            self.path(controller, relative).ok_or_else(|| format!("no cgroup controller `{controller}`"))?;
        file::write(&directory.join(name), value).map_err(|error| format!("{name}: {error}"))
    }

    fn write_quota(&self, relative: &Path, limits: &Limits) -> Result<(), String> {
        let Some(quota) = limits.cpu_quota_us else {
            return self.set("cpu", relative, "cpu.cfs_quota_us", NO_QUOTA).or_else(|reason| excuse(true, reason));
        };
        let period = limits.cpu_period_us.unwrap_or(DEFAULT_PERIOD_US).to_string();
        let quota = quota.max(1000).to_string();
        // The kernel refuses a pair in which a child may use more than its parent, and each file is checked with the
        // other's present value: try the order that grows first, then the one that shrinks.
        let period_written = self.set("cpu", relative, "cpu.cfs_period_us", &period);
        let quota_written = self.set("cpu", relative, "cpu.cfs_quota_us", &quota);
        if period_written.is_err() && quota_written.is_ok() {
            return self.set("cpu", relative, "cpu.cfs_period_us", &period);
        }
        quota_written
    }

    /// `memsw` (memory + swap) can never be below `limit_in_bytes`, so growing writes it first and shrinking last.
    fn write_memory(&self, relative: &Path, limits: &Limits) -> Result<(), String> {
        const LIMIT: &str = "memory.limit_in_bytes";
        const WITH_SWAP: &str = "memory.memsw.limit_in_bytes";
        let Some(limit) = limits.memory_limit else {
            let _ = self.set("memory", relative, WITH_SWAP, NO_MEMORY_LIMIT);
            return self.set("memory", relative, LIMIT, NO_MEMORY_LIMIT).or_else(|reason| excuse(true, reason));
        };
        let limit = limit.to_string();
        let first = self.set("memory", relative, LIMIT, &limit);
        // Kernels without swap accounting have no such file; there is then nothing to count either.
        let accounted = self.path("memory", relative).is_some_and(|directory| directory.join(WITH_SWAP).exists());
        let swap = if accounted { self.set("memory", relative, WITH_SWAP, &limit) } else { Ok(()) };
        match first {
            Ok(()) => swap,
            Err(_) if accounted && swap.is_ok() => self.set("memory", relative, LIMIT, &limit),
            Err(reason) => Err(reason),
        }
    }

    fn write_devices(&self, relative: &Path, devices: &Devices) -> Result<(), String> {
        match devices {
            Devices::Unchanged => Ok(()),
            Devices::AllowAll => self.set("devices", relative, "devices.allow", "a"),
            Devices::Only(rules) => {
                self.set("devices", relative, "devices.deny", "a")?;
                rules.iter().try_for_each(|rule| self.set("devices", relative, "devices.allow", &rule.to_v1()))
            }
        }
    }
}

/// "No limit" on a machine without the controller is what there is anyway.
fn excuse(unlimited: bool, reason: String) -> Result<(), String> {
    if unlimited { Ok(()) } else { Err(reason) }
}

pub(super) fn kill_process(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        // It may have ended on its own.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}
