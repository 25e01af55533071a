//! Opening and making paths inside a container's root without ever leaving it.
//!
//! Images and volumes are written by others: any component may be a symlink that points at the host. Every lookup goes
//! through openat2(2) with `RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS`, which no rename or link made meanwhile can fool, and
//! what was found is then used by descriptor, never again by name.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// The kernel's constants of linux/magic.h.
pub(crate) const PROC: u64 = 0x9fa0;
pub(crate) const SYSFS: u64 = 0x6265_6572;
pub(crate) const CGROUP2: u64 = 0x6367_7270;

/// What a mount target is made as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Make {
    Directory,
    File,
}

/// Opens `path` as seen from `root`, as a place (`O_PATH`); symlinks are followed inside.
pub(crate) fn open(root: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, Errno> {
    resolve(root, path, OFlags::PATH)
}

/// Opens the file `path` for reading.
pub(crate) fn open_file(root: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, Errno> {
    resolve(root, path, OFlags::RDONLY | OFlags::NOCTTY | OFlags::NONBLOCK)
}

/// Opens `path`, making what is missing of it: directories with `mode` (of root), and at its end what `make` says.
pub(crate) fn open_or_make(root: BorrowedFd<'_>, path: &str, make: Make, mode: Mode) -> Result<OwnedFd, Errno> {
    match open(root, path) {
        Err(Errno::NOENT) => {}
        outcome => return outcome,
    }
    let components: Vec<&str> = path.split('/').filter(|component| !matches!(*component, "" | ".")).collect();
    let mut prefix = String::with_capacity(path.len() + 1);
    let mut current = root.try_clone_to_owned().map_err(|_| Errno::MFILE)?;
    for (index, component) in components.iter().enumerate() {
        prefix.push('/');
        prefix.push_str(component);
        current = match open(root, &prefix) {
            Err(Errno::NOENT) if *component != ".." => {
                let last = index + 1 == components.len();
                make_one(&current, component, if last { make } else { Make::Directory }, mode)?
            }
            outcome => outcome?,
        };
    }
    Ok(current)
}

/// Opens `path` below `root`, refusing with `EXDEV` whatever would lead out of it; makes missing directories with the
/// mode of `root` itself.
pub(crate) fn open_below(root: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, Errno> {
    let flags = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let open =
        |path: &str| retried(|| rustix::fs::openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), flags));
    match open(path) {
        Err(Errno::NOENT) => {}
        outcome => return outcome,
    }
    let mode = Mode::from_raw_mode(rustix::fs::fstat(root)?.st_mode & 0o7777);
    let mut prefix = String::with_capacity(path.len());
    let mut current = root.try_clone_to_owned().map_err(|_| Errno::MFILE)?;
    for component in path.split('/').filter(|component| !matches!(*component, "" | ".")) {
        if !prefix.is_empty() {
            prefix.push('/');
        }
        prefix.push_str(component);
        current = match open(&prefix) {
            Err(Errno::NOENT) if component != ".." => make_one(&current, component, Make::Directory, mode)?,
            outcome => outcome?,
        };
    }
    Ok(current)
}

/// `EEXIST` here means a dangling symlink: nothing may be made through it.
fn make_one(parent: &OwnedFd, name: &str, make: Make, mode: Mode) -> Result<OwnedFd, Errno> {
    let mut flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match make {
        Make::Directory => {
            rustix::fs::mkdirat(parent, name, mode)?;
            // In a volume others may have put something else there by now.
            flags |= OFlags::DIRECTORY;
        }
        Make::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::WRONLY | OFlags::NOFOLLOW;
            rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o644))?;
        }
    }
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

fn resolve(root: BorrowedFd<'_>, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    retried(|| rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve))
}

/// `EAGAIN`: something was renamed or mounted during a lookup with `..`; openat2(2) says to try again.
fn retried(mut open: impl FnMut() -> Result<OwnedFd, Errno>) -> Result<OwnedFd, Errno> {
    for _ in 0..128 {
        match open() {
            Err(Errno::AGAIN) => {}
            outcome => return outcome,
        }
    }
    Err(Errno::AGAIN)
}

/// Which kind of file system something lies on.
pub(crate) fn magic(fd: impl AsFd) -> Result<u64, Errno> {
    #[expect(clippy::cast_sign_loss, reason = "magic numbers are 32 bits, only f_type's declared type differs")]
    Ok(rustix::fs::fstatfs(fd)?.f_type as u64)
}

/// What kind of file something is.
pub(crate) fn kind(fd: impl AsFd) -> Result<FileType, Errno> {
    let status = rustix::fs::statat(fd, c"", AtFlags::EMPTY_PATH)?;
    Ok(FileType::from_raw_mode(status.st_mode))
}
