//! The image store: everything is named by its content, so nothing is ever changed, only added and collected.
//!
//! ```text
//! ROOT/version            format of what follows
//! ROOT/lock               flock: shared by whoever adds (a lease), exclusive for whoever collects
//! ROOT/index.json         names → manifest digests; the only file that changes, by rename, under index.lock
//! ROOT/blobs/sha256/HEX   manifests, configs, layers as they came, verified before they got their name
//! ROOT/layers/HEX/        an unpacked layer by its diff id: tree/ (an overlay lower), record.json, unsynced
//! ROOT/ingest/HEX         downloads under way, or cut off and to be resumed
//! ROOT/staging/           anything half made; worthless as soon as nobody holds a lease
//! ROOT/registries.json    written by the operator: mirrors (see [`crate::Registries`])
//! ```
//!
//! **Crash safety.** A name in `index.json` is written last. Blobs are synced before they get their name. Unpacked layers
//! are not synced, since that would make every pull wait for the whole file system: they carry `unsynced` with the
//! boot they were made in, and a later boot throws them away and unpacks the blob again. [`Store::sync`] takes the mark
//! off when there is time.
//!
//! **Several processes** may share a store. Adding needs a [`Lease`]; [`Store::gc`] waits for none and says `busy`.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

use serde::{Deserialize, Serialize};

use crate::{
    digest::Digest,
    manifest::{ConfigFile, Document, ImageConfig, MAX_CONFIG, MAX_MANIFEST, Manifest, ManifestError},
    reference::{ParseReferenceError, Reference},
    unpack::UnpackError,
};

mod blob;
mod gc;
mod index;
mod layer;
mod lock;
#[cfg(test)]
mod tests;

pub(crate) use blob::{BlobWriter, Ingest, NewBlob, PutError, Temporary, unique};
pub use gc::GcReport;
pub(crate) use index::Entry;
pub(crate) use layer::Staged;
pub use lock::Lease;

use self::{index::Index, lock::Lock};

/// Raised when the layout above changes.
const FORMAT: &str = "1";
const BLOBS: &str = "blobs/sha256";
const LAYERS: &str = "layers";
const INGEST: &str = "ingest";
const STAGING: &str = "staging";

/// An open image store. Cloning is cheap and means the same store.
#[derive(Debug, Clone)]
pub struct Store {
    root: Arc<Path>,
}

/// An image that is complete: every layer is unpacked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Digest of the config, `sha256:…`: what `docker images` calls the image id.
    pub id: String,
    /// Full names, `docker.io/library/alpine:latest`; one given by digest is `name@sha256:…`.
    pub names: Vec<String>,
    /// `docker.io/library/alpine@sha256:…` as the registry would answer: the digest of the index, where the name meant
    /// one. What Kubernetes calls `imageID`.
    pub repo_digests: Vec<String>,
    /// Of this platform's manifest.
    pub digest: Digest,
    /// Overlay lower layers, topmost first. Empty for an image without files.
    pub layers: Vec<PathBuf>,
    pub config: ImageConfig,
    /// Bytes of manifest, config and layers as transferred.
    pub size: u64,
}

/// Bytes on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreSize {
    /// Manifests, configs, layers as transferred, and downloads under way.
    pub blobs: u64,
    /// Unpacked layers.
    pub layers: u64,
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("failed to set up the image store `{path}`")]
    Io { path: PathBuf, source: io::Error },
    #[error("image store `{path}` has the format `{found}`; this program writes `{FORMAT}`")]
    Format { path: PathBuf, found: String },
    #[error("failed to clean up the image store")]
    CleanUp { source: StoreError },
}

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("failed to {action} `{path}`")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("image store's index `{path}` is damaged")]
    Index { path: PathBuf, source: serde_json::Error },
    #[error("image store's index `{path}` has the version {found}")]
    IndexVersion { path: PathBuf, found: u32 },
    #[error("blob {0} is missing from the image store")]
    MissingBlob(Digest),
    #[error("blob {digest} is larger than {limit} bytes")]
    LargeBlob { digest: Digest, limit: u64 },
    #[error("image {digest} cannot be used")]
    Manifest { digest: Digest, source: ManifestError },
    #[error("layer {digest} cannot be used")]
    Layer { digest: Digest, source: UnpackError },
    #[error("layer {digest} unpacks to {actual}; its image says {expected}")]
    DiffId { digest: Digest, expected: Digest, actual: Digest },
    #[error("content has the digest {actual}, not {expected}")]
    Digest { expected: Digest, actual: Digest },
    #[error("no image `{0}` in the store")]
    NotFound(String),
    #[error("image id `{0}` is that of several images")]
    AmbiguousId(String),
    #[error("not an image name")]
    Reference { source: ParseReferenceError },
}

impl StoreError {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> StoreError {
        let path = path.into();
        move |source| StoreError::Io { action, path, source }
    }

    /// Whether the image itself is wrong, so that its blobs are of no use.
    pub(crate) fn is_content(&self) -> bool {
        match self {
            StoreError::Layer { source, .. } => {
                !matches!(source, UnpackError::Cancelled | UnpackError::Root { .. }) && !self.is_disk_full()
            }
            other => other.is_damage(),
        }
    }

    pub(crate) fn is_disk_full(&self) -> bool {
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = next {
            if let Some(error) = error.downcast_ref::<io::Error>()
                && matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            {
                return true;
            }
            next = error.source();
        }
        false
    }

    /// Whether the content is to blame, so that fetching it again could help.
    fn is_damage(&self) -> bool {
        matches!(
            self,
            StoreError::MissingBlob(_)
                | StoreError::Manifest { .. }
                | StoreError::Layer { source: UnpackError::Archive { .. }, .. }
                | StoreError::DiffId { .. }
                | StoreError::Digest { .. }
        )
    }
}

// === impl Store ===

impl Store {
    /// Opens the store at `root`, making it if there is none, and clears away what a killed process left half done
    /// (unless another process is adding images right now: then that is left for later).
    ///
    /// # Errors
    /// The directory cannot be written, or another version of the program made it.
    pub fn open(root: &Path) -> Result<Store, OpenError> {
        let fail = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Io { path, source }
        };
        // 0700: layers hold setuid programs and files that others may not read.
        let make = |path: &Path| DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(fail(path));
        make(root)?;
        let root = fs::canonicalize(root).map_err(fail(root))?;
        for directory in [BLOBS, LAYERS, INGEST, STAGING] {
            make(&root.join(directory))?;
        }
        let version = root.join("version");
        match fs::read_to_string(&version) {
            Ok(found) if found.trim() == FORMAT => {}
            Ok(found) => return Err(OpenError::Format { path: root, found: found.trim().to_owned() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                blob::write_atomic(&version, format!("{FORMAT}\n").as_bytes()).map_err(fail(&version))?;
            }
            Err(error) => return Err(fail(&version)(error)),
        }
        let store = Store { root: root.into() };
        store.clean_up().map_err(|source| OpenError::CleanUp { source })?;
        Ok(store)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The image that `reference` means, if it is here and whole. A layer that an unclean shutdown took is unpacked
    /// again on the way. A digest is found under any tag of its repository.
    pub fn lookup(&self, reference: &Reference) -> Result<Option<Image>, StoreError> {
        let index = self.read_index()?;
        match index.find(reference) {
            Some(entry) => self.whole(&index, &entry.manifest.clone()),
            None => Ok(None),
        }
    }

    /// The image with this id, `sha256:HEX` or at least 12 digits of it.
    pub fn lookup_id(&self, id: &str) -> Result<Option<Image>, StoreError> {
        let index = self.read_index()?;
        match self.manifests_of_id(&index, id)?.first() {
            Some(manifest) => self.whole(&index, manifest),
            None => Ok(None),
        }
    }

    /// All images that are here and whole, by name.
    pub fn list(&self) -> Result<Vec<Image>, StoreError> {
        let index = self.read_index()?;
        let manifests: BTreeSet<&Digest> = index.names.values().map(|entry| &entry.manifest).collect();
        let mut images = Vec::new();
        for manifest in manifests {
            images.extend(self.whole(&index, manifest)?);
        }
        images.sort_by(|a, b| a.names.cmp(&b.names));
        Ok(images)
    }

    /// Forgets one name, or with an image id all names of that image; says which. The bytes stay until [`Store::gc`].
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; an id of several images.
    pub fn remove(&self, name: &str) -> Result<Vec<String>, StoreError> {
        let found = |index: &Index| -> Result<Vec<String>, StoreError> {
            if let Ok(reference) = name.parse::<Reference>() {
                let stored = reference.store_name();
                if index.names.contains_key(&stored) {
                    return Ok(vec![stored]);
                }
                // By the digest of a tagged image.
                if let Some((stored, _)) = index.find_name(&reference) {
                    return Ok(vec![stored.clone()]);
                }
            }
            let manifests = self.manifests_of_id(index, name)?;
            let names = index.names.iter().filter(|(_, entry)| manifests.contains(&entry.manifest));
            Ok(names.map(|(name, _)| name.clone()).collect())
        };
        self.change_index(|index| {
            let names = found(index)?;
            if names.is_empty() {
                return Err(StoreError::NotFound(name.to_owned()));
            }
            index.names.retain(|known, _| !names.contains(known));
            Ok(names)
        })
    }

    /// Gives an image that is here another name.
    pub fn tag(&self, source: &Reference, name: &Reference) -> Result<(), StoreError> {
        let stored = name.store_name();
        self.change_index(|index| {
            let entry = index.find(source).cloned().ok_or_else(|| StoreError::NotFound(source.to_string()))?;
            index.names.insert(stored, entry);
            Ok(())
        })
    }

    /// What the store takes on disk. Walks it: not for a hot path.
    pub fn size(&self) -> Result<StoreSize, StoreError> {
        let mut size = StoreSize::default();
        for directory in [BLOBS, INGEST] {
            for file in self.entries(directory)? {
                size.blobs += fs::metadata(&file).map_or(0, |metadata| metadata.len());
            }
        }
        for layer in self.entries(LAYERS)? {
            size.layers += layer::Record::read(&layer).map_or(0, |record| record.size);
        }
        Ok(size)
    }

    /// Holds off [`Store::gc`], in all processes, for as long as the lease lives. Take one before adding, and keep it
    /// from looking an image up to mounting it if nothing else protects its layers. Waits for a collection under way:
    /// not for an async thread.
    pub fn lease(&self) -> Result<Lease, StoreError> {
        Lease::shared(&self.path("lock"))
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.root.join(below)
    }

    fn entries(&self, directory: &str) -> Result<Vec<PathBuf>, StoreError> {
        let path = self.path(directory);
        let list = || -> io::Result<Vec<PathBuf>> { fs::read_dir(&path)?.map(|entry| Ok(entry?.path())).collect() };
        list().map_err(StoreError::io("list", &path))
    }

    // --- images

    /// `None` if something is missing or damaged: then a pull is what helps.
    fn whole(&self, index: &Index, manifest: &Digest) -> Result<Option<Image>, StoreError> {
        match self.image(index, manifest) {
            Ok(image) => Ok(Some(image)),
            Err(error) if error.is_damage() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn image(&self, index: &Index, digest: &Digest) -> Result<Image, StoreError> {
        let (manifest, config) = self.read_manifest(digest)?;
        if config.rootfs.diff_ids.iter().any(|diff_id| !self.has_layer(diff_id)) {
            let lease = self.lease()?;
            self.unpack_missing(&lease, &manifest, &config)?;
        }
        Ok(self.describe(index, digest, &manifest, config))
    }

    fn describe(&self, index: &Index, digest: &Digest, manifest: &Manifest, config: ConfigFile) -> Image {
        let named = || index.names.iter().filter(|(_, entry)| entry.manifest == *digest);
        let repo_digests: BTreeSet<String> = named().filter_map(|(name, entry)| entry.repo_digest(name)).collect();
        let length = fs::metadata(self.blob_path(digest)).map_or(0, |metadata| metadata.len());
        let layers: u64 = manifest.layers.iter().map(|layer| layer.size).sum();
        Image {
            id: manifest.config.digest.to_string(),
            names: named().map(|(name, _)| name.clone()).collect(),
            repo_digests: repo_digests.into_iter().collect(),
            digest: digest.clone(),
            layers: self.lower_layers(&config),
            config: config.config.into(),
            size: length + manifest.config.size + layers,
        }
    }

    /// Topmost first. A layer that comes twice counts where it is topmost: all that the lower one could show is shown
    /// by the upper one, and overlayfs refuses to mount a directory twice.
    fn lower_layers(&self, config: &ConfigFile) -> Vec<PathBuf> {
        let mut seen = BTreeSet::new();
        let top_down = config.rootfs.diff_ids.iter().rev().filter(|diff_id| seen.insert(*diff_id));
        top_down.map(|diff_id| self.layer_tree(diff_id)).collect()
    }

    pub(crate) fn read_manifest(&self, digest: &Digest) -> Result<(Manifest, ConfigFile), StoreError> {
        let fail = |source| StoreError::Manifest { digest: digest.clone(), source };
        let manifest = match Document::parse(&self.read_blob(digest, MAX_MANIFEST)?).map_err(fail)? {
            Document::Manifest(manifest) => manifest,
            Document::Index(index) => return Err(fail(ManifestError::MediaType(index.media_type))),
        };
        let config = self.read_blob(&manifest.config.digest, MAX_CONFIG)?;
        let config = ConfigFile::parse(&config, manifest.layers.len()).map_err(fail)?;
        Ok((manifest, config))
    }

    /// Makes an image visible: publishes what was `staged`, unpacks what else is missing, and files it under `names`.
    /// All blobs must be here.
    pub(crate) fn commit(
        &self,
        lease: &Lease,
        manifest_digest: &Digest,
        target: &Digest,
        names: &[Reference],
        staged: Vec<Staged>,
    ) -> Result<Image, StoreError> {
        let (manifest, config) = self.read_manifest(manifest_digest)?;
        self.publish(&config, staged)?;
        self.unpack_missing(lease, &manifest, &config)?;
        let index = self.change_index(|index| {
            for name in names {
                let entry = Entry { manifest: manifest_digest.clone(), target: target.clone() };
                index.names.insert(name.store_name(), entry);
            }
            Ok(index.clone())
        })?;
        Ok(self.describe(&index, manifest_digest, &manifest, config))
    }

    /// Unpacks what the image lacks, except layers `seen` before, without making anything visible.
    pub(crate) fn stage_missing(
        &self,
        lease: &Lease,
        manifest: &Digest,
        seen: &mut BTreeSet<Digest>,
    ) -> Result<Vec<Staged>, StoreError> {
        let (manifest, config) = self.read_manifest(manifest)?;
        self.stage(lease, &manifest, &config, seen)
    }

    fn stage(
        &self,
        lease: &Lease,
        manifest: &Manifest,
        config: &ConfigFile,
        seen: &mut BTreeSet<Digest>,
    ) -> Result<Vec<Staged>, StoreError> {
        let cancel = Arc::new(AtomicBool::new(false));
        let mut staged = Vec::new();
        for (layer, diff_id) in manifest.layers.iter().zip(&config.rootfs.diff_ids) {
            if !self.has_layer(diff_id) && seen.insert(diff_id.clone()) {
                staged.push(self.unpack_layer(lease, &layer.digest, diff_id, &cancel)?);
            }
        }
        Ok(staged)
    }

    fn unpack_missing(&self, lease: &Lease, manifest: &Manifest, config: &ConfigFile) -> Result<(), StoreError> {
        let staged = self.stage(lease, manifest, config, &mut BTreeSet::new())?;
        self.publish(config, staged)
    }

    /// The manifests whose config's digest is or begins with `id`.
    fn manifests_of_id(&self, index: &Index, id: &str) -> Result<Vec<Digest>, StoreError> {
        const SHORTEST: usize = 12;
        let hex = id.strip_prefix("sha256:").unwrap_or(id);
        if hex.len() < SHORTEST || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(Vec::new());
        }
        let manifests: BTreeSet<&Digest> = index.names.values().map(|entry| &entry.manifest).collect();
        let mut ids = BTreeSet::new();
        let mut found = Vec::new();
        for digest in manifests {
            let Ok((manifest, _)) = self.read_manifest(digest) else { continue };
            if manifest.config.digest.hex().starts_with(hex) {
                ids.insert(manifest.config.digest);
                found.push(digest.clone());
            }
        }
        if ids.len() > 1 {
            return Err(StoreError::AmbiguousId(id.to_owned()));
        }
        Ok(found)
    }

    // --- index

    fn read_index(&self) -> Result<Index, StoreError> {
        Index::read(&self.path("index.json"))
    }

    /// Reads, changes and replaces the index, alone among all processes. Nothing is written if `change` fails.
    fn change_index<T>(&self, change: impl FnOnce(&mut Index) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let _alone = Lock::exclusive(&self.path("index.lock"))?;
        let path = self.path("index.json");
        let mut index = Index::read(&path)?;
        let result = change(&mut index)?;
        index.write(&path)?;
        Ok(result)
    }
}
