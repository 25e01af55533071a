//! Collecting what no name leads to any more.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use super::{
    BLOBS, INGEST, LAYERS, STAGING, Store, StoreError,
    blob::{Temporary, unique},
    layer::Record,
    lock::Lock,
};
use crate::digest::Digest;

/// A download that was cut off is kept so long for the next try.
const KEEP_INGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// What a collection did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcReport {
    pub layers: usize,
    pub blobs: usize,
    /// Bytes given back.
    pub freed: u64,
    /// Images are being added right now, so nothing was done. Try again later.
    pub busy: bool,
}

impl Store {
    /// Removes blobs and layers that no image needs, and rests of downloads older than a day.
    ///
    /// `in_use` are layer directories ([`super::Image::layers`]) that must stay although their image has no name any
    /// more: those of running containers. The caller must know all of them; a name that is being looked up at the same
    /// time is protected by a [`super::Lease`].
    pub fn gc(&self, in_use: &[PathBuf]) -> Result<GcReport, StoreError> {
        let path = self.path("lock");
        let Some(lock) = Lock::try_exclusive(&path)? else { return Ok(GcReport { busy: true, ..GcReport::default() }) };
        // Everything goes by one rename each while the store is ours, and is deleted when others may go on.
        let trash = self.empty_staging()?;
        let report = self.collect(in_use, &trash.0)?;
        let _lease = lock.share(&path)?;
        drop(trash);
        Ok(report)
    }

    /// Removes these blobs, also half downloaded ones, unless an image has them. `false`: somebody is adding images, who
    /// may be counting on them; nothing was done.
    pub(crate) fn forget(&self, blobs: &[Digest]) -> Result<bool, StoreError> {
        let Some(_lock) = Lock::try_exclusive(&self.path("lock"))? else { return Ok(false) };
        let (needed, _) = self.referenced()?;
        for blob in blobs {
            if !needed.contains(blob.hex()) {
                for path in [self.blob_path(blob), self.path(INGEST).join(blob.hex())] {
                    match fs::remove_file(&path) {
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                        other => other.map_err(StoreError::io("remove", &path))?,
                    }
                }
            }
        }
        Ok(true)
    }

    /// What [`Store::open`] does first: nobody is adding, so all that is half made was left by the dead.
    pub(super) fn clean_up(&self) -> Result<(), StoreError> {
        let path = self.path("lock");
        let Some(lock) = Lock::try_exclusive(&path)? else { return Ok(()) };
        let trash = self.empty_staging()?;
        for layer in self.doubtful_layers()? {
            discard(&layer, &trash.0)?;
        }
        let _lease = lock.share(&path)?;
        drop(trash);
        Ok(())
    }

    /// Names of the blobs and the layers that the index leads to.
    fn referenced(&self) -> Result<(BTreeSet<String>, BTreeSet<String>), StoreError> {
        let index = self.read_index()?;
        let mut blobs = BTreeSet::new();
        let mut layers = BTreeSet::new();
        for entry in index.names.values() {
            blobs.insert(entry.manifest.hex().to_owned());
            // A damaged image keeps what can be known of it; the next pull completes it.
            let Ok((manifest, config)) = self.read_manifest(&entry.manifest) else { continue };
            blobs.insert(manifest.config.digest.hex().to_owned());
            blobs.extend(manifest.layers.iter().map(|layer| layer.digest.hex().to_owned()));
            layers.extend(config.rootfs.diff_ids.iter().map(|diff_id| diff_id.hex().to_owned()));
        }
        Ok((blobs, layers))
    }

    fn collect(&self, in_use: &[PathBuf], trash: &Path) -> Result<GcReport, StoreError> {
        let (blobs, layers) = self.referenced()?;
        let in_use: Vec<PathBuf> = in_use.iter().map(|path| fs::canonicalize(path).unwrap_or(path.clone())).collect();

        let mut report = GcReport::default();
        for layer in self.entries(LAYERS)? {
            if layers.contains(&file_name(&layer)) || in_use.iter().any(|used| used.starts_with(&layer)) {
                continue;
            }
            report.freed += Record::read(&layer).map_or(0, |record| record.size);
            report.layers += 1;
            discard(&layer, trash)?;
        }
        for blob in self.entries(BLOBS)? {
            if !blobs.contains(&file_name(&blob)) {
                report.freed += fs::metadata(&blob).map_or(0, |metadata| metadata.len());
                report.blobs += 1;
                discard(&blob, trash)?;
            }
        }
        for partial in self.entries(INGEST)? {
            let Ok(metadata) = fs::metadata(&partial) else { continue };
            let age = metadata.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
            if age.is_some_and(|age| age > KEEP_INGEST) {
                report.freed += metadata.len();
                discard(&partial, trash)?;
            }
        }
        Ok(report)
    }

    /// Moves the staging area away and makes a new one; the old one is the trash.
    fn empty_staging(&self) -> Result<Temporary, StoreError> {
        let trash = self.new_trash()?;
        for left in self.entries(STAGING)? {
            if left != trash.0 {
                discard(&left, &trash.0)?;
            }
        }
        Ok(trash)
    }

    fn new_trash(&self) -> Result<Temporary, StoreError> {
        let trash = Temporary(self.path(STAGING).join(format!("trash-{}", unique())));
        fs::create_dir(&trash.0).map_err(StoreError::io("make", &trash.0))?;
        Ok(trash)
    }
}

fn discard(path: &Path, trash: &Path) -> Result<(), StoreError> {
    fs::rename(path, trash.join(unique())).map_err(StoreError::io("remove", path))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
