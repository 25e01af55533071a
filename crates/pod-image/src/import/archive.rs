//! Reading files of an archive by name: a directory, or a tar on disk without unpacking it.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Seek},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

use super::ImportError;
use crate::unpack::{Guard, normalise};

/// Archives of images have a few files per layer. What has more is a root file system, whose files nobody asks for.
const MAX_FILES: usize = 20_000;
/// Links that lead to links.
const MAX_LINKS: usize = 8;

pub(super) trait Archive {
    /// `None` if there is no such file.
    fn open(&self, path: &str) -> Result<Option<Box<dyn Read + '_>>, ImportError>;
}

/// An OCI layout in a directory. All of it is checked by digest, so links in it can do no harm.
pub(super) struct Directory(pub PathBuf);

impl Archive for Directory {
    fn open(&self, path: &str) -> Result<Option<Box<dyn Read + '_>>, ImportError> {
        let Some(relative) = normalise(path.as_bytes()) else { return Ok(None) };
        let path = self.0.join(relative);
        match File::open(&path) {
            Ok(file) => Ok(Some(Box::new(file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(ImportError::Open { path, source }),
        }
    }
}

/// An uncompressed tar.
pub(super) struct TarFile {
    file: File,
    members: BTreeMap<PathBuf, Member>,
}

enum Member {
    File {
        offset: u64,
        length: u64,
    },
    /// `docker save` stores equal layers once and links to them.
    Link(PathBuf),
}

impl TarFile {
    pub(super) fn scan(file: File) -> Result<TarFile, ImportError> {
        let fail = |source| ImportError::NotAnArchive { source };
        let reader = file.try_clone().map_err(fail)?;
        let length = reader.metadata().map_err(fail)?.len();
        let (guard, headers) = Guard::new(reader, u64::MAX, Arc::new(AtomicBool::new(false)));
        let mut archive = tar::Archive::new(guard);
        let mut members = BTreeMap::new();
        headers.begin();
        let mut empty = true;
        for entry in archive.entries_with_seek().map_err(fail)? {
            let entry = entry.map_err(fail)?;
            headers.begin();
            empty = false;
            if members.len() > MAX_FILES {
                members.clear();
                break;
            }
            let Some(path) = normalise(&entry.path_bytes()) else { continue };
            let target = || entry.link_name_bytes().map(|target| target.into_owned()).unwrap_or_default();
            let member = match entry.header().entry_type() {
                tar::EntryType::Regular | tar::EntryType::Continuous => {
                    let (offset, size) = (entry.raw_file_position(), entry.size());
                    if offset.checked_add(size).is_none_or(|end| end > length) {
                        return Err(fail(io::ErrorKind::UnexpectedEof.into()));
                    }
                    Member::File { offset, length: size }
                }
                tar::EntryType::Link => match normalise(&target()) {
                    Some(target) => Member::Link(target),
                    None => continue,
                },
                tar::EntryType::Symlink => match resolve(&path, &target()) {
                    Some(target) => Member::Link(target),
                    None => continue,
                },
                _ => continue,
            };
            members.insert(path, member);
        }
        if empty {
            return Err(ImportError::Empty);
        }
        Ok(TarFile { file, members })
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.members.contains_key(Path::new(path))
    }

    /// The tar itself.
    pub(super) fn whole(&self) -> Result<impl Read + '_, ImportError> {
        let mut file = &self.file;
        file.rewind().map_err(|source| ImportError::Read { source })?;
        Ok(file)
    }
}

impl Archive for TarFile {
    fn open(&self, path: &str) -> Result<Option<Box<dyn Read + '_>>, ImportError> {
        let mut path = normalise(path.as_bytes());
        for _ in 0..MAX_LINKS {
            match path.as_ref().and_then(|path| self.members.get(path)) {
                None => return Ok(None),
                Some(Member::Link(target)) => path = Some(target.clone()),
                Some(Member::File { offset, length }) => {
                    return Ok(Some(Box::new(Slice { file: &self.file, offset: *offset, left: *length })));
                }
            }
        }
        Ok(None)
    }
}

/// What a symlink at `path` means, if it stays inside.
fn resolve(path: &Path, target: &[u8]) -> Option<PathBuf> {
    let target = std::str::from_utf8(target).ok()?;
    let mut resolved = path.parent()?.to_owned();
    for component in target.split('/') {
        match component {
            "" | "." => {}
            ".." => drop(resolved.pop().then_some(())?),
            name => resolved.push(name),
        }
    }
    (!target.starts_with('/')).then_some(resolved)
}

struct Slice<'a> {
    file: &'a File,
    offset: u64,
    left: u64,
}

impl Read for Slice<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(0);
        }
        let read = self.file.read_at(&mut buffer[..most], self.offset)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.offset += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}
