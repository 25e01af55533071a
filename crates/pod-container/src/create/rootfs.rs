//! The root: image layers below, the attempt's own layer on top.

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use crate::failure::{Failure, OrFail};
use crate::spec::Rootfs;
use crate::tree::Tree;

/// Mounted over its own upper directory, which nobody needs by name any more: so it has a place without one being made.
pub(super) fn mount(rootfs: &Rootfs) -> Result<OwnedFd, Failure> {
    // The mode of `upper` becomes the mode of the container's `/`.
    make_directory(&rootfs.upper, 0o755)?;
    make_directory(&rootfs.work, 0o700)?;
    // Left by a life of this attempt that the machine's crash ended; overlay refuses to mount while it is there.
    let _ = std::fs::remove_dir_all(rootfs.work.join("work/incompat"));
    let lower: Vec<&[u8]> = rootfs.lower.iter().map(|layer| layer.as_os_str().as_bytes()).collect();
    let upper = (rootfs.upper.as_os_str().as_bytes(), rootfs.work.as_os_str().as_bytes());
    let what = || format!("failed to mount the root over {} layers with {}", lower.len(), rootfs.upper.display());
    let tree = Tree::overlay(&lower, Some(upper), MountAttrFlags::empty()).or_fail(what)?;
    let place = rustix::fs::open(&rootfs.upper, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .or_fail(what)?;
    tree.attach(place).or_fail(what)
}

fn make_directory(path: &Path, mode: u32) -> Result<(), Failure> {
    let what = || format!("failed to make directory {}", path.display());
    match rustix::fs::mkdir(path, Mode::from_raw_mode(mode)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(Errno::NOENT) => {
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent).or_fail(what)?;
            }
            rustix::fs::mkdir(path, Mode::from_raw_mode(mode)).or_fail(what)
        }
        Err(errno) => Err(errno).or_fail(what),
    }
}
