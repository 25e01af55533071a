//! What happened, one line each, appended to a file. The file is the shim's whole memory of the past: clients are sent its
//! lines, and a question about an old attempt is answered by reading it.

use std::os::fd::OwnedFd;

use crate::text::{Decimal, LONGEST_LINE};

#[derive(Debug)]
pub(crate) struct Facts {
    file: OwnedFd,
    /// Bytes of whole lines in the file.
    length: u64,
    /// Lines that could not be written, in order.
    unwritten: Vec<u8>,
}

impl Facts {
    pub(crate) fn new(file: OwnedFd) -> Facts {
        let length = rustix::fs::fstat(&file).map_or(0, |status| status.st_size.try_into().unwrap_or(0));
        Facts { file, length, unwritten: Vec::new() }
    }

    /// One write per fact. When the disk is full it waits for [`Facts::retry`].
    pub(crate) fn append(&mut self, line: Vec<u8>) {
        if self.unwritten.is_empty() {
            self.unwritten = line;
        } else {
            self.unwritten.extend_from_slice(&line);
        }
        self.retry();
    }

    pub(crate) fn retry(&mut self) {
        while !self.unwritten.is_empty() {
            match rustix::io::write(&self.file, &self.unwritten) {
                Ok(0) | Err(_) => return,
                Ok(count) => {
                    self.unwritten.drain(..count);
                    self.length += count as u64;
                }
            }
        }
        self.unwritten = Vec::new();
    }

    pub(crate) fn is_behind(&self) -> bool {
        !self.unwritten.is_empty()
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Calls `line` with each whole line from `offset` on, end included, until it says no; returns where the next one
    /// begins.
    pub(crate) fn each(&self, mut offset: u64, mut line: impl FnMut(&[u8]) -> bool) -> u64 {
        let mut buffer = [0; LONGEST_LINE];
        while offset < self.length {
            let Ok(count) = rustix::io::pread(&self.file, &mut buffer, offset) else { return offset };
            let mut rest = &buffer[..count];
            let before = offset;
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                if !line(&rest[..=end]) {
                    return offset;
                }
                offset += end as u64 + 1;
                rest = &rest[end + 1..];
            }
            if offset == before {
                // A line without an end: half written, or a crash of the machine left it.
                return offset;
            }
        }
        offset
    }

    /// Has this attempt ever been started, or tried?
    pub(crate) fn knows(&self, container: &[u8], attempt: u32) -> bool {
        let attempt = Decimal::new(attempt.into());
        let mut found = false;
        self.each(0, |line| {
            let mut words = line.split(|byte| *byte == b' ').skip(1);
            found = words.next() == Some(container) && words.next() == Some(attempt.as_bytes());
            !found
        });
        found
    }
}
