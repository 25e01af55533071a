//! The engine's hand on control groups: make a group with limits, change them, read, kill, remove.
//!
//! One driver for both kernels' interfaces, chosen at run time from `/proc/self/mountinfo`: **v1**, one tree per
//! controller (also the hybrid layout, where an extra v2 tree has no controller we need), and **v2**, one tree
//! (cgroups(7), `Documentation/admin-guide/cgroup-v1/`, `cgroup-v2.rst`). A path like `/outrigger/POD/CONTAINER` names
//! the same group in every tree. What the kernel cannot limit is reported as [`Unapplied`], never passed over.
//!
//! On v2 a group with children that have controllers may hold no processes of its own, so the engine gives the shim a
//! leaf beside the containers.
//!
//! Calls block: most for microseconds, [`Hierarchy::kill`] and [`Hierarchy::remove`] until the processes are gone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub mod device;
mod device_filter;
mod file;
mod mountinfo;
#[cfg(test)]
mod tests;
mod v1;
mod v2;

pub use device::{Access, Devices, Kind, Rule};

/// The group trees of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    layout: Layout,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

/// What a group may use. `None` is no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Relative weight in the v1 scale 2–262144, 1024 a full cpu; v2's `cpu.weight` is derived from it.
    pub cpu_shares: Option<u64>,
    /// Microseconds of cpu per period, at least 1000.
    pub cpu_quota_us: Option<u64>,
    /// Microseconds; `None` is 100 000.
    pub cpu_period_us: Option<u64>,
    /// Bytes. Swap is then none on top of it.
    pub memory_limit: Option<u64>,
    /// v2 only: when the kernel kills one process of the group for memory, it kills all. v1 has no such switch; a
    /// container there lives on if its first process survives. (Not reported: v1 nodes of Kubernetes behave so too.)
    pub memory_oom_group: bool,
    pub pids_max: Option<u64>,
    pub devices: Devices,
}

/// A group that stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// One directory a tree: a process that writes `0` to each `cgroup.procs` has joined.
    pub directories: Vec<PathBuf>,
    pub unapplied: Vec<Unapplied>,
}

/// A limit that was asked for and does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unapplied {
    /// The field of [`Limits`].
    pub limit: &'static str,
    pub reason: String,
}

/// What a group has used and uses. `None` where the machine lacks the controller.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Nanoseconds of cpu since the group was made.
    pub cpu_usage_ns: Option<u64>,
    /// Bytes, page cache included.
    pub memory_usage: Option<u64>,
    /// Bytes that cannot be reclaimed at once: usage without inactive file pages, as the kubelet counts.
    pub memory_working_set: Option<u64>,
    pub pids: Option<u64>,
}

#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    #[error("failed to read /proc/self/mountinfo")]
    Read(#[source] io::Error),
    #[error("no cgroup file system with cpu, memory or pids is mounted")]
    None,
}

#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("failed to make cgroup `{path}`")]
    Create { path: PathBuf, source: io::Error },
    #[error("failed to read cgroup file `{path}`")]
    Read { path: PathBuf, source: io::Error },
    #[error("failed to remove cgroup `{path}`")]
    Remove { path: PathBuf, source: io::Error },
    #[error("failed to kill the processes of cgroup `{path}`")]
    Kill { path: PathBuf, source: io::Error },
    #[error("cgroup path `{0}` is not absolute or leaves its tree")]
    Path(PathBuf),
    /// Without it every device of the machine would be open.
    #[error("failed to limit the devices of cgroup `{path}`: {reason}")]
    Devices { path: PathBuf, reason: String },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Layout {
    V1(v1::Trees),
    V2(v2::Tree),
}

/// How long [`Hierarchy::kill`] and [`Hierarchy::remove`] wait for processes to go: one in uninterruptible sleep (a
/// dead NFS server) may never.
const PATIENCE: Duration = Duration::from_secs(10);

impl Hierarchy {
    /// Looks at what is mounted.
    ///
    /// # Errors
    /// When no usable control group tree is.
    pub fn detect() -> Result<Hierarchy, DetectError> {
        let text = fs::read_to_string("/proc/self/mountinfo").map_err(DetectError::Read)?;
        Hierarchy::from_mountinfo(&text).ok_or(DetectError::None)
    }

    /// [`Hierarchy::detect`] on the text of a `/proc/PID/mountinfo` (proc_pid_mountinfo(5)).
    pub fn from_mountinfo(text: &str) -> Option<Hierarchy> {
        let found = mountinfo::parse(text);
        let layout = if found.v1.is_empty() {
            Layout::V2(v2::Tree { root: found.v2? })
        } else {
            Layout::V1(v1::Trees { controllers: found.v1 })
        };
        Some(Hierarchy { layout })
    }

    pub fn version(&self) -> Version {
        match self.layout {
            Layout::V1(_) => Version::V1,
            Layout::V2(_) => Version::V2,
        }
    }

    /// Where `path` lives, one directory a tree, whether it exists or not.
    ///
    /// # Errors
    /// [`CgroupError::Path`].
    pub fn directories(&self, path: &Path) -> Result<Vec<PathBuf>, CgroupError> {
        let relative = relative(path)?;
        Ok(match &self.layout {
            Layout::V1(trees) => trees.roots().map(|root| root.join(relative)).collect(),
            Layout::V2(tree) => vec![tree.root.join(relative)],
        })
    }

    /// Makes the group and its missing parents, and writes its limits. Fine when it exists; on v2 one without processes
    /// is then made anew, without what the container before left in it: groups of its own with controllers, which would
    /// keep processes out of it, and page cache, which would count against the limit.
    ///
    /// # Errors
    /// When a directory cannot be made, or the device rules do not hold; another limit that cannot be written is in
    /// [`Created::unapplied`].
    pub fn create(&self, path: &Path, limits: &Limits) -> Result<Created, CgroupError> {
        let directories = self.directories(path)?;
        let mut unapplied = Vec::new();
        if let Layout::V2(tree) = &self.layout {
            tree.clear(relative(path)?);
        }
        for directory in &directories {
            fs::create_dir_all(directory).map_err(|source| CgroupError::Create { path: directory.clone(), source })?;
        }
        if let Layout::V2(tree) = &self.layout {
            tree.enable_controllers(relative(path)?, limits, &mut unapplied);
        }
        self.write(relative(path)?, limits, &mut unapplied);
        if let Some(position) = unapplied.iter().position(|unapplied| unapplied.limit == "devices") {
            let reason = unapplied.swap_remove(position).reason;
            return Err(CgroupError::Devices { path: path.to_owned(), reason });
        }
        Ok(Created { directories, unapplied })
    }

    /// Writes limits to a living group. A `None` removes the limit; [`Devices::Unchanged`] keeps the device rules.
    ///
    /// # Errors
    /// [`CgroupError::Path`]; a limit that cannot be written (memory below what is used now, say) is in the list.
    pub fn update(&self, path: &Path, limits: &Limits) -> Result<Vec<Unapplied>, CgroupError> {
        let mut unapplied = Vec::new();
        self.write(relative(path)?, limits, &mut unapplied);
        Ok(unapplied)
    }

    /// # Errors
    /// When a file that exists cannot be read or understood, or the group is gone.
    pub fn stats(&self, path: &Path) -> Result<Stats, CgroupError> {
        let relative = relative(path)?;
        match &self.layout {
            Layout::V1(trees) => trees.stats(relative),
            Layout::V2(tree) => tree.stats(relative),
        }
    }

    /// How many processes of the group the kernel has killed for memory.
    ///
    /// # Errors
    /// When the group is gone or the machine has no memory controller.
    pub fn oom_kill_count(&self, path: &Path) -> Result<u64, CgroupError> {
        let relative = relative(path)?;
        match &self.layout {
            Layout::V1(trees) => file::keyed(&trees.memory_file(relative, "memory.oom_control")?, "oom_kill"),
            Layout::V2(tree) => file::keyed(&tree.root.join(relative).join("memory.events"), "oom_kill"),
        }
    }

    /// The processes of the group and its descendants.
    ///
    /// # Errors
    /// When the group is gone.
    pub fn processes(&self, path: &Path) -> Result<Vec<u32>, CgroupError> {
        let mut found = Vec::new();
        for directory in self.directories(path)? {
            file::processes_below(&directory, &mut found)?;
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// Kills every process of the group and its descendants, and waits until none is left, at most ten seconds. Fine
    /// when the group is gone.
    ///
    /// # Errors
    /// [`CgroupError::Kill`] with `TimedOut` when processes remain.
    pub fn kill(&self, path: &Path) -> Result<(), CgroupError> {
        let relative = relative(path)?;
        match &self.layout {
            Layout::V1(trees) => trees.kill(relative, PATIENCE),
            Layout::V2(tree) => tree.kill(relative, PATIENCE),
        }
    }

    /// Removes the group and its descendants, which must be without processes; waits up to ten seconds for the last
    /// ones to vanish. Fine when it is gone.
    ///
    /// # Errors
    /// [`CgroupError::Remove`], after trying every tree.
    pub fn remove(&self, path: &Path) -> Result<(), CgroupError> {
        let mut outcome = Ok(());
        for directory in self.directories(path)? {
            let removed = remove_tree(&directory, Instant::now() + PATIENCE)
                .map_err(|source| CgroupError::Remove { path: directory.clone(), source });
            outcome = outcome.and(removed);
        }
        outcome
    }

    fn write(&self, relative: &Path, limits: &Limits, unapplied: &mut Vec<Unapplied>) {
        match &self.layout {
            Layout::V1(trees) => trees.write(relative, limits, unapplied),
            Layout::V2(tree) => tree.write(&tree.root.join(relative), limits, unapplied),
        }
    }
}

/// `/a/b` as `a/b`; refuses what would leave the tree, and the root itself.
fn relative(path: &Path) -> Result<&Path, CgroupError> {
    use std::path::Component;
    let refused = || CgroupError::Path(path.to_owned());
    let below = path.strip_prefix("/").map_err(|_| refused())?;
    let plain = below.components().all(|component| matches!(component, Component::Normal(_)));
    if plain && below.components().next().is_some() { Ok(below) } else { Err(refused()) }
}

/// Deepest first. A group whose last process has only just died answers `EBUSY` for a moment.
fn remove_tree(directory: &Path, deadline: Instant) -> io::Result<()> {
    match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(entries) => {
            for entry in entries {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    remove_tree(&entry.path(), deadline)?;
                }
            }
        }
    }
    let mut pause = Duration::from_millis(1);
    loop {
        match fs::remove_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(50));
            }
            outcome => return outcome,
        }
    }
}
