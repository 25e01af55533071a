//! Removing what a pod left behind.

use std::ffi::CString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use crate::walk::{At, Failures, Visitor, open_directory, open_root, vanished, walk};

/// A writer that is just being killed can put files back behind the walk a few times.
const PASSES: usize = 4;

#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    #[error("cannot remove `{path}`: not a name in a directory")]
    NoName { path: PathBuf },
    #[error("failed to open the directory of `{path}`")]
    Open { path: PathBuf, source: io::Error },
    /// Everything else is gone.
    #[error("failed to remove all of `{path}`: {failures}")]
    Entries { path: PathBuf, failures: Failures },
}

/// Removes a file, a symlink or a directory with all it holds. Follows no symlink and enters no mount (a mount in the
/// tree is a failure, its contents stay). Goes on after a failure and reports all of them; what is already gone is
/// fine.
pub fn remove_tree(path: &Path) -> Result<(), RemoveError> {
    let no_name = || RemoveError::NoName { path: path.to_owned() };
    let name = path.file_name().and_then(|name| CString::new(name.as_bytes()).ok()).ok_or_else(no_name)?;
    let parent_path = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let parent = match open_root(parent_path) {
        Ok(parent) => parent,
        Err(errno) if vanished(errno) => return Ok(()),
        Err(errno) => return Err(RemoveError::Open { path: path.to_owned(), source: errno.into() }),
    };
    let at = At { dir: parent.as_fd(), name: &name };
    let mut failures = Failures::default();
    for _ in 0..PASSES {
        failures = remove_once(&at, path);
        let refilled = |failure: &crate::Failure| failure.error.raw_os_error() == Some(Errno::NOTEMPTY.raw_os_error());
        if failures.is_empty() {
            return Ok(());
        }
        if !failures.first.iter().all(refilled) {
            break;
        }
    }
    Err(RemoveError::Entries { path: path.to_owned(), failures })
}

fn remove_once(at: &At<'_>, path: &Path) -> Failures {
    let mut failures = Failures::default();
    let errno = match rustix::fs::unlinkat(at.dir, at.name, AtFlags::empty()) {
        Ok(()) => return failures,
        Err(errno) if errno == Errno::NOENT => return failures,
        Err(errno) => errno,
    };
    // unlink(2) of a directory: EISDIR on Linux, EPERM by POSIX (and some file systems).
    if !matches!(errno, Errno::ISDIR | Errno::PERM) {
        failures.push(path.to_owned(), errno.into());
        return failures;
    }
    match open_directory(at.dir, at.name) {
        Ok(directory) => failures = walk(directory.as_fd(), path, &mut Remove::default()),
        Err(errno) if errno == Errno::NOENT => return failures,
        Err(Errno::XDEV) => {
            failures.push(path.to_owned(), Errno::BUSY.into());
            return failures;
        }
        // Not a directory after all: unlink's own answer is the true one.
        Err(_) => {
            failures.push(path.to_owned(), errno.into());
            return failures;
        }
    }
    if failures.is_empty()
        && let Err(errno) = Remove::default().leave(at)
        && !vanished(errno)
    {
        failures.push(path.to_owned(), errno.into());
    }
    failures
}

#[derive(Default)]
struct Remove {
    /// Something stays, so the directories above it stay too: that is no news.
    stays: bool,
}

impl Visitor for Remove {
    fn entry(&mut self, at: &At<'_>, kind: FileType) -> rustix::io::Result<bool> {
        if kind == FileType::Directory {
            return Ok(true);
        }
        let removed = rustix::fs::unlinkat(at.dir, at.name, AtFlags::empty());
        self.stays |= removed.is_err_and(|errno| !vanished(errno));
        removed.map(|()| false)
    }

    fn leave(&mut self, at: &At<'_>) -> rustix::io::Result<()> {
        match rustix::fs::unlinkat(at.dir, at.name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY) if self.stays => Ok(()),
            result => result,
        }
    }

    fn mount(&mut self) -> rustix::io::Result<()> {
        self.stays = true;
        Err(Errno::BUSY)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn removes_trees_files_links_and_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let tree = temp.path().join("tree");
        fs::create_dir_all(tree.join("a/b/c")).unwrap();
        fs::write(tree.join("a/b/file"), "x").unwrap();
        fs::write(temp.path().join("kept"), "x").unwrap();
        symlink(temp.path().join("kept"), tree.join("a/link")).unwrap();
        symlink(temp.path(), tree.join("up")).unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists() && temp.path().join("kept").exists());
        remove_tree(&tree).unwrap();
        remove_tree(Path::new("/nonexistent/deeper")).unwrap();
        symlink(temp.path(), temp.path().join("self")).unwrap();
        remove_tree(&temp.path().join("self")).unwrap();
        assert!(temp.path().join("kept").exists(), "a link is removed, not what it names");
        remove_tree(&temp.path().join("kept")).unwrap();
        assert!(matches!(remove_tree(Path::new("/")), Err(RemoveError::NoName { .. })));
    }

    #[test]
    fn a_tree_deeper_than_descriptors_and_path_length_allow() {
        let temp = tempfile::tempdir().unwrap();
        let tree = temp.path().join("deep");
        fs::create_dir(&tree).unwrap();
        let mut dir = open_root(&tree).unwrap();
        for _ in 0..5000 {
            rustix::fs::mkdirat(&dir, "level", rustix::fs::Mode::RWXU).unwrap();
            dir = open_directory(dir.as_fd(), c"level").unwrap();
        }
        assert!(crate::usage(&tree).unwrap() < u64::MAX);
        crate::apply_fs_group(&tree, &crate::FsGroup { gid: 5, on_root_mismatch: false }, false).unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
    }

    /// Unmounts also when the test fails.
    struct Mounted(PathBuf);

    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
        }
    }

    #[test]
    fn a_mount_in_the_tree_is_neither_emptied_nor_counted() {
        let temp = tempfile::tempdir().unwrap();
        let (tree, precious) = (temp.path().join("tree"), temp.path().join("precious"));
        fs::create_dir_all(tree.join("a/mounted")).unwrap();
        fs::create_dir(&precious).unwrap();
        fs::write(precious.join("data"), vec![1; 1 << 20]).unwrap();
        fs::write(tree.join("a/file"), "x").unwrap();
        // Of the same file system: a comparison of device numbers would not notice.
        rustix::mount::mount_bind(&precious, tree.join("a/mounted")).unwrap();
        let mounted = Mounted(tree.join("a/mounted"));
        assert!(crate::usage(&tree).unwrap() < 1 << 20);
        let error = remove_tree(&tree).unwrap_err();
        let tree_text = tree.display();
        assert_eq!(
            error.to_string(),
            format!(
                "failed to remove all of `{tree_text}`: `{tree_text}/a/mounted`: Device or resource busy (os error 16)"
            )
        );
        assert!(precious.join("data").exists() && !tree.join("a/file").exists());
        drop(mounted);
        remove_tree(&tree).unwrap();
        assert!(precious.join("data").exists() && !tree.exists());
    }

    #[test]
    fn a_tree_someone_still_writes_into() {
        let temp = tempfile::tempdir().unwrap();
        let tree = temp.path().join("tree");
        fs::create_dir_all(tree.join("sub")).unwrap();
        let writer = std::thread::spawn({
            let tree = tree.clone();
            move || {
                for index in 0..300 {
                    let _ = fs::write(tree.join("sub").join(index.to_string()), "x");
                }
            }
        });
        // Either it wins, or it says what was put back.
        if let Err(error) = remove_tree(&tree) {
            assert!(matches!(error, RemoveError::Entries { .. }), "{error}");
        }
        writer.join().unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
    }
}
