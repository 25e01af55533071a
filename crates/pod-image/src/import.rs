//! Importing images without a registry: `docker save` archives, OCI layouts (directory or tar), and plain root file
//! systems, from a file or a stream, compressed or not. What it is shows in what it has:
//!
//! | there is | it is |
//! |---|---|
//! | `oci-layout` and `index.json` | an OCI layout (newer `docker save` writes one too: then it counts, for its digests) |
//! | `manifest.json` | a Docker archive |
//! | neither, and a name was given | a root file system |
//!
//! Either all images of an archive are imported or none, and nothing of it stays.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    fs::File,
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

use crate::{
    compression::{self, Compression},
    digest::Digest,
    manifest::{ConfigFile, ManifestError, RawConfig, layer_type},
    pack::{PackError, put_manifest},
    platform::Platform,
    reference::{ParseReferenceError, Reference},
    store::{Image, Lease, PutError, Store, StoreError},
    unpack::Limits,
};

mod archive;
mod docker;
mod oci;

use archive::{Archive, Directory, TarFile};

/// Bytes of a JSON document in an archive.
const MAX_DOCUMENT: u64 = 16 << 20;

/// Where an image comes from.
pub enum ImportSource<'a> {
    /// An archive, or a directory with an OCI layout.
    Path(&'a Path),
    /// An archive from a pipe.
    Stream(Box<dyn Read + 'a>),
}

impl fmt::Debug for ImportSource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImportSource::Path(path) => f.debug_tuple("Path").field(path).finish(),
            ImportSource::Stream(_) => f.write_str("Stream(..)"),
        }
    }
}

/// How to import.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// Instead of the name in the archive; needed where it has none.
    pub name: Option<Reference>,
    /// The tar is a root file system, whatever it looks like.
    pub rootfs: bool,
    pub platform: Platform,
}

impl Default for ImportOptions {
    fn default() -> Self {
        ImportOptions { name: None, rootfs: false, platform: Platform::host() }
    }
}

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("failed to open `{path}`")]
    Open { path: PathBuf, source: io::Error },
    #[error("directory `{0}` is no OCI layout: it has no index.json")]
    NotALayout(PathBuf),
    #[error("failed to read the archive")]
    Read { source: io::Error },
    #[error("this is no tar archive")]
    NotAnArchive { source: io::Error },
    #[error("archive is empty")]
    Empty,
    #[error("archive is larger than {0} bytes")]
    TooLarge(u64),
    #[error("archive has no `{0}`, which its manifest names")]
    Missing(String),
    #[error("archive's `{path}` is not valid JSON of the expected form")]
    Json { path: String, source: serde_json::Error },
    #[error("archive's `{path}` has the digest {actual}")]
    Digest { path: String, actual: Digest },
    #[error("archive's manifest {path} cannot be used")]
    Manifest { path: String, source: ManifestError },
    #[error("archive's image name `{name}` is invalid")]
    Name { name: String, source: ParseReferenceError },
    #[error("archive does not say what its image is called; give it a name")]
    Nameless,
    #[error("archive has {0} images, so one name is not enough")]
    SeveralImages(usize),
    #[error("archive has no image for {wanted}, only for {}", .offered.join(", "))]
    NoMatchingPlatform { wanted: String, offered: Vec<String> },
    #[error("built-in image name `{0}` cannot be given to another image")]
    Builtin(String),
    #[error("failed to store the image")]
    Store { source: StoreError },
    #[error("failed to describe the root file system as an image")]
    Describe { source: PackError },
}

impl From<StoreError> for ImportError {
    fn from(source: StoreError) -> Self {
        ImportError::Store { source }
    }
}

/// An image whose blobs are in the store.
struct Found {
    names: Vec<Reference>,
    manifest: Digest,
    /// What its name means in the archive: the manifest or an index.
    target: Digest,
}

/// The state of one import.
struct Import<'a> {
    store: &'a Store,
    lease: &'a Lease,
    options: &'a ImportOptions,
    /// Blobs that this import put into the store, to be taken out again if it fails.
    added: Vec<Digest>,
}

/// Imports all images of an archive. Blocks.
pub fn import(store: &Store, source: ImportSource<'_>, options: &ImportOptions) -> Result<Vec<Image>, ImportError> {
    if let Some(name) = options.name.as_ref().filter(|name| name.is_builtin()) {
        return Err(ImportError::Builtin(name.to_string()));
    }
    let lease = store.lease()?;
    let mut import = Import { store, lease: &lease, options, added: Vec::new() };
    match import.run(source) {
        Ok(images) => Ok(images),
        Err(error) => {
            let added = std::mem::take(&mut import.added);
            drop(lease);
            // If somebody else is adding images just now, the collector does it later.
            let _ = store.forget(&added);
            Err(error)
        }
    }
}

impl Import<'_> {
    fn run(&mut self, source: ImportSource<'_>) -> Result<Vec<Image>, ImportError> {
        let found = match source {
            ImportSource::Path(path) => {
                let open = |source| ImportError::Open { path: path.to_owned(), source };
                let mut file = File::open(path).map_err(open)?;
                let metadata = file.metadata().map_err(open)?;
                if metadata.is_dir() {
                    let directory = Directory(path.to_owned());
                    if !path.join("index.json").is_file() {
                        return Err(ImportError::NotALayout(path.to_owned()));
                    }
                    oci::import(self, &directory)?
                } else if metadata.is_file() && is_plain(&mut file).map_err(open)? {
                    self.tar(TarFile::scan(file)?)?
                } else {
                    self.spooled(Box::new(file))?
                }
            }
            ImportSource::Stream(stream) => self.spooled(stream)?,
        };
        // Nothing becomes visible before everything is unpacked and so verified.
        let mut staged = Vec::new();
        let mut seen = BTreeSet::new();
        for image in &found {
            staged.push(self.store.stage_missing(self.lease, &image.manifest, &mut seen)?);
        }
        let mut images = Vec::new();
        for (image, staged) in found.iter().zip(staged) {
            images.push(self.store.commit(self.lease, &image.manifest, &image.target, &image.names, staged)?);
        }
        Ok(images)
    }

    /// An archive must be read in any order, so a stream goes to disk first, uncompressed.
    fn spooled(&mut self, stream: Box<dyn Read + '_>) -> Result<Vec<Found>, ImportError> {
        let limit = Limits::default().bytes;
        let stream = compression::decompress(stream).map_err(|source| ImportError::Read { source })?;
        let mut stream = stream.take(limit + 1);
        let mut spool = self.store.stage_blob(self.lease)?;
        let mut buffer = vec![0; 128 << 10];
        let mut length = 0;
        loop {
            let read = match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(ImportError::Read { source }),
            };
            length += read as u64;
            if length > limit {
                return Err(ImportError::TooLarge(limit));
            }
            let write = spool.write_all(&buffer[..read]);
            write.map_err(StoreError::io("write", spool.path()))?;
        }
        let file = File::open(spool.path()).map_err(StoreError::io("open", spool.path()))?;
        let tar = TarFile::scan(file)?;
        if self.is_rootfs(&tar) {
            // The spool is the layer already.
            let name = self.rootfs_name()?;
            let (digest, size) = spool.keep()?;
            self.added.push(digest.clone());
            return self.rootfs(name, digest, size);
        }
        self.tar(tar)
    }

    fn tar(&mut self, tar: TarFile) -> Result<Vec<Found>, ImportError> {
        if self.is_rootfs(&tar) {
            let name = self.rootfs_name()?;
            let (digest, size) = self.put(tar.whole()?)?;
            return self.rootfs(name, digest, size);
        }
        if tar.has("index.json") && tar.has("oci-layout") {
            oci::import(self, &tar)
        } else {
            docker::import(self, &tar)
        }
    }

    fn is_rootfs(&self, tar: &TarFile) -> bool {
        self.options.rootfs || !(tar.has("manifest.json") || (tar.has("index.json") && tar.has("oci-layout")))
    }

    fn rootfs_name(&self) -> Result<Reference, ImportError> {
        self.options.name.clone().ok_or(ImportError::Nameless)
    }

    /// An image of one layer, which is not compressed and so its own diff id.
    fn rootfs(&mut self, name: Reference, layer: Digest, size: u64) -> Result<Vec<Found>, ImportError> {
        let config = ConfigFile::new(&self.options.platform, RawConfig::default(), vec![layer.clone()]);
        let layers = vec![crate::manifest::Descriptor::new(layer_type(Compression::None), layer, size)];
        let manifest = put_manifest(self.store, self.lease, &config, layers);
        let manifest = manifest.map_err(|source| ImportError::Describe { source })?;
        self.added.push(manifest.clone());
        self.added.extend(self.store.read_manifest(&manifest)?.0.blobs());
        Ok(vec![Found { names: vec![name], target: manifest.clone(), manifest }])
    }

    fn put(&mut self, stream: impl Read) -> Result<(Digest, u64), ImportError> {
        let put = self.store.put_stream(self.lease, stream).map_err(|error| match error {
            PutError::Stream(source) => ImportError::Read { source },
            PutError::Store(source) => ImportError::Store { source },
        })?;
        self.added.push(put.0.clone());
        Ok(put)
    }

    fn put_bytes(&mut self, bytes: &[u8]) -> Result<Digest, ImportError> {
        let digest = self.store.put_blob(self.lease, bytes)?;
        self.added.push(digest.clone());
        Ok(digest)
    }

    fn check_platform(&self, config: &ConfigFile) -> Result<(), ImportError> {
        match config.platform() {
            Some(offered) if self.options.platform.rank(&offered).is_none() => Err(ImportError::NoMatchingPlatform {
                wanted: self.options.platform.to_string(),
                offered: vec![offered.to_string()],
            }),
            _ => Ok(()),
        }
    }

    /// Puts the given name in place of those in the archive.
    fn rename(&self, mut found: Vec<Found>) -> Result<Vec<Found>, ImportError> {
        if let Some(name) = &self.options.name {
            match found.as_mut_slice() {
                [only] => only.names = vec![name.clone()],
                several => return Err(ImportError::SeveralImages(several.len())),
            }
        }
        if found.is_empty() {
            return Err(ImportError::Empty);
        }
        for image in &found {
            if image.names.is_empty() {
                return Err(ImportError::Nameless);
            }
            // An archive must not bring its own idea of our sidecars.
            if let Some(name) = image.names.iter().find(|name| name.is_builtin()) {
                return Err(ImportError::Builtin(name.to_string()));
            }
        }
        Ok(found)
    }
}

/// Reads a whole JSON document.
fn document<T: serde::de::DeserializeOwned>(archive: &impl Archive, path: &str) -> Result<T, ImportError> {
    let bytes = bytes(archive, path)?;
    serde_json::from_slice(&bytes).map_err(|source| ImportError::Json { path: path.to_owned(), source })
}

fn bytes(archive: &impl Archive, path: &str) -> Result<Vec<u8>, ImportError> {
    let mut bytes = Vec::new();
    let stream = archive.open(path)?.ok_or_else(|| ImportError::Missing(path.to_owned()))?;
    stream.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes).map_err(|source| ImportError::Read { source })?;
    if bytes.len() as u64 > MAX_DOCUMENT {
        return Err(ImportError::TooLarge(MAX_DOCUMENT));
    }
    Ok(bytes)
}

fn is_plain(file: &mut File) -> io::Result<bool> {
    let mut start = Vec::new();
    Read::by_ref(file).take(6).read_to_end(&mut start)?;
    file.rewind()?;
    Ok(compression::detect(&start)? == Compression::None)
}

/// Names of `manifest.json`, by the digest of the config.
type DockerNames = BTreeMap<Digest, Vec<Reference>>;
