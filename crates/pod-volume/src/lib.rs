//! A pod's volumes as plain directories, prepared before its containers start.
//!
//! Everything here takes a directory path and blocks; nothing mounts. Memory-backed volumes are mounted by the shim in
//! its own mount namespace and reached through `/proc/PID/root/…`, so to this crate they are directories like any
//! other. What is inside a volume is under the pod's control and may change at any moment: every walk goes from
//! descriptor to descriptor with `openat2` (Linux 5.6), never by path, so that no symlink and no mount leads it out.

#![forbid(unsafe_code)]

mod atomic;
mod directory;
mod fs_group;
mod host_path;
mod remove;
mod usage;
mod walk;

pub use atomic::{Changed, FileEntry, WriteError, write_atomic};
pub use directory::{EnsureError, ensure_empty_dir, ensure_named};
pub use fs_group::{FsGroup, FsGroupError, apply_fs_group};
pub use host_path::{HostPathError, HostPathKind, ensure_host_path};
pub use remove::{RemoveError, remove_tree};
pub use usage::usage;
pub use walk::{Failure, Failures};
