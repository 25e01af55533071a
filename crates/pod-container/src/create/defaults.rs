//! What every container finds mounted: `/proc`, `/dev` with its nodes, `/sys` and its own cgroup.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::SharedProcesses;
use crate::failure::{Failure, OrFail};
use crate::spec::ContainerSpec;
use crate::sys::mount::{Attributes, set_attributes};
use crate::tree::{Tree, inert};
use crate::{inside, sys};

/// Places later steps need again.
pub(super) struct Places {
    pub(super) dev: OwnedFd,
}

/// (name, major, minor), all of them character devices for everybody (OCI runtime spec, "default devices").
const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];
/// What a privileged container does not take from the host's `/dev`: it has its own.
const OWN: [&str; 12] =
    ["pts", "shm", "mqueue", "fd", "stdin", "stdout", "stderr", "ptmx", "console", "core", ".udev", "hugepages"];
const CGROUPS: &str = "/sys/fs/cgroup";

pub(super) fn mount(
    root: BorrowedFd<'_>,
    spec: &ContainerSpec,
    shared: Option<SharedProcesses<'_>>,
) -> Result<Places, Failure> {
    let proc = match shared {
        Some(shared) => copy_proc(shared)?,
        None => Tree::new("proc", &[], inert()).or_fail(|| "failed to mount /proc".into())?,
    };
    attach(root, "proc", "/proc", proc)?;
    let dev = mount_dev(root, spec.privileged)?;

    let read_only = if spec.privileged { MountAttrFlags::empty() } else { MountAttrFlags::MOUNT_ATTR_RDONLY };
    let sysfs = Tree::new("sysfs", &[], inert() | read_only).or_fail(|| "failed to mount /sys".into())?;
    let sys = attach(root, "sys", "/sys", sysfs)?;
    mount_cgroups(&sys, spec, read_only)?;
    Ok(Places { dev })
}

/// Only a whole procfs: the other container may have put something else there.
fn copy_proc(shared: SharedProcesses<'_>) -> Result<Tree, Failure> {
    /// Of the root of every procfs (PROC_ROOT_INO of the kernel).
    const ROOT: u64 = 1;
    let what = || "failed to copy the shared /proc".to_owned();
    let tree = super::mounts::elsewhere(shared.proc, what, || Tree::of_path(shared.proc_path, false).or_fail(what))?;
    let inode = rustix::fs::fstat(&tree).or_fail(what)?.st_ino;
    if inside::magic(&tree).or_fail(what)? != inside::PROC || inode != ROOT {
        return Err(Failure::create("failed to copy the shared /proc: it is no procfs"));
    }
    tree.set(inert(), false).or_fail(what)?;
    Ok(tree)
}

/// Onto a directory of `parent`, made if missing. A link there would put the mount elsewhere than the paths under it are
/// later looked for, so it is refused.
fn attach(parent: impl AsFd, name: &str, shown: &str, tree: Tree) -> Result<OwnedFd, Failure> {
    let what = || format!("failed to mount {shown}");
    match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno).or_fail(what),
    }
    tree.attach_at(parent, name).or_fail(what)
}

fn mount_dev(root: BorrowedFd<'_>, privileged: bool) -> Result<OwnedFd, Failure> {
    let what = || "failed to set up /dev".to_owned();
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_STRICTATIME;
    let tree = Tree::new("tmpfs", &[("mode", "755"), ("size", "65536k")], attributes).or_fail(what)?;
    // Filled while nobody can see it.
    for (name, major, minor) in NODES {
        let device = rustix::fs::makedev(major, minor);
        rustix::fs::mknodat(&tree, name, FileType::CharacterDevice, Mode::from_raw_mode(0o666), device)
            .or_fail(|| format!("failed to make /dev/{name}"))?;
    }
    for (target, name) in LINKS {
        rustix::fs::symlinkat(target, &tree, name).or_fail(what)?;
    }
    if privileged {
        copy_nodes(Path::new("/dev"), tree.as_fd(), true);
    }
    let dev = attach(root, "dev", "/dev", tree)?;

    let quiet = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    // Group 5 is `tty` everywhere. Each devpts is an instance of its own since Linux 4.7.
    let options = [("mode", "620"), ("ptmxmode", "666"), ("gid", "5")];
    let pts = Tree::new("devpts", &options, quiet).or_fail(|| "failed to mount /dev/pts".into())?;
    attach(&dev, "pts", "/dev/pts", pts)?;
    let mqueue = Tree::new("mqueue", &[], inert()).or_fail(|| "failed to mount /dev/mqueue".into())?;
    attach(&dev, "mqueue", "/dev/mqueue", mqueue)?;
    Ok(dev)
}

/// Best effort: a node that vanishes meanwhile is no loss.
fn copy_nodes(from: &Path, to: BorrowedFd<'_>, top: bool) {
    let Ok(entries) = std::fs::read_dir(from) else { return };
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        if top && OWN.iter().any(|own| name == *own) {
            continue;
        }
        let Ok(status) = rustix::fs::lstat(entry.path()) else { continue };
        let mode = Mode::from_raw_mode(status.st_mode & 0o7777);
        match FileType::from_raw_mode(status.st_mode) {
            kind @ (FileType::CharacterDevice | FileType::BlockDevice) => {
                let owner = rustix::process::Uid::from_raw(status.st_uid);
                let group = rustix::process::Gid::from_raw(status.st_gid);
                let _ = rustix::fs::mknodat(to, &name, kind, mode, status.st_rdev)
                    .and_then(|()| rustix::fs::chownat(to, &name, Some(owner), Some(group), AtFlags::SYMLINK_NOFOLLOW));
            }
            FileType::Directory => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                if rustix::fs::mkdirat(to, &name, mode).is_ok()
                    && let Ok(child) = rustix::fs::openat(to, &name, flags, Mode::empty())
                {
                    copy_nodes(&entry.path(), child.as_fd(), false);
                }
            }
            _ => {}
        }
    }
}

/// `/sys/fs/cgroup` shows the container's own groups at its top, so that a program that reads its limits there finds
/// them: on v2 through a cgroup namespace, on v1 by binding the group directory of each tree.
fn mount_cgroups(sys: &OwnedFd, spec: &ContainerSpec, read_only: MountAttrFlags) -> Result<(), Failure> {
    let Some(first) = spec.cgroups.first() else { return Ok(()) };
    let what = || format!("failed to mount {CGROUPS}");
    // A kernel without cgroups in sysfs has no place for it.
    let place = match rustix::fs::openat(sys, "fs/cgroup", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        place => place.or_fail(what)?,
    };
    let unified = rustix::fs::open(first, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .and_then(inside::magic)
        .or_fail(|| format!("failed to look at cgroup {}", first.display()))?
        == inside::CGROUP2;
    if unified && spec.privileged {
        // The host's, writable: what Kubernetes gives a privileged container.
        return Tree::of_path(CGROUPS, true).and_then(|tree| tree.attach(place)).map(drop).or_fail(what);
    }
    if unified {
        sys::process::unshare(rustix::thread::UnshareFlags::NEWCGROUP)
            .or_fail(|| "failed to make a cgroup namespace".into())?;
        let tree = Tree::new("cgroup2", &[], inert() | read_only).or_fail(what)?;
        return tree.attach(place).map(drop).or_fail(what);
    }
    let tree = Tree::new("tmpfs", &[("mode", "755"), ("size", "4k")], inert()).or_fail(what)?;
    let shelf = tree.attach(place).or_fail(what)?;
    for (name, directory) in spec.cgroups.iter().filter_map(|directory| Some((hierarchy(directory)?, directory))) {
        let group = Tree::of_path(directory, false).or_fail(what)?;
        group.set(inert() | read_only, true).or_fail(what)?;
        attach(&shelf, &name, &format!("{CGROUPS}/{name}"), group)?;
        for alias in name.split(',').filter(|alias| *alias != name) {
            let _ = rustix::fs::symlinkat(&*name, &shelf, alias);
        }
    }
    set_attributes(&shelf, false, Attributes::set(MountAttrFlags::MOUNT_ATTR_RDONLY)).or_fail(what)
}

/// `memory` of `/sys/fs/cgroup/memory/outrigger/…`.
fn hierarchy(directory: &Path) -> Option<String> {
    let below = directory.strip_prefix(CGROUPS).ok()?;
    Some(below.components().next()?.as_os_str().to_str()?.to_owned())
}
