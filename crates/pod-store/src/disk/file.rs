//! The store's file: who holds it, and how a new one takes its place.
//!
//! The lock is `flock` on the file itself, so it ends with the process however that ends. A new file is locked before it
//! is renamed over the old one: at no moment is there an unlocked file under the store's name.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use redb::StorageBackend;
use rustix::fs::{FlockOperation, flock};

use super::Medium;

/// How long a lock is asked for: a process that was just killed may need a moment to be gone.
const PATIENCE: u32 = 20;
const PAUSE: Duration = Duration::from_millis(20);

#[derive(Debug, thiserror::Error)]
pub(crate) enum ClaimError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it is in use by {0}")]
    Busy(String),
}

#[derive(Debug)]
pub(crate) struct FileMedium {
    path: PathBuf,
    /// The file under `path`, locked; `None` until there is one.
    current: Option<File>,
    /// The one that will take its place, locked as well.
    next: Option<File>,
}

impl FileMedium {
    /// Locks the store, also one that does not exist yet.
    pub(crate) fn claim(path: &Path) -> Result<Self, ClaimError> {
        let mut medium = Self { path: path.to_owned(), current: None, next: None };
        loop {
            match lock(path, false)? {
                Some(file) => {
                    // What a crash left of a file that was to take this one's place.
                    let _ = std::fs::remove_file(medium.beside());
                    medium.current = Some(file);
                    return Ok(medium);
                }
                None => medium.next = lock(&medium.beside(), true)?,
            }
            // Whoever holds the lock of the file beside may create the store, if nobody did in the meantime.
            match path.try_exists()? {
                false => return Ok(medium),
                true => medium.discard(),
            }
        }
    }

    fn beside(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".new");
        name.into()
    }
}

impl Medium for FileMedium {
    fn existing(&mut self) -> io::Result<Option<Box<dyn StorageBackend>>> {
        self.current.as_ref().map(backend).transpose()
    }

    fn fresh(&mut self) -> io::Result<Box<dyn StorageBackend>> {
        if self.next.is_none() {
            self.next = lock(&self.beside(), true).map_err(|error| match error {
                ClaimError::Io(error) => error,
                busy @ ClaimError::Busy(_) => io::Error::other(busy),
            })?;
        }
        let Some(next) = &self.next else { return Err(io::ErrorKind::NotFound.into()) };
        // What an earlier attempt left.
        next.set_len(0)?;
        backend(next)
    }

    fn install(&mut self) -> io::Result<()> {
        let Some(next) = self.next.take() else { return Err(io::ErrorKind::NotFound.into()) };
        if let Err(error) = std::fs::rename(self.beside(), &self.path) {
            self.next = Some(next);
            return Err(error);
        }
        // From here on the new file is the store's, whether or not its name is durable yet.
        self.current = Some(next);
        let directory = match self.path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        File::open(directory)?.sync_all()
    }

    fn discard(&mut self) {
        if self.next.take().is_some() {
            // Its space is needed more than its name; an attempt that fails leaves an empty file at worst.
            let _ = std::fs::remove_file(self.beside());
        }
    }
}

/// The file of this name, locked; `None` if there is none and none is to be made.
fn lock(path: &Path, create: bool) -> Result<Option<File>, ClaimError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(create).truncate(false).mode(0o600);
    for attempt in 0.. {
        let file = match options.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !create => return Ok(None),
            other => other?,
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) if attempt < PATIENCE => {
                std::thread::sleep(PAUSE);
                continue;
            }
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(ClaimError::Busy(holder(&file))),
            Err(error) => return Err(io::Error::from(error).into()),
        }
        // The name may have got another file while we waited for this one.
        let held = file.metadata()?;
        match path.symlink_metadata() {
            Ok(named) if (named.dev(), named.ino()) == (held.dev(), held.ino()) => {}
            Ok(_) => continue,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error.into()),
        }
        if held.mode() & 0o777 != 0o600 {
            file.set_permissions(Permissions::from_mode(0o600))?;
        }
        return Ok(Some(file));
    }
    unreachable!("the loop ends by returning")
}

/// Who holds the lock of `file`, as far as `/proc/locks` (proc_locks(5)) knows.
fn holder(file: &File) -> String {
    let unknown = || "another process".to_owned();
    let (Ok(metadata), Ok(locks)) = (file.metadata(), std::fs::read_to_string("/proc/locks")) else { return unknown() };
    let Some(process) = process_of(&locks, metadata.ino()) else { return unknown() };
    match std::fs::read_to_string(format!("/proc/{process}/comm")) {
        Ok(name) => format!("process {process} ({})", name.trim_end()),
        Err(_) => format!("process {process}"),
    }
}

/// The inode alone: the device number there is not the one `stat` gives on every file system.
fn process_of(locks: &str, inode: u64) -> Option<u32> {
    locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        if words.next()? != "FLOCK" {
            return None;
        }
        let (process, place) = (words.nth(2)?, words.next()?);
        let found: u64 = place.rsplit(':').next()?.parse().ok()?;
        (found == inode).then(|| process.parse().ok())?
    })
}

/// The database's hand on the file. It shares the lock, which ends only when the medium's hand is gone as well.
fn backend(file: &File) -> io::Result<Box<dyn StorageBackend>> {
    Ok(Box::new(FileBackend(file.try_clone()?)))
}

/// Not redb's own backend: that one takes, and on closing drops, locks of its own on the same file.
#[derive(Debug)]
struct FileBackend(File);

impl StorageBackend for FileBackend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }
}

/// redb wants a sized type.
#[derive(Debug)]
pub(super) struct Boxed(pub(super) Box<dyn StorageBackend>);

impl StorageBackend for Boxed {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_found_by_inode() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 fe:00:77 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 1234 fe:00:77 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 5 fe:00:78 0 EOF\n";
        assert_eq!(process_of(locks, 77), Some(1234));
        assert_eq!(process_of(locks, 79), None);
    }
}
