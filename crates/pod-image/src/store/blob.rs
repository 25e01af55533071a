//! Blobs: written under another name, verified, synced, then renamed to their digest.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::FlockOperation;

use super::{BLOBS, INGEST, STAGING, Store, StoreError, lock::Lease};
use crate::digest::{Digest, Hasher, Hashing};

impl Store {
    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.path(BLOBS).join(digest.hex())
    }

    pub(crate) fn has_blob(&self, digest: &Digest) -> bool {
        self.blob_path(digest).exists()
    }

    pub(crate) fn open_blob(&self, digest: &Digest) -> Result<File, StoreError> {
        let path = self.blob_path(digest);
        File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => StoreError::MissingBlob(digest.clone()),
            _ => StoreError::io("open", path)(error),
        })
    }

    pub(crate) fn blob_length(&self, digest: &Digest) -> Result<u64, StoreError> {
        let file = self.open_blob(digest)?;
        Ok(file.metadata().map_err(StoreError::io("read", self.blob_path(digest)))?.len())
    }

    /// A small blob, checked against its digest: documents decide what is run.
    pub(crate) fn read_blob(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, StoreError> {
        let mut bytes = Vec::new();
        let file = self.open_blob(digest)?;
        file.take(limit + 1).read_to_end(&mut bytes).map_err(StoreError::io("read", self.blob_path(digest)))?;
        if bytes.len() as u64 > limit {
            return Err(StoreError::LargeBlob { digest: digest.clone(), limit });
        }
        let actual = Digest::of(&bytes);
        if actual != *digest {
            return Err(StoreError::Digest { expected: digest.clone(), actual });
        }
        Ok(bytes)
    }

    pub(crate) fn put_blob(&self, _: &Lease, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        let path = self.blob_path(&digest);
        if !path.exists() {
            let temporary = self.path(STAGING).join(unique());
            write_and_rename(&temporary, &path, bytes).map_err(StoreError::io("write", &path))?;
        }
        Ok(digest)
    }

    /// Takes in a stream of unknown digest; returns digest and length.
    pub(crate) fn put_stream(&self, lease: &Lease, mut stream: impl Read) -> Result<(Digest, u64), PutError> {
        let mut writer = self.stage_blob(lease).map_err(PutError::Store)?;
        let mut buffer = vec![0; 128 << 10];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => {
                    let written = writer.write_all(&buffer[..read]);
                    written.map_err(|e| PutError::Store(StoreError::io("write", writer.path())(e)))?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(PutError::Stream(error)),
            }
        }
        writer.keep().map_err(PutError::Store)
    }

    /// A blob whose digest is known only when it is written.
    pub(crate) fn stage_blob(&self, _: &Lease) -> Result<NewBlob, StoreError> {
        let path = self.path(STAGING).join(unique());
        let file = create(&path).map_err(StoreError::io("create", &path))?;
        Ok(NewBlob { store: self.clone(), file: Hashing::new(file), temporary: Temporary(path) })
    }

    /// Makes a finished file of the staging area a blob. It is synced here, before it gets its name.
    fn adopt_blob(&self, file: &File, path: &Path, digest: &Digest) -> Result<(), StoreError> {
        file.sync_data().map_err(StoreError::io("sync", path))?;
        let target = self.blob_path(digest);
        fs::rename(path, &target).map_err(StoreError::io("rename", path))?;
        sync_directory(&target).map_err(StoreError::io("sync", &target))
    }

    /// Removes a blob that turned out not to be what its name says.
    pub(super) fn drop_if_damaged(&self, digest: &Digest) {
        let Ok(mut file) = self.open_blob(digest) else { return };
        let mut hashing = Hashing::new(io::sink());
        if io::copy(&mut file, &mut hashing).is_ok() && hashing.finish().1 != *digest {
            let _ = fs::remove_file(self.blob_path(digest));
        }
    }

    /// Begins or resumes the download of `digest`. `None`: another task or process is downloading it now; ask again
    /// later.
    pub(crate) fn try_ingest(&self, _: &Lease, digest: &Digest) -> Result<Option<Ingest>, StoreError> {
        let path = self.path(INGEST).join(digest.hex());
        let fail = |action| StoreError::io(action, &path);
        loop {
            if self.has_blob(digest) {
                return Ok(Some(Ingest::Present));
            }
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            let mut file = options.open(&path).map_err(fail("open"))?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                Err(errno) => return Err(fail("lock")(errno.into())),
            }
            // Whoever had the lock before may have renamed or removed the file: then ours has no name.
            let current = fs::metadata(&path).map(|metadata| metadata.ino()).ok();
            if current != file.metadata().map(|metadata| metadata.ino()).ok() {
                continue;
            }
            let mut hasher = Hasher::default();
            let mut done = 0;
            let mut buffer = vec![0; 128 << 10];
            loop {
                let read = file.read(&mut buffer).map_err(fail("read"))?;
                if read == 0 {
                    break;
                }
                hasher.update(&buffer[..read]);
                done += read as u64;
            }
            let digest = digest.clone();
            let writer = BlobWriter { store: self.clone(), digest, file, path, hasher, done };
            return Ok(Some(Ingest::Partial(Box::new(writer))));
        }
    }
}

/// What became of a wish to download.
#[derive(Debug)]
pub(crate) enum Ingest {
    /// The blob is here already.
    Present,
    /// Ours to write, perhaps with a beginning from an earlier try.
    Partial(Box<BlobWriter>),
}

/// A download under way, alone on its digest. Dropped unfinished, what was written stays and is resumed.
#[derive(Debug)]
pub(crate) struct BlobWriter {
    store: Store,
    digest: Digest,
    file: File,
    path: PathBuf,
    hasher: Hasher,
    done: u64,
}

impl BlobWriter {
    /// Bytes here so far.
    pub(crate) fn done(&self) -> u64 {
        self.done
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file.write_all(bytes).map_err(StoreError::io("write", &self.path))?;
        self.hasher.update(bytes);
        self.done += bytes.len() as u64;
        Ok(())
    }

    /// Forgets what is here: it is not the beginning of what comes.
    pub(crate) fn restart(&mut self) -> Result<(), StoreError> {
        let restart = || -> io::Result<()> {
            self.file.set_len(0)?;
            io::Seek::rewind(&mut &self.file)
        };
        restart().map_err(StoreError::io("truncate", &self.path))?;
        self.hasher = Hasher::default();
        self.done = 0;
        Ok(())
    }

    /// Throws away what is here: it is wrong.
    pub(crate) fn discard(self) -> Result<(), StoreError> {
        fs::remove_file(&self.path).map_err(StoreError::io("remove", &self.path))
    }

    /// Makes it a blob.
    ///
    /// # Errors
    /// [`StoreError::Digest`]: what came is something else. It is thrown away.
    pub(crate) fn finish(self) -> Result<(), StoreError> {
        let actual = self.hasher.finish();
        if actual != self.digest {
            fs::remove_file(&self.path).map_err(StoreError::io("remove", &self.path))?;
            return Err(StoreError::Digest { expected: self.digest, actual });
        }
        self.store.adopt_blob(&self.file, &self.path, &self.digest)
    }
}

/// Why a stream did not become a blob.
#[derive(Debug)]
pub(crate) enum PutError {
    Stream(io::Error),
    Store(StoreError),
}

/// A blob being written. Dropped, it is gone.
#[derive(Debug)]
pub(crate) struct NewBlob {
    store: Store,
    file: Hashing<File>,
    temporary: Temporary,
}

impl NewBlob {
    pub(crate) fn path(&self) -> &Path {
        &self.temporary.0
    }

    /// Makes it a blob; says its digest and length.
    pub(crate) fn keep(self) -> Result<(Digest, u64), StoreError> {
        let (file, digest, length) = self.file.finish();
        if !self.store.has_blob(&digest) {
            self.store.adopt_blob(&file, &self.temporary.0, &digest)?;
        }
        Ok((digest, length))
    }
}

impl Write for NewBlob {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A file or directory that goes when this does.
#[derive(Debug)]
pub(crate) struct Temporary(pub PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // Nothing to do about a failure here; the next clean-up tries again.
        let _ = match fs::symlink_metadata(&self.0) {
            Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(&self.0),
            Ok(_) => fs::remove_file(&self.0),
            Err(error) => Err(error),
        };
    }
}

/// A name that nobody else uses.
pub(crate) fn unique() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{}-{:x}-{count}", std::process::id(), time.as_nanos())
}

/// Replaces `path` by a file with these bytes: after a crash it is the old or the new one.
pub(super) fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", unique()));
    write_and_rename(&path.with_file_name(name), path, bytes)
}

fn write_and_rename(temporary: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = Temporary(temporary.to_owned());
    let mut file = create(&temporary.0)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    fs::rename(&temporary.0, path)?;
    sync_directory(path)
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Makes the name `path` itself durable.
fn sync_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}
