//! The reading end: entries in order, across rotations and attempts, while a writer goes on.
//!
//! ```text
//!            no more here        rotated away, or a later attempt began
//!   reading ────────────▶ which file is next? ────────────▶ read the rest ▶ next file
//!      ▲                        │ none yet
//!      └──── caller's wait ─────┘
//! ```
//! Nothing is lost at a rotation: the old file stays open and is read to its end before the next one, and which one is
//! next is decided by inode from a listing that held still. (What the writer deletes before a reader came to it is lost;
//! keep `max_files` above two.) Only whole entries are consumed and nothing is cached, so a writer may take back a
//! half-written one.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::parse::parse;
use crate::{Stream, files, time};

/// Bytes read at once; many entries, or a few of the largest.
const BLOCK: usize = 64 * 1024;
/// No entry is longer; what claims to be is skipped in pieces.
const MAX_ENTRY: usize = 1024 * 1024;
/// Tries to see the directory twice the same while a writer rotates quickly.
const LISTINGS: usize = 16;

/// Where to begin and where to go on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Only the last so many entries (kubectl's `--tail`, which counts entries of the file).
    pub tail: Option<u64>,
    /// Only entries of this time (nanoseconds since 1970) and later.
    pub since: Option<i64>,
    /// Begin with the oldest rotated file instead of the live one, as far as `tail` reaches. The kubelet does not.
    pub rotated: bool,
    /// After this attempt's last entry, go on with the next attempt.
    pub later_attempts: bool,
}

/// An entry with its origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub attempt: u32,
    /// Nanoseconds since 1970.
    pub time: i64,
    pub stream: Stream,
    /// No newline here: the line goes on in the next entry of this stream, or never ended.
    pub partial: bool,
    pub content: Vec<u8>,
}

impl Line {
    /// Appends the text as `kubectl logs` prints it. `mid_line` is false before the first line and then carried along;
    /// with `timestamps`, only beginnings of lines get one.
    pub fn append_to(&self, out: &mut Vec<u8>, timestamps: bool, mid_line: &mut bool) {
        if timestamps && !*mid_line {
            out.extend_from_slice(&time::rfc3339(self.time));
            out.push(b' ');
        }
        out.extend_from_slice(&self.content);
        if !self.partial {
            out.push(b'\n');
        }
        *mid_line = self.partial;
    }
}

/// Reads one container's log. It never waits: call [`Follower::read_available`] again when the file may have grown.
#[derive(Debug)]
pub struct Follower {
    directory: PathBuf,
    attempt: u32,
    options: Options,
    current: Option<Open>,
    buffer: Vec<u8>,
    skipped: u64,
}

#[derive(Debug)]
struct Open {
    file: File,
    id: FileId,
    /// The first byte not yet consumed; always the beginning of an entry.
    position: u64,
}

type FileId = (u64, u64);

fn id_of(metadata: &Metadata) -> FileId {
    (metadata.dev(), metadata.ino())
}

impl Follower {
    /// Follows `directory`/`attempt`.log, which need not exist yet.
    pub fn new(directory: impl Into<PathBuf>, attempt: u32, options: Options) -> Follower {
        let directory = directory.into();
        Follower { directory, attempt, options, current: None, buffer: Vec::new(), skipped: 0 }
    }

    /// The attempt being read.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Lines that were no entries.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The next entries, some at a time; empty when there are none for now.
    pub fn read_available(&mut self) -> io::Result<Vec<Line>> {
        let mut lines = Vec::new();
        loop {
            if self.current.is_none() {
                self.current = self.first()?;
            }
            let Some(open) = &self.current else { return Ok(lines) };
            let (id, before) = (open.id, open.position);
            self.read_block(&mut lines)?;
            if !lines.is_empty() {
                return Ok(lines);
            }
            if self.current.as_ref().is_some_and(|open| open.position != before) {
                continue;
            }
            let Some((attempt, next)) = self.successor(id)? else { return Ok(lines) };
            // Only now is it certain that nothing will be added to the old file.
            self.read_block(&mut lines)?;
            if self.current.as_ref().is_some_and(|open| open.position != before) {
                continue;
            }
            self.read_torn_end(&mut lines)?;
            self.attempt = attempt;
            self.current = Some(next);
        }
    }

    /// Reads one block of the current file and consumes the whole entries in it.
    fn read_block(&mut self, lines: &mut Vec<Line>) -> io::Result<()> {
        let Some(open) = &mut self.current else { return Ok(()) };
        let mut wanted = BLOCK;
        let (length, end) = loop {
            self.buffer.resize(wanted.max(self.buffer.len()), 0);
            let length = read_at(&open.file, &mut self.buffer[..wanted], open.position)?;
            match self.buffer[..length].iter().rposition(|byte| *byte == b'\n') {
                Some(newline) => break (length, newline + 1),
                None if length < wanted => break (length, 0),
                None if wanted >= MAX_ENTRY => break (length, length),
                None => wanted *= 2,
            }
        };
        if length == 0 && open.file.metadata()?.len() < open.position {
            // Somebody emptied the file (`> 0.log`): what comes now is new.
            open.position = 0;
            return Ok(());
        }
        open.position += end as u64;
        for line in self.buffer[..end].split_inclusive(|byte| *byte == b'\n') {
            take(line.strip_suffix(b"\n").unwrap_or(line), self.attempt, self.options.since, lines, &mut self.skipped);
        }
        Ok(())
    }

    /// What stands behind the last newline of a file nobody will write to again: an entry cut short by a crash.
    fn read_torn_end(&mut self, lines: &mut Vec<Line>) -> io::Result<()> {
        let Some(open) = &mut self.current else { return Ok(()) };
        let length = read_at(&open.file, &mut self.buffer[..BLOCK], open.position)?;
        if length > 0 {
            open.position += length as u64;
            let before = lines.len();
            take(&self.buffer[..length], self.attempt, self.options.since, lines, &mut self.skipped);
            lines[before..].iter_mut().for_each(|line| line.partial = true);
        }
        Ok(())
    }

    /// The file to begin with, at the place to begin at.
    fn first(&mut self) -> io::Result<Option<Open>> {
        let Some(mut listed) = stable_listing(&self.directory, self.attempt)? else { return Ok(None) };
        if listed.is_empty() {
            let Some((attempt, open)) = self.later_attempt()? else { return Ok(None) };
            self.attempt = attempt;
            return Ok(Some(open));
        }
        if !self.options.rotated {
            let newest = listed.len() - 1;
            listed.drain(..newest);
        }
        let Some(tail) = self.options.tail else { return open(&listed[0], 0) };
        let mut missing = tail;
        for (index, candidate) in listed.iter().enumerate().rev() {
            let Some(mut opened) = open(candidate, 0)? else { return Ok(None) };
            let (position, found) = tail_start(&opened.file, missing)?;
            missing -= found;
            if missing == 0 || index == 0 {
                opened.position = position;
                return Ok(Some(opened));
            }
        }
        Ok(None)
    }

    /// The file after the one of that id, if the writer has begun it.
    fn successor(&self, id: FileId) -> io::Result<Option<(u32, Open)>> {
        let live = files::attempt_path(&self.directory, self.attempt);
        if found(fs::metadata(&live))?.is_some_and(|metadata| id_of(&metadata) == id) {
            return self.later_attempt();
        }
        let Some(listed) = stable_listing(&self.directory, self.attempt)? else { return Ok(None) };
        let next = match listed.iter().position(|(_, listed)| *listed == id) {
            Some(place) => place + 1,
            // The writer deleted ours as its oldest, so all others are newer.
            None => 0,
        };
        match listed.get(next) {
            Some(next) => Ok(open(next, 0)?.map(|open| (self.attempt, open))),
            None => self.later_attempt(),
        }
    }

    fn later_attempt(&self) -> io::Result<Option<(u32, Open)>> {
        if !self.options.later_attempts {
            return Ok(None);
        }
        let attempts = files::attempts(&self.directory)?;
        let Some(attempt) = attempts.into_iter().find(|attempt| *attempt > self.attempt) else { return Ok(None) };
        let listed = stable_listing(&self.directory, attempt)?.unwrap_or_default();
        let Some(oldest) = listed.first() else { return Ok(None) };
        Ok(open(oldest, 0)?.map(|open| (attempt, open)))
    }
}

fn take(text: &[u8], attempt: u32, since: Option<i64>, lines: &mut Vec<Line>, skipped: &mut u64) {
    match parse(text) {
        Ok(entry) if since.is_none_or(|since| entry.time >= since) => lines.push(Line {
            attempt,
            time: entry.time,
            stream: entry.stream,
            partial: entry.partial,
            content: entry.content.to_vec(),
        }),
        Ok(_) => {}
        Err(_) => *skipped += 1,
    }
}

/// An attempt's files, oldest first, the live one last. A directory cannot be read in one instant, and a file renamed
/// meanwhile can be missed; but then a second look differs. `None`: it never held still, ask again later.
fn stable_listing(directory: &Path, attempt: u32) -> io::Result<Option<Vec<(PathBuf, FileId)>>> {
    let log = files::attempt_path(directory, attempt);
    let mut before = None;
    for _ in 0..LISTINGS {
        let mut listed = Vec::new();
        for path in files::rotated(&log)?.into_iter().map(|file| file.path).chain([log.clone()]) {
            if let Some(metadata) = found(fs::metadata(&path))? {
                listed.push((path, id_of(&metadata)));
            }
        }
        if before.as_ref() == Some(&listed) {
            return Ok(before);
        }
        before = Some(listed);
    }
    Ok(None)
}

/// Opens a listed file; `None` if the name has come to mean another.
fn open((path, id): &(PathBuf, FileId), position: u64) -> io::Result<Option<Open>> {
    let Some(file) = found(File::open(path))? else { return Ok(None) };
    let same = id_of(&file.metadata()?) == *id;
    Ok(same.then_some(Open { file, id: *id, position }))
}

fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

/// Where the last `wanted` whole entries begin, and how many there are.
fn tail_start(file: &File, wanted: u64) -> io::Result<(u64, u64)> {
    let mut end = file.metadata()?.len();
    let mut newlines = 0;
    let mut buffer = vec![0; BLOCK];
    while end > 0 {
        let start = end.saturating_sub(BLOCK as u64);
        let block = &mut buffer[..(end - start) as usize];
        file.read_exact_at(block, start)?;
        for (index, byte) in block.iter().enumerate().rev() {
            if *byte == b'\n' {
                newlines += 1;
                if newlines > wanted {
                    return Ok((start + index as u64 + 1, wanted));
                }
            }
        }
        end = start;
    }
    Ok((0, newlines))
}

fn read_at(file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read_at(&mut buffer[length..], position + length as u64) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests;
