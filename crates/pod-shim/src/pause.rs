//! PID 1 of a shared PID namespace (`shareProcessNamespace: true`).
//!
//! Not the shim itself: containers of the pod can see PID 1, and one with CAP_SYS_PTRACE could reach through
//! `/proc/1/root` to wherever it stands. So a child of the shim stands in an empty read-only root, without any privilege,
//! and waits. Orphans become its children; the kernel reaps them, as it ignores their ends.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{DumpableBehavior, Gid, Uid};
use rustix::thread::UnshareFlags;

use pod_container::{Fork, exit, fork};

use crate::spawn::{mounts_of, open_pidfd};
use crate::sys;

/// Who Kubernetes' pause image runs as.
const NOBODY: u32 = 65_535;

/// What the shim keeps of it.
#[derive(Debug)]
pub(crate) struct Keeper {
    /// A pidfd.
    pub(crate) process: OwnedFd,
    /// A mount namespace with nobody in it, whose root is a procfs of the keeper's PID namespace.
    pub(crate) proc: OwnedFd,
}

/// Starts it; when this returns it stands in its empty root.
pub(crate) fn start() -> Result<Keeper, Errno> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    match fork(UnshareFlags::NEWPID | UnshareFlags::NEWNS, None)? {
        Fork::Parent(pid) => {
            drop(theirs);
            let hear = || match rustix::io::read(&ours, &mut [0]) {
                Ok(1) => Ok(()),
                _ => Err(Errno::CHILD),
            };
            let process = open_pidfd(pid)?;
            hear()?;
            let proc = mounts_of(&process)?;
            rustix::io::write(&ours, b".")?;
            hear()?;
            Ok(Keeper { process, proc })
        }
        Fork::Child => {
            let say = || rustix::io::write(&theirs, b".");
            let arrived = enter("proc", &[], MountAttrFlags::empty())
                .and_then(|()| say())
                .and_then(|_| rustix::io::read(&theirs, &mut [0]))
                .and_then(|_| sys::leave_mounts())
                .and_then(|()| enter("tmpfs", &[("mode", "755")], MountAttrFlags::MOUNT_ATTR_RDONLY))
                .and_then(|()| become_nobody())
                .and_then(|()| say());
            if arrived.is_err() {
                exit(1);
            }
            sys::set_name(c"pause");
            sys::ignore_children();
            sys::close_all();
            loop {
                // Signals that would end it are ignored or, from within its namespace, never delivered to PID 1.
                let _ = rustix::event::poll(&mut [], None);
            }
        }
    }
}

/// Makes a new file system the root, and nothing else reachable.
fn enter(kind: &str, options: &[(&str, &str)], attributes: MountAttrFlags) -> Result<(), Errno> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        rustix::mount::fsconfig_set_string(&context, *key, *value)?;
    }
    rustix::mount::fsconfig_create(&context)?;
    let attributes = attributes
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let root = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    // The root of this private mount namespace is a place to stack it on.
    let place = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(&root, c"", &place, c"", flags)?;
    rustix::process::fchdir(&root)?;
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")
}

fn become_nobody() -> Result<(), Errno> {
    sys::drop_bounding_set();
    rustix::thread::set_thread_groups(&[])?;
    let (gid, uid) = (Gid::from_raw(NOBODY), Uid::from_raw(NOBODY));
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
}
