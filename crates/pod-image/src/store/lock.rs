//! Locks between processes. They are the kernel's (flock(2)), so a killed process holds none.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use rustix::fs::FlockOperation;

use super::StoreError;

/// A shared claim on the store's content; see [`crate::Store::lease`].
#[derive(Debug)]
pub struct Lease(#[allow(dead_code, reason = "closing the file gives the lock back")] File);

#[derive(Debug)]
pub(super) struct Lock(File);

impl Lease {
    pub(super) fn shared(path: &Path) -> Result<Lease, StoreError> {
        lock(path, FlockOperation::LockShared).map(Lease)
    }
}

impl Lock {
    pub(super) fn exclusive(path: &Path) -> Result<Lock, StoreError> {
        lock(path, FlockOperation::LockExclusive).map(Lock)
    }

    /// `None` if somebody else has it, shared or not.
    pub(super) fn try_exclusive(path: &Path) -> Result<Option<Lock>, StoreError> {
        let file = open(path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(StoreError::io("lock", path)(errno.into())),
        }
    }

    /// Others may go on; still nobody becomes exclusive.
    pub(super) fn share(self, path: &Path) -> Result<Lease, StoreError> {
        rustix::fs::flock(&self.0, FlockOperation::LockShared).map_err(|e| StoreError::io("lock", path)(e.into()))?;
        Ok(Lease(self.0))
    }
}

fn open(path: &Path) -> Result<File, StoreError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map_err(StoreError::io("open", path))
}

fn lock(path: &Path, operation: FlockOperation) -> Result<File, StoreError> {
    let file = open(path)?;
    loop {
        match rustix::fs::flock(&file, operation) {
            Err(rustix::io::Errno::INTR) => {}
            other => return other.map(|()| file).map_err(|e| StoreError::io("lock", path)(e.into())),
        }
    }
}
