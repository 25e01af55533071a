//! A file or directory of the host in a pod.

use std::fmt;
use std::fs::{self, DirBuilder, FileType, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

/// What must be at the path (`hostPath.type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostPathKind {
    /// Anything. If there is nothing, a directory is made, as container runtimes do for a missing mount source.
    Unset,
    DirectoryOrCreate,
    Directory,
    FileOrCreate,
    File,
    Socket,
    CharDevice,
    BlockDevice,
}

/// The texts are the ones people search for.
#[derive(Debug, thiserror::Error)]
pub enum HostPathError {
    #[error("invalid HostPath `{path}`: must not contain '..'")]
    Backsteps { path: PathBuf },
    #[error("invalid HostPath `{path}`: must be an absolute path")]
    Relative { path: PathBuf },
    #[error("hostPath type check failed: {path} is not a {kind}")]
    Mismatch { path: PathBuf, kind: HostPathKind },
    #[error("failed to create hostPath {kind} `{path}`")]
    Create { path: PathBuf, kind: HostPathKind, source: io::Error },
    #[error("failed to look at hostPath `{path}`")]
    Inspect { path: PathBuf, source: io::Error },
}

/// Checks that `path` is what the pod expects, and makes it where the kind says so: directories with their parents and
/// mode 0755, files empty with mode 0644 and only in a directory that exists. Symlinks on the host are followed.
pub fn ensure_host_path(path: &Path, kind: HostPathKind) -> Result<(), HostPathError> {
    if !path.is_absolute() {
        return Err(HostPathError::Relative { path: path.to_owned() });
    }
    if path.components().any(|component| component == Component::ParentDir) {
        return Err(HostPathError::Backsteps { path: path.to_owned() });
    }
    match fs::metadata(path) {
        Ok(metadata) if kind.admits(metadata.file_type()) => Ok(()),
        Ok(_) => Err(HostPathError::Mismatch { path: path.to_owned(), kind }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let created = match kind {
                HostPathKind::Unset | HostPathKind::DirectoryOrCreate => create_directory(path),
                HostPathKind::FileOrCreate => create_file(path),
                _ => return Err(HostPathError::Mismatch { path: path.to_owned(), kind }),
            };
            created.map_err(|source| HostPathError::Create { path: path.to_owned(), kind, source })
        }
        Err(source) => Err(HostPathError::Inspect { path: path.to_owned(), source }),
    }
}

impl HostPathKind {
    fn admits(self, found: FileType) -> bool {
        match self {
            HostPathKind::Unset => true,
            HostPathKind::DirectoryOrCreate | HostPathKind::Directory => found.is_dir(),
            HostPathKind::FileOrCreate | HostPathKind::File => found.is_file(),
            HostPathKind::Socket => found.is_socket(),
            HostPathKind::CharDevice => found.is_char_device(),
            HostPathKind::BlockDevice => found.is_block_device(),
        }
    }
}

impl fmt::Display for HostPathKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HostPathKind::Unset | HostPathKind::DirectoryOrCreate | HostPathKind::Directory => "directory",
            HostPathKind::FileOrCreate | HostPathKind::File => "file",
            HostPathKind::Socket => "socket file",
            HostPathKind::CharDevice => "character device",
            HostPathKind::BlockDevice => "block device",
        })
    }
}

fn create_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o755))
}

fn create_file(path: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o644).open(path) {
        Ok(file) => file.set_permissions(Permissions::from_mode(0o644)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn every_kind_admits_its_own_and_refuses_the_rest() {
        let temp = tempfile::tempdir().unwrap();
        let (dir, file, socket) = (temp.path().join("dir"), temp.path().join("file"), temp.path().join("socket"));
        let block = temp.path().join("block");
        fs::create_dir(&dir).unwrap();
        fs::write(&file, "").unwrap();
        let _listener = UnixListener::bind(&socket).unwrap();
        let node = rustix::fs::makedev(7, 250);
        rustix::fs::mknodat(rustix::fs::CWD, &block, rustix::fs::FileType::BlockDevice, rustix::fs::Mode::RUSR, node)
            .unwrap();
        let things = [&dir, &file, &socket, Path::new("/dev/null"), &block];
        let table = [
            (HostPathKind::Directory, 0, "directory"),
            (HostPathKind::DirectoryOrCreate, 0, "directory"),
            (HostPathKind::File, 1, "file"),
            (HostPathKind::FileOrCreate, 1, "file"),
            (HostPathKind::Socket, 2, "socket file"),
            (HostPathKind::CharDevice, 3, "character device"),
            (HostPathKind::BlockDevice, 4, "block device"),
        ];
        for (kind, own, text) in table {
            for (index, thing) in things.iter().enumerate() {
                let result = ensure_host_path(thing, kind);
                if index == own {
                    result.unwrap();
                } else {
                    let expected = format!("hostPath type check failed: {} is not a {text}", thing.display());
                    assert_eq!(result.unwrap_err().to_string(), expected);
                }
            }
        }
        for thing in things {
            ensure_host_path(thing, HostPathKind::Unset).unwrap();
        }
    }

    #[test]
    fn makes_what_may_be_made() {
        let temp = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        let dir = temp.path().join("a/b");
        ensure_host_path(&dir, HostPathKind::DirectoryOrCreate).unwrap();
        assert_eq!(mode(&dir), 0o755);
        ensure_host_path(&dir.join("file"), HostPathKind::FileOrCreate).unwrap();
        assert_eq!(mode(&dir.join("file")), 0o644);
        ensure_host_path(&temp.path().join("unset"), HostPathKind::Unset).unwrap();
        assert!(temp.path().join("unset").is_dir());
        let orphan = temp.path().join("no/such/file");
        let error = ensure_host_path(&orphan, HostPathKind::FileOrCreate).unwrap_err();
        assert_eq!(error.to_string(), format!("failed to create hostPath file `{}`", orphan.display()));
        assert!(!temp.path().join("no").exists());
        for kind in [HostPathKind::Directory, HostPathKind::File, HostPathKind::Socket] {
            let error = ensure_host_path(Path::new("/nonexistent"), kind).unwrap_err();
            assert_eq!(error.to_string(), format!("hostPath type check failed: /nonexistent is not a {kind}"));
        }
    }

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        for (path, text) in [
            ("/var/../etc", "invalid HostPath `/var/../etc`: must not contain '..'"),
            ("etc", "invalid HostPath `etc`: must be an absolute path"),
        ] {
            assert_eq!(ensure_host_path(Path::new(path), HostPathKind::Unset).unwrap_err().to_string(), text);
        }
    }
}
