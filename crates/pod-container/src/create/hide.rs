//! Hiding and protecting what the kernel shows of the host.
//!
//! Three escapes of 2025 (CVE-2025-31133, -52565, -52881) made a runtime bind the wrong thing or write to the wrong file
//! here. So: what hides is opened before the root of the container exists and checked to be the null device, a path below
//! `/proc` or `/sys` must really lie on procfs or sysfs, and all is done through descriptors.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use crate::failure::{Failure, OrFail};
use crate::inside;
use crate::tree::{Tree, inert};

/// Hides each path: a directory under an empty one, a file under the null device.
pub(super) fn mask(root: BorrowedFd<'_>, paths: &[String], null: &OwnedFd) -> Result<(), Failure> {
    let mut empty: Option<OwnedFd> = None;
    for path in paths {
        let what = || format!("failed to mask {path}");
        let Some(target) = find(root, path)? else { continue };
        let directory = inside::kind(&target).or_fail(what)? == FileType::Directory;
        let cover = match &empty {
            _ if !directory => Tree::of(null, false),
            Some(empty) => Tree::of(empty, false),
            None => empty_directory(),
        };
        let attached = cover.and_then(|cover| cover.attach(target)).or_fail(what)?;
        // The next ones are binds of the first, where it is attached: before Linux 6.15 only what is somewhere in this
        // mount namespace can be bound.
        if directory {
            empty.get_or_insert(attached);
        }
    }
    Ok(())
}

/// Binds each path read-only over itself, with what is mounted below it.
pub(super) fn protect(root: BorrowedFd<'_>, paths: &[String]) -> Result<(), Failure> {
    for path in paths {
        let what = || format!("failed to make {path} read-only");
        let Some(target) = find(root, path)? else { continue };
        let cover = Tree::of(target.as_fd(), true).or_fail(what)?;
        cover.set(MountAttrFlags::MOUNT_ATTR_RDONLY, true).or_fail(what)?;
        cover.attach(target).or_fail(what)?;
    }
    Ok(())
}

fn empty_directory() -> Result<Tree, Errno> {
    let options = [("mode", "755"), ("nr_inodes", "1"), ("size", "4k")];
    Tree::new("tmpfs", &options, inert() | MountAttrFlags::MOUNT_ATTR_RDONLY)
}

/// `None` when this kernel has no such path.
fn find(root: BorrowedFd<'_>, path: &str) -> Result<Option<OwnedFd>, Failure> {
    let what = || format!("failed to look at {path}");
    let target = match inside::open(root, path) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        target => target.or_fail(what)?,
    };
    let expected = if path.starts_with("/proc/") {
        inside::PROC
    } else if path.starts_with("/sys/") {
        inside::SYSFS
    } else {
        return Ok(Some(target));
    };
    if inside::magic(&target).or_fail(what)? == expected {
        Ok(Some(target))
    } else {
        Err(Failure::create(format!("{path} does not lie on the kernel's own file system")))
    }
}
