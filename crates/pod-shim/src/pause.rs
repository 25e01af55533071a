//! PID 1 of a shared PID namespace (`shareProcessNamespace: true`).
//!
//! Not the shim itself: containers of the pod can see PID 1, and one with CAP_SYS_PTRACE could reach through
//! `/proc/1/root` to wherever it stands. So a child of the shim stands in an empty read-only root, without any privilege,
//! and waits. Orphans become its children; the kernel reaps them, as it ignores their ends.

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags};
use rustix::process::{Gid, Uid};
use rustix::thread::UnshareFlags;

use pod_container::{Fork, exit, fork};

use crate::sys;

/// Who Kubernetes' pause image runs as.
const NOBODY: u32 = 65_535;

/// Starts it; when this returns it stands in its empty root.
pub(crate) fn start() -> Result<i32, Errno> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    match fork(UnshareFlags::NEWPID | UnshareFlags::NEWNS, None)? {
        Fork::Parent(pid) => {
            drop(writer);
            let mut word = [0];
            match rustix::io::read(&reader, &mut word) {
                Ok(1) => Ok(pid),
                _ => Err(Errno::CHILD),
            }
        }
        Fork::Child => {
            if enter_nowhere().is_err() || rustix::io::write(&writer, b".").is_err() {
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

fn enter_nowhere() -> Result<(), Errno> {
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&context, "mode", "755")?;
    rustix::mount::fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let root = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    // Any directory of this private mount namespace is a place to stack it on.
    let place = rustix::fs::open("/proc", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(&root, c"", &place, c"", flags)?;
    rustix::process::fchdir(&root)?;
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    sys::drop_bounding_set();
    rustix::thread::set_thread_groups(&[])?;
    let (gid, uid) = (Gid::from_raw(NOBODY), Uid::from_raw(NOBODY));
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)
}
