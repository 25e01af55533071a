//! Unpacked layers.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps};
use serde::{Deserialize, Serialize};

use super::{
    LAYERS, STAGING, Store, StoreError,
    blob::{Temporary, unique},
    lock::Lease,
};
use crate::{
    compression,
    digest::{Digest, Hashing},
    manifest::ConfigFile,
    unpack::{self, Limits, UnpackError},
};

const TREE: &str = "tree";
const RECORD: &str = "record.json";
/// Holds the id of the boot that the layer was unpacked in; gone once the layer is on disk for sure.
const UNSYNCED: &str = "unsynced";

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    /// Bytes on disk.
    pub size: u64,
}

/// A layer that is unpacked and verified, and still invisible. Dropped, it is gone.
#[derive(Debug)]
pub(crate) struct Staged {
    diff_id: Digest,
    directory: Temporary,
    /// Directories whose attributes the tar did not have.
    implicit: Vec<PathBuf>,
}

impl Record {
    pub(super) fn read(layer: &Path) -> Option<Record> {
        serde_json::from_slice(&fs::read(layer.join(RECORD)).ok()?).ok()
    }
}

impl Store {
    pub(super) fn layer_tree(&self, diff_id: &Digest) -> PathBuf {
        self.path(LAYERS).join(diff_id.hex()).join(TREE)
    }

    pub(crate) fn has_layer(&self, diff_id: &Digest) -> bool {
        self.layer_tree(diff_id).exists()
    }

    /// Unpacks a blob and checks that it is what the image's config says. Blocks; `cancel` ends it early.
    pub(crate) fn unpack_layer(
        &self,
        _: &Lease,
        blob: &Digest,
        diff_id: &Digest,
        cancel: &Arc<AtomicBool>,
    ) -> Result<Staged, StoreError> {
        let file = self.open_blob(blob)?;
        let directory = Temporary(self.path(STAGING).join(unique()));
        let tree = directory.0.join(TREE);
        let make = |path: &Path, mode| DirBuilder::new().mode(mode).create(path).map_err(StoreError::io("make", path));
        make(&directory.0, 0o700)?;
        make(&tree, 0o755)?;

        let result = self.unpack_verified(file, blob, diff_id, &tree, cancel);
        let unpacked = result.inspect_err(|error| {
            // The blob was verified once. If the disk has changed it since, it must go, or no pull would ever help.
            if error.is_damage() {
                self.drop_if_damaged(blob);
            }
        })?;

        let write = |name: &str, bytes: &[u8]| {
            let path = directory.0.join(name);
            fs::write(&path, bytes).map_err(StoreError::io("write", path))
        };
        let record = serde_json::to_vec(&Record { size: unpacked.size });
        write(RECORD, &record.map_err(|e| StoreError::io("write", &directory.0)(e.into()))?)?;
        write(UNSYNCED, boot_id()?.as_bytes())?;
        Ok(Staged { diff_id: diff_id.clone(), directory, implicit: unpacked.implicit })
    }

    fn unpack_verified(
        &self,
        file: File,
        blob: &Digest,
        diff_id: &Digest,
        tree: &Path,
        cancel: &Arc<AtomicBool>,
    ) -> Result<unpack::Unpacked, StoreError> {
        let fail = |source| StoreError::Layer { digest: blob.clone(), source };
        let stream = compression::decompress(file).map_err(|source| fail(UnpackError::Archive { source }))?;
        let mut stream = Hashing::new(stream);
        let unpacked = unpack::unpack(&mut stream, tree, Limits::default(), cancel).map_err(fail)?;
        let (_, actual, _) = stream.finish();
        if actual != *diff_id {
            let (digest, expected) = (blob.clone(), diff_id.clone());
            return Err(StoreError::DiffId { digest, expected, actual });
        }
        Ok(unpacked)
    }

    /// Makes staged layers of the image visible, from the bottom up.
    pub(super) fn publish(&self, config: &ConfigFile, staged: Vec<Staged>) -> Result<(), StoreError> {
        let mut staged: BTreeMap<Digest, Staged> =
            staged.into_iter().map(|layer| (layer.diff_id.clone(), layer)).collect();
        for (position, diff_id) in config.rootfs.diff_ids.iter().enumerate() {
            let Some(layer) = staged.remove(diff_id) else { continue };
            let tree = layer.directory.0.join(TREE);
            let below = config.rootfs.diff_ids[..position].iter().rev();
            let below: Vec<PathBuf> = below.filter(|lower| *lower != diff_id).map(|d| self.layer_tree(d)).collect();
            adopt_attributes(&tree, &layer.implicit, &below).map_err(StoreError::io("complete", &tree))?;
            let target = self.path(LAYERS).join(diff_id.hex());
            match fs::rename(&layer.directory.0, &target) {
                // Another process was quicker; same content.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {}
                other => other.map_err(StoreError::io("publish", &target))?,
            }
        }
        Ok(())
    }

    /// Writes all to disk and marks the layers as safe. Takes as long as the disk does: for a quiet moment and a
    /// blocking thread. Without it nothing is lost but time, after a reboot.
    pub fn sync(&self) -> Result<(), StoreError> {
        let marks: Vec<PathBuf> = self.entries(LAYERS)?.into_iter().map(|layer| layer.join(UNSYNCED)).collect();
        let marks: Vec<PathBuf> = marks.into_iter().filter(|mark| mark.exists()).collect();
        if marks.is_empty() {
            return Ok(());
        }
        let root = File::open(self.root()).map_err(StoreError::io("open", self.root()))?;
        rustix::fs::syncfs(&root).map_err(|e| StoreError::io("sync", self.root())(e.into()))?;
        for mark in marks {
            match fs::remove_file(&mark) {
                // Collected meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other.map_err(StoreError::io("remove", &mark))?,
            }
        }
        Ok(())
    }

    /// Layers of an earlier boot that may not have reached the disk.
    pub(super) fn doubtful_layers(&self) -> Result<Vec<PathBuf>, StoreError> {
        let boot = boot_id()?;
        let doubtful = |layer: &PathBuf| match fs::read_to_string(layer.join(UNSYNCED)) {
            Ok(made_in) => made_in != boot,
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        };
        Ok(self.entries(LAYERS)?.into_iter().filter(doubtful).collect())
    }
}

fn boot_id() -> Result<String, StoreError> {
    let path = "/proc/sys/kernel/random/boot_id";
    fs::read_to_string(path).map_err(StoreError::io("read", path))
}

/// Overlayfs shows a merged directory with the attributes of its topmost layer. Where a tar has files but not their
/// directories, those would be 0755 of root – `/tmp` no longer writable – so they take over what the layers below say.
fn adopt_attributes(tree: &Path, implicit: &[PathBuf], below: &[PathBuf]) -> io::Result<()> {
    // Children first, as the time of a directory is set last.
    for path in implicit.iter().rev() {
        for lower in below {
            let Ok(stat) = stat_in_root(lower, path) else { continue };
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                let own = open_in_root(tree, path)?;
                let uid = rustix::fs::Uid::from_raw(stat.st_uid);
                let gid = rustix::fs::Gid::from_raw(stat.st_gid);
                if rustix::process::geteuid().is_root() {
                    rustix::fs::fchown(&own, Some(uid), Some(gid))?;
                }
                rustix::fs::fchmod(&own, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
                let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ };
                rustix::fs::futimens(&own, &Timestamps { last_access: time, last_modification: time })?;
            }
            // A directory, or something that hides what is further below.
            break;
        }
    }
    Ok(())
}

fn open_in_root(tree: &Path, path: &Path) -> io::Result<std::os::fd::OwnedFd> {
    let tree = rustix::fs::open(tree, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(&tree, path, flags, Mode::empty(), resolve)?)
}

fn stat_in_root(tree: &Path, path: &Path) -> io::Result<rustix::fs::Stat> {
    let root = rustix::fs::open(tree, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let found = rustix::fs::openat2(&root, path, flags, Mode::empty(), resolve)?;
    Ok(rustix::fs::statat(&found, "", AtFlags::EMPTY_PATH)?)
}
