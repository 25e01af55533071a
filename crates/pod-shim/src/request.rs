//! Reading requests: the other end of `protocol::Request::encode`.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::text::{LONGEST_NAME, parse_number};

/// One packet, taken apart but not yet understood.
pub(crate) struct Packet<'a> {
    pub(crate) verb: &'a [u8],
    pub(crate) id: u64,
    pub(crate) fields: Fields<'a>,
    pub(crate) fds: Vec<OwnedFd>,
}

pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

/// The fields of a start request.
pub(crate) struct Start<'a> {
    pub(crate) key: Key<'a>,
    pub(crate) deadline_ms: u64,
    /// Bits of the protocol: [`pod_shim::protocol::TTY`] and others.
    pub(crate) streams: u64,
    pub(crate) processes_of: &'a [u8],
    pub(crate) max_size: u64,
    pub(crate) max_files: u32,
    pub(crate) log: &'a Path,
    pub(crate) cgroups: Box<[PathBuf]>,
}

/// Which attempt of which container.
#[derive(Clone, Copy)]
pub(crate) struct Key<'a> {
    pub(crate) container: &'a [u8],
    pub(crate) attempt: u32,
}

impl<'a> Packet<'a> {
    pub(crate) fn parse(bytes: &'a [u8], fds: Vec<OwnedFd>) -> Option<Packet<'a>> {
        let mut fields = Fields { rest: bytes };
        Some(Packet { verb: fields.next()?, id: fields.number()?, fields, fds })
    }
}

impl<'a> Fields<'a> {
    /// Each field ends with a NUL byte.
    pub(crate) fn next(&mut self) -> Option<&'a [u8]> {
        let end = self.rest.iter().position(|byte| *byte == 0)?;
        let field = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        Some(field)
    }

    pub(crate) fn number(&mut self) -> Option<u64> {
        self.next().and_then(parse_number)
    }

    pub(crate) fn key(&mut self) -> Option<Key<'a>> {
        let container = self.next()?;
        // It becomes a word of a line.
        let plain = !container.is_empty()
            && container.len() <= LONGEST_NAME
            && container.is_ascii()
            && container.iter().all(u8::is_ascii_graphic);
        let attempt = self.number()?.try_into().ok()?;
        plain.then_some(Key { container, attempt })
    }

    pub(crate) fn start(&mut self) -> Option<Start<'a>> {
        Some(Start {
            key: self.key()?,
            deadline_ms: self.number()?,
            streams: self.number()?,
            processes_of: self.next()?,
            max_size: self.number()?,
            max_files: self.number()?.try_into().ok()?,
            log: Path::new(OsStr::from_bytes(self.next()?)),
            cgroups: std::iter::from_fn(|| self.next()).map(|path| OsStr::from_bytes(path).into()).collect(),
        })
    }
}
