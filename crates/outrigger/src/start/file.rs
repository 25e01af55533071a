//! The kubeconfig as a file: found as kubectl finds it, locked as kubectl locks it, replaced as a whole, and left with its
//! owner.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::kubeconfig::EditError;

/// kubectl holds its lock for as long as writing a file takes.
const PATIENCE: Duration = Duration::from_secs(2);
/// In the node's directory: the files that its entries were put into.
const MEMORY: &str = "kubeconfigs";

#[derive(Debug)]
pub(crate) struct Kubeconfig {
    path: PathBuf,
}

/// Why the file stayed as it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("failed to read it")]
    Read(#[source] io::Error),
    #[error("failed to write it")]
    Write(#[source] io::Error),
    #[error("somebody else is writing it (if nobody is, remove `{0}`)")]
    Locked(PathBuf),
    #[error(transparent)]
    Edit(#[from] EditError),
}

impl Kubeconfig {
    pub(crate) fn at(path: &Path) -> anyhow::Result<Self> {
        let path = std::path::absolute(path).with_context(|| format!("failed to find `{}`", path.display()))?;
        // What the file is a link to is changed, not the link.
        Ok(Self { path: std::fs::canonicalize(&path).unwrap_or(path) })
    }

    /// The first of `KUBECONFIG`, or `~/.kube/config`.
    pub(crate) fn of_environment() -> anyhow::Result<Self> {
        let listed = std::env::var_os("KUBECONFIG").unwrap_or_default();
        let first = std::env::split_paths(&listed).find(|path| !path.as_os_str().is_empty());
        match first {
            Some(path) => Self::at(&path),
            None => {
                let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
                let home =
                    home.context("neither KUBECONFIG nor HOME says where the kubeconfig is (--kubeconfig FILE does)")?;
                Self::at(&Path::new(&home).join(".kube/config"))
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the text by what `edit` makes of it; returns the text before. A file that is not there is empty.
    pub(crate) fn edit(&self, edit: impl Fn(&str) -> Result<String, EditError>) -> Result<String, FileError> {
        if let Some(directory) = self.path.parent() {
            std::fs::DirBuilder::recursive(&mut builder(), true).create(directory).map_err(FileError::Write)?;
        }
        let _lock = Lock::take(&self.path)?;
        let before = match std::fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(FileError::Read(error)),
        };
        let after = edit(&before)?;
        if after != before {
            self.replace(&after).map_err(FileError::Write)?;
        }
        Ok(before)
    }

    /// A name in the same directory, then a rename: nobody ever sees half of it.
    fn replace(&self, text: &str) -> io::Result<()> {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".outrigger-{}", std::process::id()));
        let temporary = self.path.with_file_name(name);
        let _ = std::fs::remove_file(&temporary);
        let write = || -> io::Result<()> {
            let mut file = File::options().create_new(true).write(true).mode(0o600).open(&temporary)?;
            file.write_all(text.as_bytes())?;
            // Of whom the file was; a new one is the directory's owner's (a person who ran this as root).
            let owner = std::fs::metadata(&self.path)
                .or_else(|_| std::fs::metadata(self.path.parent().unwrap_or(Path::new("/"))))?;
            std::os::unix::fs::fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
            file.sync_all()?;
            std::fs::rename(&temporary, &self.path)
        };
        write().inspect_err(|_| {
            let _ = std::fs::remove_file(&temporary);
        })
    }

    /// For the day it is to be forgotten.
    pub(crate) fn remember(&self, directory: &Path) {
        let known = Self::remembered(directory);
        if known.iter().any(|known| known.path == self.path) {
            return;
        }
        let lines: Vec<String> =
            known.iter().chain([self]).map(|file| file.path.display().to_string() + "\n").collect();
        // Without it the entries stay when the node is cleaned away; that is all.
        let _ = std::fs::write(directory.join(MEMORY), lines.concat());
    }

    pub(crate) fn remembered(directory: &Path) -> Vec<Self> {
        let text = std::fs::read_to_string(directory.join(MEMORY)).unwrap_or_default();
        text.lines().map(|line| Self { path: line.into() }).filter(|file| file.path.exists()).collect()
    }
}

fn builder() -> std::fs::DirBuilder {
    let mut builder = std::fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o755);
    builder
}

/// `FILE.lock`, made by one and refused to the others (client-go `tools/clientcmd/config.go` lockFile).
struct Lock(PathBuf);

impl Lock {
    fn take(path: &Path) -> Result<Self, FileError> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".lock");
        let lock = path.with_file_name(name);
        let deadline = Instant::now() + PATIENCE;
        loop {
            match File::options().create_new(true).write(true).mode(0o600).open(&lock) {
                Ok(_) => return Ok(Self(lock)),
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(FileError::Write(error)),
                Err(_) if Instant::now() > deadline => return Err(FileError::Locked(lock)),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_through_links() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real");
        std::fs::write(&real, "a").unwrap();
        std::os::unix::fs::symlink(&real, dir.path().join("link")).unwrap();
        let file = Kubeconfig::at(&dir.path().join("link")).unwrap();
        assert_eq!(file.edit(|text| Ok(format!("{text}b"))).unwrap(), "a");
        assert_eq!(std::fs::read_to_string(&real).unwrap(), "ab");
        assert_eq!(std::fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(dir.path().join("link").is_symlink());
        let refused = file.edit(|_| Err(EditError::Style("x"))).unwrap_err();
        assert!(matches!(refused, FileError::Edit(_)));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "no lock and no temporary file is left");
    }

    #[test]
    fn a_lock_is_respected() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.lock"), "").unwrap();
        let file = Kubeconfig::at(&dir.path().join("config")).unwrap();
        assert!(matches!(file.edit(|_| Ok("x".into())), Err(FileError::Locked(_))));
        assert!(!dir.path().join("config").exists());
    }

    #[test]
    fn files_are_remembered_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        std::fs::write(&path, "").unwrap();
        for _ in 0..2 {
            Kubeconfig::at(&path).unwrap().remember(dir.path());
        }
        assert_eq!(Kubeconfig::remembered(dir.path()).len(), 1);
    }
}
