//! Directories that a pod owns: an empty one for its lifetime, or a named one that outlives it.

use std::ffi::{CString, OsStr};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, RenameFlags};
use rustix::io::Errno;

use crate::fs_group::{FsGroup, FsGroupError, apply_fs_group, hand};
use crate::walk::{open_directory, open_root};

/// Any user of any container may write (`emptyDir` upstream; the umask has no say).
const OPEN_TO_ALL: u32 = 0o777;
/// Two pods may make the same named volume at the same moment.
const TRIES: usize = 8;

#[derive(Debug, thiserror::Error)]
pub enum EnsureError {
    #[error("failed to create volume directory `{path}`")]
    Create { path: PathBuf, source: io::Error },
    #[error("volume `{path}` exists and is not a directory")]
    NotADirectory { path: PathBuf },
    #[error("{name:?} cannot name a volume: it must be one file name")]
    Name { name: String },
    #[error(transparent)]
    FsGroup(#[from] FsGroupError),
}

/// A directory that everyone may write to (0777), handed to `fs_group` if there is one. Parents are made as needed.
///
/// It appears under its name only when it is complete, so one that exists is left as it is: its mode is by then the
/// pod's business. Only the group is looked at again, and applied if the directory itself does not show it (a
/// memory-backed volume comes into being by a mount).
pub fn ensure_empty_dir(path: &Path, fs_group: Option<&FsGroup>) -> Result<(), EnsureError> {
    if !create(path, fs_group)?
        && let Some(group) = fs_group
    {
        apply_fs_group(path, &FsGroup { on_root_mismatch: true, ..*group }, false)?;
    }
    Ok(())
}

/// The directory `<root>/<namespace>/<name>`, for data that outlives its pod: made with mode 0777 if it is new, else
/// kept as it is apart from `fs_group`, which is applied by its own policy.
pub fn ensure_named(
    root: &Path,
    namespace: &str,
    name: &str,
    fs_group: Option<&FsGroup>,
) -> Result<PathBuf, EnsureError> {
    for part in [namespace, name] {
        if matches!(part, "" | "." | "..") || part.contains(['/', '\0']) {
            return Err(EnsureError::Name { name: part.to_owned() });
        }
    }
    let path = root.join(namespace).join(name);
    if !create(&path, fs_group)?
        && let Some(group) = fs_group
    {
        apply_fs_group(&path, group, false)?;
    }
    Ok(path)
}

/// Whether the directory is new. It is prepared beside its place and renamed into it.
fn create(path: &Path, fs_group: Option<&FsGroup>) -> Result<bool, EnsureError> {
    let failed = |source: io::Error| EnsureError::Create { path: path.to_owned(), source };
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(failed(io::ErrorKind::InvalidInput.into()));
    };
    for _ in 0..TRIES {
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => return Ok(false),
            Ok(_) => return Err(EnsureError::NotADirectory { path: path.to_owned() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(failed)?;
        match create_once(parent, name, fs_group) {
            Ok(()) => return Ok(true),
            // Someone else was at it, too: look again.
            Err(Errno::EXIST | Errno::NOENT) => {}
            Err(errno) => return Err(failed(errno.into())),
        }
    }
    Err(failed(Errno::BUSY.into()))
}

fn create_once(parent: &Path, name: &OsStr, fs_group: Option<&FsGroup>) -> rustix::io::Result<()> {
    let parent = open_root(parent)?;
    let name = CString::new(name.as_bytes()).map_err(|_| Errno::INVAL)?;
    let unfinished = CString::new([b".", name.as_bytes(), b".new"].concat()).map_err(|_| Errno::INVAL)?;
    match rustix::fs::mkdirat(&parent, &unfinished, Mode::from_raw_mode(0o700)) {
        // Left by a crash.
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    let directory = open_directory(parent.as_fd(), &unfinished)?;
    rustix::fs::fchmod(&directory, Mode::from_raw_mode(OPEN_TO_ALL))?;
    if let Some(group) = fs_group {
        hand(directory.as_fd(), group.gid, false)?;
    }
    let renamed = rustix::fs::renameat_with(&parent, &unfinished, &parent, &name, RenameFlags::NOREPLACE);
    if renamed == Err(Errno::EXIST) {
        let _ = rustix::fs::unlinkat(&parent, &unfinished, AtFlags::REMOVEDIR);
    }
    renamed
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn open_to_all_whatever_the_umask_and_kept_from_then_on() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("pods/uid/volumes/data");
        ensure_empty_dir(&path, None).unwrap();
        assert_eq!(mode(&path), 0o777, "the usual umask 022 would make it 0755");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(path.join("file"), "x").unwrap();
        ensure_empty_dir(&path, None).unwrap();
        assert_eq!(mode(&path), 0o700, "the pod's own choice (postgres does this)");
        assert!(path.join("file").exists());
    }

    #[test]
    fn handed_to_the_group_new_or_found() {
        let temp = tempfile::tempdir().unwrap();
        let group = Some(&FsGroup { gid: 321, on_root_mismatch: false });
        for name in ["new", "found"] {
            let path = temp.path().join(name);
            if name == "found" {
                fs::create_dir(&path).unwrap();
            }
            ensure_empty_dir(&path, group).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().gid(), 321);
            assert_eq!(mode(&path) & 0o2770, 0o2770);
        }
    }

    #[test]
    fn a_crash_leaves_nothing_in_the_way() {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(temp.path().join(".data.new")).unwrap();
        ensure_empty_dir(&temp.path().join("data"), None).unwrap();
        assert_eq!(mode(&temp.path().join("data")), 0o777);
        assert!(!temp.path().join(".data.new").exists());
    }

    #[test]
    fn a_file_in_its_place_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("data"), "x").unwrap();
        let error = ensure_empty_dir(&temp.path().join("data"), None).unwrap_err();
        assert!(matches!(error, EnsureError::NotADirectory { .. }));
        symlink("nowhere", temp.path().join("dangling")).unwrap();
        assert!(ensure_empty_dir(&temp.path().join("dangling"), None).is_err());
    }

    #[test]
    fn a_named_volume_keeps_its_data_and_its_place() {
        let temp = tempfile::tempdir().unwrap();
        let path = ensure_named(temp.path(), "default", "claim", None).unwrap();
        assert_eq!(path, temp.path().join("default/claim"));
        assert_eq!(mode(&path), 0o777);
        fs::write(path.join("row"), "1").unwrap();
        assert_eq!(ensure_named(temp.path(), "default", "claim", None).unwrap(), path);
        assert!(path.join("row").exists());
        for (namespace, name) in [("..", "x"), ("a/b", "x"), ("default", ""), ("default", "."), ("a", "x\0y")] {
            let error = ensure_named(temp.path(), namespace, name, None).unwrap_err();
            assert!(matches!(error, EnsureError::Name { .. }), "{namespace} {name}");
        }
    }

    #[test]
    fn many_make_the_same_volume_at_once() {
        let temp = tempfile::tempdir().unwrap();
        for round in 0..20 {
            let inodes: Vec<u64> = std::thread::scope(|scope| {
                let makers: Vec<_> = (0..4)
                    .map(|_| {
                        scope.spawn(|| {
                            let path = ensure_named(temp.path(), "ns", &round.to_string(), None).unwrap();
                            fs::metadata(path).unwrap().ino()
                        })
                    })
                    .collect();
                makers.into_iter().map(|maker| maker.join().unwrap()).collect()
            });
            assert!(inodes.iter().all(|inode| *inode == inodes[0]), "all mount the same directory");
        }
    }
}
