//! How much of the disk (or memory) a volume takes up: the measure behind `sizeLimit` and ephemeral-storage eviction.

use std::collections::HashSet;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType};

use crate::walk::{At, Visitor, open_root, vanished, walk};

/// The unit of `st_blocks`, whatever the file system's block size (stat(3type)).
const BLOCK: u64 = 512;

/// Bytes allocated below `dir`, directories included: a sparse file counts what it occupies, a file with many names
/// once. Does not leave the file system, follows no symlink, and does not mind files that vanish on the way.
///
/// What cannot be read is not counted; only `dir` itself must be readable.
pub fn usage(dir: &Path) -> io::Result<u64> {
    let root = open_root(dir)?;
    let stat = rustix::fs::fstat(&root)?;
    let mut sum = Sum { device: stat.st_dev, bytes: blocks(stat.st_blocks), counted: HashSet::new() };
    walk(root.as_fd(), dir, &mut sum);
    Ok(sum.bytes)
}

struct Sum {
    device: u64,
    bytes: u64,
    /// Inodes with several names.
    counted: HashSet<u64>,
}

impl Visitor for Sum {
    fn entry(&mut self, at: &At<'_>, kind: FileType) -> rustix::io::Result<bool> {
        let stat = match rustix::fs::statat(at.dir, at.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(errno) if vanished(errno) => return Ok(false),
            Err(errno) => return Err(errno),
        };
        if stat.st_dev != self.device {
            return Ok(false);
        }
        let is_directory = kind == FileType::Directory;
        if is_directory || stat.st_nlink < 2 || self.counted.insert(stat.st_ino) {
            self.bytes = self.bytes.saturating_add(blocks(stat.st_blocks));
        }
        Ok(is_directory)
    }
}

fn blocks(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0).saturating_mul(BLOCK)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn counts_blocks_not_lengths_and_each_inode_once() {
        let temp = tempfile::tempdir().unwrap();
        let empty = usage(temp.path()).unwrap();
        fs::create_dir(temp.path().join("sub")).unwrap();
        fs::write(temp.path().join("sub/data"), vec![1; 3 << 20]).unwrap();
        fs::hard_link(temp.path().join("sub/data"), temp.path().join("again")).unwrap();
        fs::File::create(temp.path().join("sparse")).unwrap().set_len(1 << 40).unwrap();
        symlink("/usr", temp.path().join("link")).unwrap();
        let grown = usage(temp.path()).unwrap() - empty;
        assert!((3 * MIB..4 * MIB).contains(&grown), "{grown}");
    }

    #[test]
    fn tolerates_files_that_vanish() {
        let temp = tempfile::tempdir().unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    for index in 0..20 {
                        let dir = temp.path().join(index.to_string());
                        fs::create_dir_all(dir.join("deep/er")).unwrap();
                        fs::write(dir.join("deep/er/file"), "x").unwrap();
                    }
                    for index in 0..20 {
                        fs::remove_dir_all(temp.path().join(index.to_string())).unwrap();
                    }
                }
            });
            for _ in 0..100 {
                usage(temp.path()).unwrap();
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }

    #[test]
    fn a_missing_directory_is_an_error() {
        assert_eq!(usage(Path::new("/nonexistent")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
