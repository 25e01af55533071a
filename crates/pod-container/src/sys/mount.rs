//! mount_setattr(2).

use std::ffi::c_void;
use std::os::fd::{AsFd, AsRawFd as _};

use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

/// `struct mount_attr`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Attributes {
    pub(crate) set: u64,
    pub(crate) clear: u64,
    pub(crate) propagation: u64,
    pub(crate) user_namespace: u64,
}

impl Attributes {
    pub(crate) fn set(flags: MountAttrFlags) -> Attributes {
        Attributes { set: u64::from(flags.bits()), ..Attributes::default() }
    }
}

/// Changes the mount whose root `tree` is; with `recursive` also those below it.
pub(crate) fn set_attributes(tree: impl AsFd, recursive: bool, attributes: Attributes) -> Result<(), Errno> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a NUL-terminated literal and `attributes` is a live `struct mount_attr` of the size given;
    // the kernel only reads both.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(&attributes).cast::<c_void>(),
            size_of::<Attributes>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(super::process::errno()) }
}
