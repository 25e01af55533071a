//! A layer's tar stream becomes a directory that overlayfs can use as a lower layer (image-spec, "Layer Filesystem
//! Changeset"; kernel, `overlayfs.rst`).
//!
//! The tar comes from a stranger and is unpacked by root, so nothing here trusts a path: parents are resolved by the
//! kernel with `openat2(RESOLVE_IN_ROOT)` below the layer's own directory, last components are never followed, and `..`
//! is refused. Attributes are set on open descriptors.
//!
//! | in the tar | in the layer |
//! |---|---|
//! | `.wh.NAME` | `NAME`, a character device 0:0 |
//! | `.wh..wh..opq` | `trusted.overlay.opaque=y` on the directory |
//! | xattrs `user.*`, `security.capability`, POSIX ACLs | set |
//! | xattrs `trusted.*` (would speak to overlayfs), other `security.*` (the host's own policy) | left out, as the layer is not the place to set them |
//! | a character device 0:0 | refused: overlayfs would take it for a whiteout |
//!
//! Without root, owners stay those of the caller; devices and opaque directories then fail with the kernel's error.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
    rc::Rc,
    sync::{Arc, atomic::AtomicBool},
};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Timestamps, XattrFlags};

mod attributes;
mod guard;
#[cfg(test)]
mod tests;

use attributes::Attributes;
pub(crate) use guard::Guard;
use guard::Stop;

const WHITEOUT_PREFIX: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// aufs' own bookkeeping (`.wh..wh.plnk` …), which Docker leaves out too.
const AUFS_PREFIX: &[u8] = b".wh..wh.";
pub(crate) const OPAQUE_XATTR: &str = "trusted.overlay.opaque";
/// Bytes of directories' extended attributes, which are held until the end.
const MAX_HELD_XATTRS: usize = 16 << 20;

/// Bounds on what one layer may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Uncompressed bytes.
    pub bytes: u64,
    pub entries: u64,
}

impl Default for Limits {
    /// Far above any image seen, far below what fills a server's disk unnoticed.
    fn default() -> Self {
        Limits { bytes: 64 << 30, entries: 5_000_000 }
    }
}

/// Why a layer could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    #[error("layer is not a readable tar archive")]
    Archive { source: io::Error },
    #[error("layer entry `{path}` leads out of the root file system")]
    Escape { path: String },
    #[error("layer entry `{path}` is {what}, which is not supported")]
    Unsupported { path: String, what: String },
    #[error("layer entry `{path}` links to `{target}`, which is not in the layer")]
    LinkTarget { path: String, target: String },
    #[error("failed to unpack layer entry `{path}`")]
    Entry { path: String, source: io::Error },
    #[error("failed to prepare the layer directory `{path}`")]
    Root { path: PathBuf, source: io::Error },
    #[error("layer is larger than {0} bytes when unpacked")]
    TooLarge(u64),
    #[error("layer has more than {0} entries")]
    TooMany(u64),
    #[error("unpacking was cancelled")]
    Cancelled,
}

/// What came of a layer.
#[derive(Debug, Default)]
pub(crate) struct Unpacked {
    /// Bytes on disk, each file rounded up to whole pages.
    pub size: u64,
    /// Directories that the tar holds entries below but not themselves, the root perhaps among them (as `""`).
    pub implicit: Vec<PathBuf>,
}

/// Unpacks the uncompressed tar `stream` into the existing, empty directory `root`. What comes after the archive's end
/// is read too, so that the caller's hash covers the whole stream.
pub(crate) fn unpack(
    stream: impl Read,
    root: &Path,
    limits: Limits,
    cancel: &Arc<AtomicBool>,
) -> Result<Unpacked, UnpackError> {
    let mut unpacker = Unpacker::new(root, limits)?;
    let (guard, headers) = Guard::new(stream, limits.bytes, cancel.clone());
    let mut archive = tar::Archive::new(guard);
    let explain = |source: io::Error| match source.get_ref().and_then(|inner| inner.downcast_ref::<Stop>()) {
        Some(Stop::TooLarge) => UnpackError::TooLarge(limits.bytes),
        Some(Stop::Cancelled) => UnpackError::Cancelled,
        _ => UnpackError::Archive { source },
    };
    let mut entries = archive.entries().map_err(explain)?;
    for count in 0.. {
        if count > limits.entries {
            return Err(UnpackError::TooMany(limits.entries));
        }
        headers.begin();
        let Some(entry) = entries.next() else { break };
        let mut entry = entry.map_err(explain)?;
        headers.end();
        unpacker.entry(&mut entry).map_err(|error| match error {
            // The stream's failure shows up as the entry's.
            UnpackError::Entry { path, source } => match explain(source) {
                UnpackError::Archive { source } => UnpackError::Entry { path, source },
                stopped => stopped,
            },
            other => other,
        })?;
        // Drained here, so that the next turn reads nothing but headers.
        io::copy(&mut entry, &mut io::sink()).map_err(explain)?;
    }
    headers.end();
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(explain)?;
    unpacker.finish()
}

struct Unpacker {
    root: OwnedFd,
    /// `chown` is root's.
    privileged: bool,
    bytes_left: u64,
    size: u64,
    /// The directory of the entry before: entries of a directory come together.
    parent: Option<(PathBuf, Rc<OwnedFd>)>,
    /// Set at the end: writing into a directory would change its time again, and its default ACL would be inherited.
    directories: BTreeMap<PathBuf, Attributes>,
    held_xattrs: usize,
    implicit: BTreeSet<PathBuf>,
    buffer: Vec<u8>,
}

// === impl Unpacker ===

impl Unpacker {
    fn new(root: &Path, limits: Limits) -> Result<Self, UnpackError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::open(root, flags, Mode::empty())
            .map_err(|errno| UnpackError::Root { path: root.to_owned(), source: errno.into() })?;
        let top = PathBuf::new();
        Ok(Unpacker {
            root: fd,
            privileged: rustix::process::geteuid().is_root(),
            bytes_left: limits.bytes,
            size: 0,
            parent: None,
            directories: BTreeMap::from([(top.clone(), Attributes::implicit())]),
            held_xattrs: 0,
            implicit: BTreeSet::from([top]),
            buffer: vec![0; 128 << 10],
        })
    }

    fn entry<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>) -> Result<(), UnpackError> {
        let raw = entry.path_bytes().into_owned();
        let shown = String::from_utf8_lossy(&raw).into_owned();
        let fail = |source: io::Error| UnpackError::Entry { path: shown.clone(), source };
        let kind = match entry.header().entry_type() {
            // Archives older than 1988 mark directories by a slash.
            tar::EntryType::Regular if raw.ends_with(b"/") => tar::EntryType::Directory,
            kind => kind,
        };
        if kind == tar::EntryType::XGlobalHeader {
            return Ok(());
        }
        let path = normalise(&raw).ok_or_else(|| UnpackError::Escape { path: shown.clone() })?;
        let attributes = Attributes::read(entry, &shown)?;

        let Some(name) = path.file_name().map(OsStr::to_owned) else {
            if kind == tar::EntryType::Directory {
                return self.hold(path, attributes, &shown);
            }
            return Err(UnpackError::Escape { path: shown });
        };
        let parent = self.open_parent(&path).map_err(fail)?;
        let parent = parent.as_fd();
        if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT_PREFIX) {
            return self.whiteout(parent, &name, hidden, &shown);
        }

        match kind {
            tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
                self.make_room(parent, &name, &path).map_err(fail)?;
                let size = self.regular(parent, &name, entry, &attributes).map_err(fail)?;
                self.size += size.next_multiple_of(4096);
            }
            tar::EntryType::Directory => {
                self.directory(parent, &name, &path).map_err(fail)?;
                self.hold(path, attributes, &shown)?;
            }
            tar::EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                self.make_room(parent, &name, &path).map_err(fail)?;
                rustix::fs::symlinkat(OsStr::from_bytes(&target), parent, &name).map_err(|e| fail(e.into()))?;
                self.attributes_at(parent, &name, &attributes).map_err(fail)?;
            }
            tar::EntryType::Link => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                self.hard_link(parent, &name, &path, &target, &shown)?;
            }
            tar::EntryType::Char | tar::EntryType::Block | tar::EntryType::Fifo => {
                self.make_room(parent, &name, &path).map_err(fail)?;
                self.node(parent, &name, kind, entry, &attributes, &shown)?;
            }
            other => {
                let what = format!("a tar entry of type {:?}", char::from(other.as_byte()));
                return Err(UnpackError::Unsupported { path: shown, what });
            }
        }
        Ok(())
    }

    /// Deepest first, so that no time set is touched again.
    fn finish(mut self) -> Result<Unpacked, UnpackError> {
        for (path, attributes) in std::mem::take(&mut self.directories).into_iter().rev() {
            let set = || -> io::Result<()> {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let fd = self.open_in_root(&path, flags)?;
                self.attributes_of(fd.as_fd(), &attributes)
            };
            set().map_err(|source| UnpackError::Entry { path: path.display().to_string(), source })?;
        }
        Ok(Unpacked { size: self.size, implicit: self.implicit.into_iter().collect() })
    }

    /// Remembers a directory's attributes for the end.
    fn hold(&mut self, path: PathBuf, attributes: Attributes, shown: &str) -> Result<(), UnpackError> {
        self.held_xattrs += attributes.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        if self.held_xattrs > MAX_HELD_XATTRS {
            let what = format!("one of many directories with more than {MAX_HELD_XATTRS} bytes of attributes");
            return Err(UnpackError::Unsupported { path: shown.to_owned(), what });
        }
        self.implicit.remove(&path);
        self.directories.insert(path, attributes);
        Ok(())
    }

    /// Opens `path` as a process whose root is the layer would: symlinks, also absolute ones, stay inside.
    fn open_in_root(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        loop {
            match rustix::fs::openat2(&self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                // Somebody renamed something anywhere in the system while `..` was resolved (openat2(2)).
                Err(rustix::io::Errno::AGAIN) => {}
                other => return Ok(other?),
            }
        }
    }

    /// The directory that `path` lives in, made if the tar did not have it.
    fn open_parent(&mut self, path: &Path) -> io::Result<Rc<OwnedFd>> {
        let wanted = path.parent().unwrap_or(Path::new(""));
        if let Some((known, fd)) = &self.parent
            && known == wanted
        {
            return Ok(fd.clone());
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let fd = match self.open_in_root(wanted, flags) {
            Ok(fd) => fd,
            Err(error) if matches!(error.raw_os_error(), Some(code) if code == rustix::io::Errno::NOENT.raw_os_error() || code == rustix::io::Errno::NOTDIR.raw_os_error()) =>
            {
                self.make_parents(wanted)?;
                self.open_in_root(wanted, flags)?
            }
            Err(error) => return Err(error),
        };
        let fd = Rc::new(fd);
        self.parent = Some((wanted.to_owned(), fd.clone()));
        Ok(fd)
    }

    fn make_parents(&mut self, wanted: &Path) -> io::Result<()> {
        let mut above = PathBuf::new();
        for component in wanted.components() {
            let parent = self.open_in_root(&above, OFlags::PATH | OFlags::DIRECTORY)?;
            above.push(component);
            match rustix::fs::statat(&parent, component.as_os_str(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if !is_whiteout(&stat) => continue,
                Ok(_) | Err(rustix::io::Errno::NOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
            self.directory(parent.as_fd(), component.as_os_str(), &above)?;
            self.directories.insert(above.clone(), Attributes::implicit());
            self.implicit.insert(above.clone());
        }
        Ok(())
    }

    /// Removes what a later entry of the same name replaces.
    fn make_room(&mut self, parent: BorrowedFd<'_>, name: &OsStr, path: &Path) -> io::Result<()> {
        let stat = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
        self.parent = None;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            std::fs::remove_dir_all(descriptor_path(parent).join(name))?;
            self.directories.retain(|known, _| !known.starts_with(path));
            self.implicit.retain(|known| !known.starts_with(path));
        } else {
            rustix::fs::unlinkat(parent, name, AtFlags::empty())?;
        }
        Ok(())
    }

    fn directory(&mut self, parent: BorrowedFd<'_>, name: &OsStr, path: &Path) -> io::Result<()> {
        let mut hides_below = false;
        match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => return Ok(()),
            Ok(stat) => {
                // Deleted below and made anew here: nothing from below may shine through.
                hides_below = is_whiteout(&stat);
                self.make_room(parent, name, path)?;
            }
            Err(rustix::io::Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700))?;
        if hides_below {
            set_opaque(parent, name)?;
        }
        Ok(())
    }

    fn regular(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        content: &mut impl Read,
        attributes: &Attributes,
    ) -> io::Result<u64> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))?);
        let mut size = 0;
        loop {
            let read = match content.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            // Holes of sparse entries are not in the stream and so not yet counted.
            self.bytes_left =
                self.bytes_left.checked_sub(read as u64).ok_or_else(|| io::Error::other(Stop::TooLarge))?;
            file.write_all(&self.buffer[..read])?;
            size += read as u64;
        }
        self.attributes_of(file.as_fd(), attributes)?;
        Ok(size)
    }

    fn hard_link(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        path: &Path,
        target: &[u8],
        shown: &str,
    ) -> Result<(), UnpackError> {
        let fail = |source: io::Error| UnpackError::Entry { path: shown.to_owned(), source };
        let shown_target = || String::from_utf8_lossy(target).into_owned();
        let missing = || UnpackError::LinkTarget { path: shown.to_owned(), target: shown_target() };
        let target = normalise(target).ok_or_else(|| UnpackError::Escape { path: shown_target() })?;
        let target_name = target.file_name().ok_or_else(missing)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let target_parent =
            self.open_in_root(target.parent().unwrap_or(Path::new("")), flags).map_err(|_| missing())?;
        let stat = rustix::fs::statat(&target_parent, target_name, AtFlags::SYMLINK_NOFOLLOW).map_err(|_| missing())?;
        if is_whiteout(&stat) {
            return Err(missing());
        }
        match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            // A link to itself, or one said twice.
            Ok(existing) if (existing.st_dev, existing.st_ino) == (stat.st_dev, stat.st_ino) => return Ok(()),
            _ => self.make_room(parent, name, path).map_err(fail)?,
        }
        rustix::fs::linkat(&target_parent, target_name, parent, name, AtFlags::empty()).map_err(|e| match e {
            // The room made for the link was what it points to, a directory above it.
            rustix::io::Errno::NOENT => missing(),
            errno => fail(errno.into()),
        })
    }

    fn node<R: Read>(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        kind: tar::EntryType,
        entry: &tar::Entry<'_, R>,
        attributes: &Attributes,
        shown: &str,
    ) -> Result<(), UnpackError> {
        let fail = |source: io::Error| UnpackError::Entry { path: shown.to_owned(), source };
        let number = |number: io::Result<Option<u32>>| number.map(Option::unwrap_or_default).map_err(fail);
        let (file_type, device) = match kind {
            tar::EntryType::Fifo => (FileType::Fifo, 0),
            kind => {
                let major = number(entry.header().device_major())?;
                let minor = number(entry.header().device_minor())?;
                if (kind, major, minor) == (tar::EntryType::Char, 0, 0) {
                    let what = "a character device 0:0, overlayfs' sign for a deleted file".to_owned();
                    return Err(UnpackError::Unsupported { path: shown.to_owned(), what });
                }
                let file_type =
                    if kind == tar::EntryType::Char { FileType::CharacterDevice } else { FileType::BlockDevice };
                (file_type, rustix::fs::makedev(major, minor))
            }
        };
        rustix::fs::mknodat(parent, name, file_type, Mode::from_raw_mode(0o600), device).map_err(|e| fail(e.into()))?;
        self.attributes_at(parent, name, attributes).map_err(fail)?;
        // The node was made just now in a directory that nobody else writes to: it is no symlink.
        rustix::fs::chmodat(parent, name, Mode::from_raw_mode(attributes.mode), AtFlags::empty())
            .map_err(|e| fail(e.into()))
    }

    fn whiteout(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        hidden: &[u8],
        shown: &str,
    ) -> Result<(), UnpackError> {
        let fail = |source: io::Error| UnpackError::Entry { path: shown.to_owned(), source };
        if name.as_bytes() == OPAQUE {
            return set_opaque(parent, OsStr::new(".")).map_err(fail);
        }
        if name.as_bytes().starts_with(AUFS_PREFIX) {
            return Ok(());
        }
        // `.wh...` would delete `..`.
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(UnpackError::Escape { path: shown.to_owned() });
        }
        let hidden = OsStr::from_bytes(hidden);
        // A whiteout speaks of the layers below only; what this layer has under the name stays.
        match rustix::fs::statat(parent, hidden, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                set_opaque(parent, hidden).map_err(fail)
            }
            Ok(_) => Ok(()),
            Err(rustix::io::Errno::NOENT) => {
                rustix::fs::mknodat(parent, hidden, FileType::CharacterDevice, Mode::empty(), 0)
                    .map_err(|e| fail(e.into()))
            }
            Err(errno) => Err(fail(errno.into())),
        }
    }

    /// Order matters: a change of owner clears setuid and file capabilities.
    fn attributes_of(&self, fd: BorrowedFd<'_>, attributes: &Attributes) -> io::Result<()> {
        if self.privileged {
            let (uid, gid) = attributes.owner();
            rustix::fs::fchown(fd, Some(uid), Some(gid))?;
        }
        rustix::fs::fchmod(fd, Mode::from_raw_mode(attributes.mode))?;
        for (name, value) in &attributes.xattrs {
            rustix::fs::fsetxattr(fd, name.as_str(), value, XattrFlags::empty())?;
        }
        if let Some(modified) = attributes.modified {
            rustix::fs::futimens(fd, &Timestamps { last_access: modified, last_modification: modified })?;
        }
        Ok(())
    }

    /// Owner and time of what cannot be opened: symlinks and devices.
    fn attributes_at(&self, parent: BorrowedFd<'_>, name: &OsStr, attributes: &Attributes) -> io::Result<()> {
        if self.privileged {
            let (uid, gid) = attributes.owner();
            rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        if let Some(modified) = attributes.modified {
            let times = Timestamps { last_access: modified, last_modification: modified };
            rustix::fs::utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }
}

/// The path without leading slash and `.`; `None` if it climbs.
pub(crate) fn normalise(path: &[u8]) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.split(|&b| b == b'/') {
        match component {
            b"" | b"." => {}
            b".." => return None,
            name => clean.push(OsString::from_vec(name.to_owned())),
        }
    }
    Some(clean)
}

fn is_whiteout(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn set_opaque(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    Ok(rustix::fs::fsetxattr(fd, OPAQUE_XATTR, b"y", XattrFlags::empty())?)
}

/// A path that means the open directory itself, for the few calls of std that take no descriptor.
fn descriptor_path(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}
