//! The volumes.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::failure::{Failure, OrFail};
use crate::inside::{self, Make};
use crate::spec::{Mount, MountSource, Propagation};
use crate::tree::{Tree, inert};

pub(super) fn mount(root: BorrowedFd<'_>, mounts: &[Mount], host_mounts: BorrowedFd<'_>) -> Result<(), Failure> {
    mounts.iter().try_for_each(|mount| mount_one(root, mount, host_mounts))
}

fn mount_one(root: BorrowedFd<'_>, mount: &Mount, host_mounts: BorrowedFd<'_>) -> Result<(), Failure> {
    let what = || format!("failed to mount {} at {}", describe(&mount.source), mount.target);
    if !mount.target.starts_with('/') {
        return Err(Failure::create(format!("mount target \"{}\" is not an absolute path", mount.target)));
    }
    let tree = source(mount, host_mounts)?;

    // Attributes, before anybody sees it.
    tree.propagate(mount.propagation).or_fail(what)?;
    let mut flags = MountAttrFlags::empty();
    if mount.noexec {
        flags |= MountAttrFlags::MOUNT_ATTR_NOEXEC;
    }
    if mount.recursive_readonly {
        tree.set(MountAttrFlags::MOUNT_ATTR_RDONLY, true).or_fail(what)?;
    } else if mount.readonly {
        flags |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    tree.set(flags, false).or_fail(what)?;

    let make = match inside::kind(&tree).or_fail(what)? {
        FileType::Directory => Make::Directory,
        _ => Make::File,
    };
    let target = inside::open_or_make(root, &mount.target, make, Mode::from_raw_mode(0o755))
        .or_fail(|| format!("failed to make mount target {}", mount.target))?;
    let target_is_directory = inside::kind(&target).or_fail(what)? == FileType::Directory;
    if target_is_directory != (make == Make::Directory) {
        return Err(Failure::create(format!("{}: one is a directory, the other is not", what())));
    }
    if is_same(root, &target).or_fail(what)? {
        // It would lie on top of the root, where nobody would find it.
        return Err(Failure::create(format!("{}: it is the root itself", what())));
    }
    // A mount inside /proc could fake what the kernel says there and what is written to protect the container.
    let in_proc = inside::magic(&target).or_fail(what)? == inside::PROC;
    if in_proc && inside::magic(&tree).or_fail(what)? != inside::PROC {
        return Err(Failure::create(format!("{}: it is inside /proc", what())));
    }
    tree.attach(target).or_fail(what).map(drop)
}

fn source(mount: &Mount, host_mounts: BorrowedFd<'_>) -> Result<Tree, Failure> {
    let what = || format!("failed to open {}", describe(&mount.source));
    match &mount.source {
        MountSource::Bind(path) if mount.propagation == Propagation::Shared => shared(path, host_mounts),
        MountSource::Bind(path) => Tree::of_path(path, true).or_fail(what),
        MountSource::BindBelow { root, path } => {
            let volume = open(root).or_fail(what)?;
            let found = inside::open_below(volume.as_fd(), path).map_err(|errno| match errno {
                Errno::XDEV | Errno::LOOP => {
                    Failure::create(format!("subPath \"{path}\" leads out of volume {}", root.display()))
                }
                errno => Failure::create(format!("{}: {}", what(), crate::failure::Reason(errno))),
            })?;
            Tree::of(found, true).or_fail(what)
        }
        MountSource::Tmpfs { size, mode } => {
            let mode = format!("{mode:o}");
            let size = size.map(|size| size.to_string());
            let mut options = vec![("mode", mode.as_str())];
            options.extend(size.as_deref().map(|size| ("size", size)));
            let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
            Tree::new("tmpfs", &options, flags).or_fail(what)
        }
        MountSource::Layers(layers) => {
            let paths: Vec<&[u8]> = layers.iter().map(|layer| layer.as_os_str().as_bytes()).collect();
            let flags = inert() | MountAttrFlags::MOUNT_ATTR_RDONLY;
            match layers.as_slice() {
                [] => Err(Failure::create(format!("no layers to mount at {}", mount.target))),
                // An overlay without an upper layer needs two below.
                [only] => {
                    let tree = open(only).and_then(|fd| Tree::of(fd, false)).or_fail(what)?;
                    tree.set(flags, false).or_fail(what)?;
                    Ok(tree)
                }
                _ => Tree::overlay(&paths, None, flags).or_fail(what),
            }
        }
    }
}

/// A bind that stays a peer of the host's mount (`mountPropagation: Bidirectional`). The shim's copies only receive, so
/// it is taken in the host's mount namespace.
fn shared(path: &Path, host_mounts: BorrowedFd<'_>) -> Result<Tree, Failure> {
    let what = || format!("failed to open {} on the host", path.display());
    elsewhere(host_mounts, what, || shared_tree(path, what))
}

/// Does something in another mount namespace.
pub(super) fn elsewhere<T>(
    namespace: BorrowedFd<'_>,
    what: impl Fn() -> String,
    action: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let enter = |namespace| move_into_link_name_space(namespace, Some(LinkNameSpaceType::Mount));
    let own = rustix::fs::open("/proc/self/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).or_fail(&what)?;
    enter(namespace).or_fail(&what)?;
    let outcome = action();
    enter(own.as_fd()).or_fail(|| "failed to return to the container's mount namespace".into())?;
    outcome
}

fn shared_tree(path: &Path, what: impl Fn() -> String) -> Result<Tree, Failure> {
    let status = rustix::fs::statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID).or_fail(&what)?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").or_fail(&what)?;
    let id = status.stx_mnt_id.to_string();
    let line = mounts.lines().find(|line| line.split(' ').next() == Some(&id)).unwrap_or_default();
    let is_shared = line.split(" - ").next().is_some_and(|fields| fields.contains(" shared:"));
    if !is_shared {
        let point = line.split(' ').nth(4).unwrap_or("/");
        let message = format!("path \"{}\" is mounted on \"{point}\" but it is not a shared mount", path.display());
        return Err(Failure::create(message));
    }
    Tree::of_path(path, true).or_fail(&what)
}

fn open(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

fn is_same(one: BorrowedFd<'_>, other: &OwnedFd) -> Result<bool, Errno> {
    let identity = |fd: BorrowedFd<'_>| {
        rustix::fs::statat(fd, c"", AtFlags::EMPTY_PATH).map(|status| (status.st_dev, status.st_ino))
    };
    Ok(identity(one)? == identity(other.as_fd())?)
}

fn describe(source: &MountSource) -> String {
    match source {
        MountSource::Bind(path) => path.display().to_string(),
        MountSource::BindBelow { root, path } => format!("{path} below {}", root.display()),
        MountSource::Tmpfs { .. } => "a tmpfs".into(),
        MountSource::Layers(layers) => format!("{} image layers", layers.len()),
    }
}
