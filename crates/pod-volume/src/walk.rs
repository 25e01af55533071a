//! One walk over a directory tree that others may be changing meanwhile: descriptors instead of paths, a constant
//! number of them open however deep the tree is, symlinks and mounts never followed.
//!
//! A container can build a tree a million levels deep and rename parts of it while it is walked. So the walk is a loop
//! and not a recursion, keeps only the names of directories still to enter, and climbs back through `..`, which it
//! trusts only if it arrives at the directory it came from.

use std::ffi::{CStr, CString, OsStr};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// One thing that could not be done, and why. `path` says where in the tree.
#[derive(Debug)]
pub struct Failure {
    pub path: PathBuf,
    pub error: io::Error,
}

/// What went wrong on a walk that went on regardless. Keeps the first [`Failures::KEPT`], counts the rest.
#[derive(Debug, Default)]
pub struct Failures {
    pub first: Vec<Failure>,
    pub count: usize,
}

/// What a walk does with each thing it meets.
pub(crate) trait Visitor {
    /// Something in the directory `at.dir`. For a directory, whether to descend into it.
    fn entry(&mut self, at: &At<'_>, kind: FileType) -> rustix::io::Result<bool>;
    /// The directory `at.name` inside `at.dir` has been walked to its end.
    fn leave(&mut self, _at: &At<'_>) -> rustix::io::Result<()> {
        Ok(())
    }
    /// Another file system is mounted here. It is never entered.
    fn mount(&mut self) -> rustix::io::Result<()> {
        Ok(())
    }
}

/// A name in an open directory.
pub(crate) struct At<'a> {
    pub(crate) dir: BorrowedFd<'a>,
    pub(crate) name: &'a CStr,
}

struct Level {
    name: CString,
    id: Id,
    pending: Vec<CString>,
}

type Id = (u64, u64);

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

impl Failures {
    /// More than a person would read.
    pub const KEPT: usize = 16;

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn push(&mut self, path: PathBuf, error: io::Error) {
        self.count += 1;
        if self.first.len() < Self::KEPT {
            self.first.push(Failure { path, error });
        }
    }
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Failure { path, error }) in self.first.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}`{}`: {error}", path.display())?;
        }
        match self.count.saturating_sub(self.first.len()) {
            0 => Ok(()),
            more => write!(f, ", and {more} more"),
        }
    }
}

impl At<'_> {
    /// Opened `O_PATH`, symlinks not followed: a hold on the thing itself, whatever happens to its name.
    pub(crate) fn hold(&self) -> rustix::io::Result<OwnedFd> {
        rustix::fs::openat(self.dir, self.name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
    }
}

/// Opens the directory a caller names. The path itself is trusted (the engine's own), so links in it are followed.
pub(crate) fn open_root(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Opens a directory inside `dir`: refuses symlinks (`ELOOP`, `ENOTDIR`) and mounts, bind mounts included (`EXDEV`).
pub(crate) fn open_directory(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let within = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    loop {
        match rustix::fs::openat2(dir, name, DIRECTORY, Mode::empty(), within) {
            Err(Errno::INTR | Errno::AGAIN) => {}
            result => return result,
        }
    }
}

/// It is gone, or something else by now: what happens to a tree in use, no failure.
pub(crate) fn vanished(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
}

/// Shows everything below `root` to `visitor`, contents before the directory that holds them is left. `path` is only
/// for messages. The root itself is neither shown nor left.
pub(crate) fn walk(root: BorrowedFd<'_>, path: &Path, visitor: &mut dyn Visitor) -> Failures {
    let mut failures = Failures::default();
    if let Err(errno) = descend(root, path, visitor, &mut failures) {
        failures.push(path.to_owned(), errno.into());
    }
    failures
}

fn descend(
    root: BorrowedFd<'_>,
    path: &Path,
    visitor: &mut dyn Visitor,
    failures: &mut Failures,
) -> rustix::io::Result<()> {
    let mut current = open_directory(root, c".")?;
    let mut levels = vec![Level { name: CString::default(), id: id(current.as_fd())?, pending: Vec::new() }];
    levels[0].pending = scan(current.as_fd(), &levels, path, visitor, failures);
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.pending.pop() {
            let opened = open_directory(current.as_fd(), &name).and_then(|next| Ok((id(next.as_fd())?, next)));
            match opened {
                Ok((id, next)) => {
                    levels.push(Level { name, id, pending: Vec::new() });
                    let pending = scan(next.as_fd(), &levels, path, visitor, failures);
                    levels.last_mut().expect("just pushed").pending = pending;
                    current = next;
                }
                Err(errno) if vanished(errno) => {}
                Err(errno) => {
                    let outcome = if errno == Errno::XDEV { visitor.mount() } else { Err(errno) };
                    note(outcome, &levels, &name, path, failures);
                }
            }
            continue;
        }
        let Some(done) = levels.pop().filter(|_| !levels.is_empty()) else { break };
        let (parent, lost) = climb(root, current, &mut levels);
        current = parent;
        if lost {
            failures.push(place(&levels, &done.name, path), io::Error::other("moved while it was being walked"));
        } else {
            let at = At { dir: current.as_fd(), name: &done.name };
            note(visitor.leave(&at), &levels, &done.name, path, failures);
        }
    }
    Ok(())
}

/// Shows every entry of one directory and returns the names of the directories to enter.
fn scan(
    dir: BorrowedFd<'_>,
    levels: &[Level],
    path: &Path,
    visitor: &mut dyn Visitor,
    failures: &mut Failures,
) -> Vec<CString> {
    let mut pending = Vec::new();
    let entries = match Dir::read_from(dir) {
        Ok(entries) => entries,
        Err(errno) => {
            note(Err(errno), levels, c"", path, failures);
            return pending;
        }
    };
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            Err(errno) => {
                // A directory removed under us ends here; any other error would repeat for ever.
                note(Err(errno), levels, c"", path, failures);
                break;
            }
        };
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let kind = match entry.file_type() {
            // Some file systems do not tell.
            FileType::Unknown => rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
                .map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode)),
            kind => kind,
        };
        match visitor.entry(&At { dir, name }, kind) {
            Ok(true) if kind == FileType::Directory => pending.push(name.to_owned()),
            outcome => note(outcome.map(drop), levels, name, path, failures),
        }
    }
    pending
}

/// From a directory up to the one above, which is the last of `levels`. If it was moved meanwhile, from the root down
/// again along the names, giving up levels that no longer lead there: then the second value is true.
fn climb(root: BorrowedFd<'_>, current: OwnedFd, levels: &mut Vec<Level>) -> (OwnedFd, bool) {
    let expected = levels.last().map(|level| level.id);
    if let Ok(parent) = open_directory(current.as_fd(), c"..")
        && id(parent.as_fd()).ok() == expected
    {
        return (parent, false);
    }
    let mut reached = current;
    let mut depth = 0;
    for (index, level) in levels.iter().enumerate() {
        let next = if index == 0 { open_directory(root, c".") } else { open_directory(reached.as_fd(), &level.name) };
        match next {
            Ok(next) if id(next.as_fd()).is_ok_and(|found| found == level.id) => reached = next,
            _ => break,
        }
        depth = index + 1;
    }
    let lost = depth < levels.len();
    // The root always leads to itself; should even that fail, nothing is left to walk.
    levels.truncate(depth);
    (reached, lost)
}

fn id(fd: BorrowedFd<'_>) -> rustix::io::Result<Id> {
    let stat = rustix::fs::fstat(fd)?;
    Ok((stat.st_dev, stat.st_ino))
}

fn note(outcome: rustix::io::Result<()>, levels: &[Level], name: &CStr, path: &Path, failures: &mut Failures) {
    match outcome {
        Err(errno) if !vanished(errno) => failures.push(place(levels, name, path), errno.into()),
        _ => {}
    }
}

/// The path of `name` in the last of `levels`, for a message; the middle of an absurdly deep one is left out.
fn place(levels: &[Level], name: &CStr, path: &Path) -> PathBuf {
    const SHOWN: usize = 32;
    let mut place = path.to_owned();
    for level in levels.iter().skip(1).take(SHOWN) {
        place.push(OsStr::from_bytes(level.name.to_bytes()));
    }
    if levels.len() > SHOWN + 1 {
        place.push("…");
    }
    if !name.is_empty() {
        place.push(OsStr::from_bytes(name.to_bytes()));
    }
    place
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::*;

    /// Notes every name, and renames things when it sees `trigger`.
    struct Mover<'a> {
        seen: BTreeSet<String>,
        moves: &'a [(PathBuf, PathBuf)],
    }

    impl Visitor for Mover<'_> {
        fn entry(&mut self, at: &At<'_>, _: FileType) -> rustix::io::Result<bool> {
            if at.name == c"trigger" {
                for (from, to) in self.moves {
                    fs::rename(from, to).unwrap();
                }
            }
            self.seen.insert(at.name.to_str().unwrap().to_owned());
            Ok(true)
        }
    }

    fn walked(temp: &Path, moves: &[(&str, &str)]) -> (BTreeSet<String>, Failures) {
        let root = temp.join("root");
        fs::create_dir_all(root.join("a/b/c")).unwrap();
        fs::write(root.join("a/b/c/trigger"), "").unwrap();
        for index in 0..10 {
            fs::create_dir(root.join(format!("sibling-{index}"))).unwrap();
            fs::write(root.join(format!("sibling-{index}/leaf-{index}")), "").unwrap();
        }
        let moves: Vec<_> = moves.iter().map(|(from, to)| (temp.join(from), temp.join(to))).collect();
        let mut mover = Mover { seen: BTreeSet::new(), moves: &moves };
        let failures = walk(open_root(&root).unwrap().as_fd(), &root, &mut mover);
        (mover.seen, failures)
    }

    #[test]
    fn a_directory_moved_during_the_walk_does_not_lead_out_of_the_tree() {
        // Its `..` now is a directory full of what is none of the walk's business.
        for moves in [vec![("root/a/b", "outside/b")], vec![("root/a", "outside/a")]] {
            let temp = tempfile::tempdir().unwrap();
            fs::create_dir_all(temp.path().join("outside/secret")).unwrap();
            let (seen, _) = walked(temp.path(), &moves);
            assert!(!seen.contains("secret"), "{seen:?}");
            assert!((0..10).all(|index| seen.contains(&format!("leaf-{index}"))), "the rest is walked: {seen:?}");
        }
    }

    #[test]
    fn a_branch_lost_during_the_walk_is_told() {
        let temp = tempfile::tempdir().unwrap();
        let (seen, failures) = walked(temp.path(), &[("root/a/b", "b"), ("root/a", "a")]);
        assert_eq!(failures.count, 1, "{failures}");
        assert!(failures.to_string().ends_with("/root/b`: moved while it was being walked"), "{failures}");
        assert!(seen.contains("leaf-9"));
    }
}
