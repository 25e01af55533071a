//! Joining control groups, fast.
//!
//! Writing a PID to `cgroup.procs` takes a lock whose first taker waits for an RCU grace period: 2–15 ms, many times the
//! cost of everything else a container needs. Two ways around it: on v2 a child is born in its group (clone3(2) with
//! `CLONE_INTO_CGROUP`), on v1 a single-threaded process writes `0` to `tasks`, which moves only itself and needs no lock
//! (`cgroup_procs_write_start` in kernel/cgroup/cgroup.c).

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::inside;

/// The group to be born in: the first of a container's directories, if that is of v2.
pub fn birthplace(cgroups: &[impl AsRef<Path>]) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(cgroups.first()?.as_ref(), flags, Mode::empty()).ok()?;
    (inside::magic(&directory) == Ok(inside::CGROUP2)).then_some(directory)
}

/// Moves this single-threaded process into a group. Zero means "whoever writes" and needs no knowledge of PID namespaces.
///
/// # Errors
/// What the kernel says to open or write.
pub fn join(directory: &Path) -> Result<(), Errno> {
    let open = |name: &str| rustix::fs::open(directory.join(name), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
    let file = match open("tasks") {
        // v2 has none.
        Err(Errno::NOENT) => open("cgroup.procs")?,
        file => file?,
    };
    rustix::io::write(&file, b"0").map(drop)
}
