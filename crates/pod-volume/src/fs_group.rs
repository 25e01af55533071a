//! A group that may read and write a volume, whatever user made the files (`securityContext.fsGroup`).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, Stat};
use rustix::io::Errno;

use crate::walk::{At, Failures, Visitor, open_root, vanished, walk};

/// The group a volume is handed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FsGroup {
    pub gid: u32,
    /// Skip the walk when the volume's own directory already is as it should be. The directory is changed last, so
    /// that a walk cut short is not mistaken for a finished one.
    pub on_root_mismatch: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum FsGroupError {
    #[error("failed to open volume `{path}`")]
    Open { path: PathBuf, source: io::Error },
    /// The rest of the volume was changed.
    #[error("failed to hand parts of volume `{path}` to group {gid}: {failures}")]
    Entries { path: PathBuf, gid: u32, failures: Failures },
}

/// Hands a whole volume to a group: group ownership, files `rw` for it (`r` in a read-only volume), directories also
/// searchable and setgid, so that files made later belong to the group too. Bits are only ever added. Symlinks get the
/// group, but what they point to is not touched. `docs: kubernetes.io, "Configure volume permission and ownership
/// change policy for Pods"`.
pub fn apply_fs_group(dir: &Path, group: &FsGroup, readonly: bool) -> Result<(), FsGroupError> {
    let open_failed = |errno: Errno| FsGroupError::Open { path: dir.to_owned(), source: errno.into() };
    let root = open_root(dir).map_err(open_failed)?;
    let stat = rustix::fs::fstat(&root).map_err(open_failed)?;
    if group.on_root_mismatch && is_handed(&stat, group.gid, readonly) {
        return Ok(());
    }
    let mut failures = walk(root.as_fd(), dir, &mut Hand { gid: group.gid, readonly });
    if let Err(errno) = hand(root.as_fd(), group.gid, readonly) {
        failures.push(dir.to_owned(), errno.into());
    }
    if failures.is_empty() {
        return Ok(());
    }
    Err(FsGroupError::Entries { path: dir.to_owned(), gid: group.gid, failures })
}

/// The bits a group needs on a file or directory.
pub(crate) fn group_bits(directory: bool, readonly: bool) -> u32 {
    let file = if readonly { 0o440 } else { 0o660 };
    if directory { file | 0o2110 } else { file }
}

/// Changes the mode of exactly the thing `held` (an `O_PATH` descriptor) refers to. `fchmod` refuses such a descriptor
/// and `fchmodat2` needs Linux 6.6, so through its name in `/proc`.
pub(crate) fn set_mode(held: BorrowedFd<'_>, mode: u32) -> rustix::io::Result<()> {
    rustix::fs::chmod(format!("/proc/self/fd/{}", held.as_raw_fd()), Mode::from_raw_mode(mode & 0o7777))
}

struct Hand {
    gid: u32,
    readonly: bool,
}

impl Visitor for Hand {
    fn entry(&mut self, at: &At<'_>, kind: FileType) -> rustix::io::Result<bool> {
        if kind == FileType::Directory {
            return Ok(true);
        }
        hand(at.hold()?.as_fd(), self.gid, self.readonly)?;
        Ok(false)
    }

    fn leave(&mut self, at: &At<'_>) -> rustix::io::Result<()> {
        match at.hold() {
            Ok(held) => hand(held.as_fd(), self.gid, self.readonly),
            Err(errno) if vanished(errno) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}

/// `held` may be an `O_PATH` descriptor.
pub(crate) fn hand(held: BorrowedFd<'_>, gid: u32, readonly: bool) -> rustix::io::Result<()> {
    // The mode from before: changing the owner clears setuid and setgid bits of files.
    let stat = rustix::fs::fstat(held)?;
    if stat.st_gid != gid {
        rustix::fs::chownat(held, "", None, Some(Gid::from_raw(gid)), AtFlags::EMPTY_PATH)?;
    }
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => Ok(()),
        kind => {
            let wanted = stat.st_mode | group_bits(kind == FileType::Directory, readonly);
            if wanted == stat.st_mode && stat.st_gid == gid {
                return Ok(());
            }
            set_mode(held, wanted)
        }
    }
}

fn is_handed(stat: &Stat, gid: u32, readonly: bool) -> bool {
    let bits = group_bits(true, readonly);
    stat.st_gid == gid && stat.st_mode & bits == bits
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn make(path: &Path, mode: u32) {
        fs::write(path, "").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn seen(path: &Path) -> (u32, u32) {
        let metadata = fs::symlink_metadata(path).unwrap();
        (metadata.mode() & 0o7777, metadata.gid())
    }

    fn always(gid: u32) -> FsGroup {
        FsGroup { gid, on_root_mismatch: false }
    }

    #[test]
    fn files_and_directories_get_the_group_and_its_bits() {
        let temp = tempfile::tempdir().unwrap();
        let volume = temp.path();
        fs::create_dir_all(volume.join("a/b")).unwrap();
        fs::set_permissions(volume.join("a/b"), fs::Permissions::from_mode(0o700)).unwrap();
        make(&volume.join("a/b/private"), 0o600);
        make(&volume.join("tool"), 0o4711);
        apply_fs_group(volume, &always(4242), false).unwrap();
        assert_eq!(seen(&volume.join("a/b/private")), (0o660, 4242));
        assert_eq!(seen(&volume.join("a/b")), (0o2770, 4242));
        assert_eq!(seen(&volume.join("tool")), (0o4771, 4242), "the setuid bit survives the change of group");
        assert_eq!(seen(volume).1, 4242);
        assert_eq!(seen(volume).0 & 0o2770, 0o2770);
    }

    #[test]
    fn a_read_only_volume_stays_unwritable_for_the_group() {
        let temp = tempfile::tempdir().unwrap();
        make(&temp.path().join("key"), 0o400);
        apply_fs_group(temp.path(), &always(7), true).unwrap();
        assert_eq!(seen(&temp.path().join("key")), (0o440, 7));
    }

    #[test]
    fn a_symlinks_target_is_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        let outside = temp.path().join("outside");
        make(&outside, 0o600);
        fs::create_dir(temp.path().join("outside-dir")).unwrap();
        make(&temp.path().join("outside-dir/inner"), 0o600);
        let volume = temp.path().join("volume");
        fs::create_dir(&volume).unwrap();
        symlink(&outside, volume.join("link")).unwrap();
        symlink("/nowhere/at/all", volume.join("dangling")).unwrap();
        symlink("../outside-dir", volume.join("dir-link")).unwrap();
        apply_fs_group(&volume, &always(4242), false).unwrap();
        assert_eq!(seen(&outside), (0o600, 0));
        assert_eq!(seen(&temp.path().join("outside-dir/inner")), (0o600, 0));
        assert_eq!(seen(&volume.join("link")).1, 4242, "the link itself belongs to the group");
    }

    #[test]
    fn on_root_mismatch_trusts_the_root() {
        let temp = tempfile::tempdir().unwrap();
        let volume = temp.path();
        let lazy = FsGroup { gid: 99, on_root_mismatch: true };
        make(&volume.join("before"), 0o600);
        apply_fs_group(volume, &lazy, false).unwrap();
        assert_eq!(seen(&volume.join("before")), (0o660, 99));
        make(&volume.join("after"), 0o600);
        apply_fs_group(volume, &lazy, false).unwrap();
        assert_eq!(seen(&volume.join("after")).0, 0o600, "the root is as it should be: nothing is walked");
        fs::set_permissions(volume, fs::Permissions::from_mode(0o700)).unwrap();
        apply_fs_group(volume, &lazy, false).unwrap();
        assert_eq!(seen(&volume.join("after")), (0o660, 99));
    }

    #[test]
    fn a_missing_volume_is_an_error() {
        let error = apply_fs_group(Path::new("/nonexistent/volume"), &always(1), false).unwrap_err();
        assert_eq!(error.to_string(), "failed to open volume `/nonexistent/volume`");
    }
}
