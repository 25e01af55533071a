//! Files that change all at once, in the layout Kubernetes gives its configMap, secret, downward and projected volumes:
//!
//! ```text
//! ..2026_01_31_12_00_00.1234567890/    the files
//! ..data    -> ..2026_01_31_12_00_00.1234567890
//! app.yaml  -> ..data/app.yaml         what people open
//! certs     -> ..data/certs
//! ```
//!
//! A change is one rename over `..data`, which is also what reloaders watch. New names are linked before it and stale
//! ones removed after it: at every instant the names that resolve are exactly the old files or exactly the new ones.
//! A crash in between leaves links to nothing or a spare directory, and the next write clears them away. Nothing is
//! synced to disk: after a power failure the pod's volumes are written again, and what differs is replaced.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown, symlink};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::rand::GetRandomFlags;

use crate::fs_group::{group_bits, hand};
use crate::walk::open_root;
use crate::{EnsureError, FsGroup, RemoveError, ensure_empty_dir, remove_tree};

#[cfg(test)]
mod tests;

const DATA: &str = "..data";
const DATA_NEXT: &str = "..data_tmp";
/// NAME_MAX and PATH_MAX of Linux (limits.h).
const NAME_MAX: usize = 255;
const PATH_MAX: usize = 4096;

/// One file to be shown in the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileEntry<'a> {
    /// Relative to the volume; directories on the way are made with mode 0755.
    pub path: &'a str,
    /// Permission bits, whatever the umask.
    pub mode: u32,
    pub data: &'a [u8],
}

/// Whether anything was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changed(pub bool);

#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("invalid path {path:?}: {problem}")]
    Path { path: String, problem: &'static str },
    #[error("failed to {action} `{path}`")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    Directory(#[from] EnsureError),
    /// The new files are in place.
    #[error("failed to clear away old files")]
    Leftover(#[source] RemoveError),
}

/// Makes `dir` show exactly `files`; it is made if there is none. Writes nothing if it already does (contents, modes,
/// group). The group of `fs_group` may read everything whatever the modes say, and write nothing: such volumes are
/// mounted read-only. Two writers of one directory must not run at the same time.
pub fn write_atomic(dir: &Path, files: &[FileEntry<'_>], fs_group: Option<&FsGroup>) -> Result<Changed, WriteError> {
    Writer { dir, gid: fs_group.map(|group| group.gid), step: &mut |_| {} }.write(files)
}

/// Paths, cleaned of `.` and doubled slashes, in order.
type Tree<'a> = BTreeMap<PathBuf, FileEntry<'a>>;

struct Writer<'a> {
    dir: &'a Path,
    gid: Option<u32>,
    /// Told before everything that changes the disk; a test crashes here.
    step: &'a mut dyn FnMut(&'static str),
}

impl Writer<'_> {
    fn write(&mut self, files: &[FileEntry<'_>]) -> Result<Changed, WriteError> {
        let tree = checked(files)?;
        let names: BTreeSet<OsString> = tree.keys().filter_map(|path| first_name(path)).collect();
        ensure_empty_dir(self.dir, None)?;
        self.open_to_group()?;
        let current = self.current()?;
        if let Some(current) = &current
            && self.shows(&self.dir.join(current), &tree)
        {
            self.link(&names)?;
            self.clear(&names, Some(current))?;
            return Ok(Changed(false));
        }
        let next = timestamped(SystemTime::now());
        let written = self.fill(&next, &tree).and_then(|()| self.link(&names)).and_then(|()| self.swap(&next));
        if let Err(error) = written {
            // Back to what was, as well as it goes: the error to tell is the first one.
            let before = current.as_ref().and_then(|current| names_in(&self.dir.join(current)).ok());
            let _ = self.clear(&before.unwrap_or_default(), current.as_ref());
            return Err(error);
        }
        self.clear(&names, Some(&next))?;
        Ok(Changed(true))
    }

    /// The directory that `..data` points to.
    fn current(&self) -> Result<Option<OsString>, WriteError> {
        let link = self.dir.join(DATA);
        match fs::read_link(&link) {
            Ok(target) => Ok(target.file_name().filter(|name| target.as_os_str() == *name).map(OsString::from)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(WriteError::Io { action: "read link", path: link, source }),
        }
    }

    /// Writes all files into a new directory, which nobody sees yet.
    fn fill(&mut self, name: &OsString, tree: &Tree<'_>) -> Result<(), WriteError> {
        let top = self.dir.join(name);
        self.make_directory(&top)?;
        let mut made = BTreeSet::new();
        for (path, entry) in tree {
            let mut parents: Vec<&Path> = path.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty()).collect();
            parents.reverse();
            for parent in parents {
                if made.insert(parent.to_owned()) {
                    self.make_directory(&top.join(parent))?;
                }
            }
            let path = top.join(path);
            self.make_file(&path, entry).map_err(failed("write", &path))?;
        }
        Ok(())
    }

    fn make_directory(&mut self, path: &Path) -> Result<(), WriteError> {
        (self.step)("make directory");
        DirBuilder::new().mode(0o755).create(path).map_err(failed("make directory", path))?;
        (self.step)("own directory");
        std::os::unix::fs::chown(path, None, self.gid).map_err(failed("own", path))?;
        (self.step)("open directory to all");
        fs::set_permissions(path, Permissions::from_mode(self.directory_mode())).map_err(failed("set mode of", path))
    }

    fn make_file(&mut self, path: &Path, entry: &FileEntry<'_>) -> io::Result<()> {
        (self.step)("make file");
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        // In two halves, so that a crash test sees a torn file.
        let (head, tail) = entry.data.split_at(entry.data.len() / 2);
        file.write_all(head)?;
        (self.step)("write file");
        file.write_all(tail)?;
        (self.step)("own file");
        fchown(&file, None, self.gid)?;
        (self.step)("set mode of file");
        // Last: a change of owner takes away setuid.
        file.set_permissions(Permissions::from_mode(self.file_mode(entry)))
    }

    /// Makes every visible name a link into `..data`.
    fn link(&mut self, names: &BTreeSet<OsString>) -> Result<(), WriteError> {
        for name in names {
            let visible = self.dir.join(name);
            let target = Path::new(DATA).join(name);
            match fs::read_link(&visible) {
                Ok(found) if found == target => continue,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // Something that is no link stands there. A volume of this kind holds nothing else.
                Err(_) => {
                    (self.step)("remove a foreign entry");
                    remove_tree(&visible).map_err(WriteError::Leftover)?;
                }
            }
            self.replace_link(&target, &visible)?;
        }
        Ok(())
    }

    fn swap(&mut self, next: &OsString) -> Result<(), WriteError> {
        self.replace_link(Path::new(next), &self.dir.join(DATA))
    }

    /// A link appears under its name at once, whatever was there.
    fn replace_link(&mut self, target: &Path, link: &Path) -> Result<(), WriteError> {
        let unfinished = self.dir.join(DATA_NEXT);
        (self.step)("remove an unfinished link");
        remove_tree(&unfinished).map_err(WriteError::Leftover)?;
        (self.step)("make link");
        symlink(target, &unfinished).map_err(failed("make link", &unfinished))?;
        (self.step)("rename link");
        fs::rename(&unfinished, link).map_err(failed("rename a link to", link))
    }

    /// Removes links to names that are no more and every directory but the current one.
    fn clear(&mut self, names: &BTreeSet<OsString>, current: Option<&OsString>) -> Result<(), WriteError> {
        for name in names_in(self.dir).map_err(failed("list", self.dir))? {
            let path = self.dir.join(&name);
            let keep = if name.as_encoded_bytes().starts_with(b"..") {
                (name == DATA && current.is_some()) || Some(&name) == current
            } else {
                names.contains(&name) || !fs::read_link(&path).is_ok_and(|target| target.starts_with(DATA))
            };
            if !keep {
                (self.step)("clear");
                remove_tree(&path).map_err(WriteError::Leftover)?;
            }
        }
        Ok(())
    }

    fn open_to_group(&mut self) -> Result<(), WriteError> {
        let handed = open_root(self.dir).and_then(|root| {
            self.gid.map_or(Ok(()), |gid| {
                (self.step)("open the volume to the group");
                hand(root.as_fd(), gid, true)
            })
        });
        handed.map_err(|errno| failed("open volume", self.dir)(errno.into()))
    }

    fn file_mode(&self, entry: &FileEntry<'_>) -> u32 {
        (entry.mode & 0o7777) | self.gid.map_or(0, |_| group_bits(false, true))
    }

    fn directory_mode(&self) -> u32 {
        0o755 | self.gid.map_or(0, |_| group_bits(true, true))
    }

    /// Whether a directory holds exactly these files. What cannot be read is written anew.
    fn shows(&self, top: &Path, tree: &Tree<'_>) -> bool {
        let mut found = BTreeSet::new();
        files_in(top, Path::new(""), &mut found).is_ok()
            && found.iter().eq(tree.keys())
            && tree.iter().all(|(path, entry)| self.is_same(&top.join(path), entry).unwrap_or(false))
    }

    fn is_same(&self, path: &Path, entry: &FileEntry<'_>) -> io::Result<bool> {
        let metadata = fs::symlink_metadata(path)?;
        Ok(metadata.is_file()
            && metadata.len() == entry.data.len() as u64
            && metadata.mode() & 0o7777 == self.file_mode(entry)
            && self.gid.is_none_or(|gid| gid == metadata.gid())
            && fs::read(path)? == entry.data)
    }
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl Fn(io::Error) -> WriteError + use<'a> {
    move |source| WriteError::Io { action, path: path.to_owned(), source }
}

fn checked<'a>(files: &[FileEntry<'a>]) -> Result<Tree<'a>, WriteError> {
    let mut tree = Tree::new();
    for entry in files {
        let refuse = |problem| WriteError::Path { path: entry.path.to_owned(), problem };
        let path = clean(entry.path).map_err(refuse)?;
        if tree.insert(path, *entry).is_some() {
            return Err(refuse("used twice"));
        }
    }
    for (path, entry) in &tree {
        if path.ancestors().skip(1).any(|parent| tree.contains_key(parent)) {
            let problem = "another file stands where its directory must be";
            return Err(WriteError::Path { path: entry.path.to_owned(), problem });
        }
    }
    Ok(tree)
}

/// The rules of upstream's atomic writer; names beginning with `..` are this layout's own.
fn clean(path: &str) -> Result<PathBuf, &'static str> {
    if path.starts_with('/') {
        return Err("must be relative");
    }
    if path.len() > PATH_MAX {
        return Err("must not be longer than 4096 bytes");
    }
    if path.contains('\0') {
        return Err("must not contain a NUL byte");
    }
    let mut clean = PathBuf::new();
    for part in path.split('/').filter(|part| !matches!(*part, "" | ".")) {
        if part == ".." {
            return Err("must not contain '..'");
        }
        if part.len() > NAME_MAX {
            return Err("file names must not be longer than 255 bytes");
        }
        if part.starts_with("..") && clean.as_os_str().is_empty() {
            return Err("must not start with '..'");
        }
        clean.push(part);
    }
    if clean.as_os_str().is_empty() { Err("must not be empty") } else { Ok(clean) }
}

fn first_name(path: &Path) -> Option<OsString> {
    path.iter().next().map(OsString::from)
}

fn names_in(dir: &Path) -> io::Result<BTreeSet<OsString>> {
    fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect()
}

/// Everything below `top` that is not a directory. The tree is this writer's own, so no deeper than `PATH_MAX` allows.
fn files_in(top: &Path, below: &Path, found: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(top.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            files_in(top, &path, found)?;
        } else {
            found.insert(path);
        }
    }
    Ok(())
}

/// `..YYYY_MM_DD_HH_MM_SS.<random>`, in UTC.
fn timestamped(now: SystemTime) -> OsString {
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let mut random = [0; 4];
    // If the kernel has no random bytes yet, the clock's nanoseconds must do: names only need to differ.
    if !rustix::rand::getrandom(&mut random, GetRandomFlags::NONBLOCK).is_ok_and(|filled| filled == random.len()) {
        random = now.duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.subsec_nanos()).to_ne_bytes();
    }
    let random = u32::from_ne_bytes(random);
    format!("..{year:04}_{month:02}_{day:02}_{hour:02}_{minute:02}_{second:02}.{random}").into()
}

/// Year, month and day of a number of days since 1970-01-01 (Gregorian). Years are counted from March, so that the
/// leap day comes last.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_IN_400_YEARS: u64 = 146_097;
    // 1970-01-01 is day 719,468 counted from 0000-03-01.
    let days = days + 719_468;
    let (era, day_of_era) = (days / DAYS_IN_400_YEARS, days % DAYS_IN_400_YEARS);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}
