//! The writing end: bytes of two streams in, whole entries in a rotated file out.
//!
//! A line is written when its newline arrives, or in pieces of [`MAX_MESSAGE`]; what a container leaves without a newline
//! is written as a `P` entry by [`Writer::finish`], so that reading back gives exactly the bytes that were written.
//! Readers only ever see whole entries: a write that fails half-way is taken back.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, IoSlice, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::{MAX_MESSAGE, Stream, files, time};

const NANOS: i64 = 1_000_000_000;
/// `TIME stdout F `.
const HEADER: usize = time::WIDTH + 10;
/// Slices of one writev(2); three make an entry at most.
const BATCH: usize = 48;
/// A line buffer that grew larger is given back once its line is out.
const KEPT_CAPACITY: usize = 512;

#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    max_size: u64,
    max_files: usize,
    file: File,
    /// Bytes in `file`, as far as we know.
    size: u64,
    /// Rotation is due from here on; moves away when rotating failed.
    rotate_at: u64,
    lines: [Line; 2],
    /// Whole entries that could not be written yet.
    backlog: Vec<u8>,
    /// Bytes of a torn entry at the file's end that could not be cut off yet.
    torn: u64,
}

/// The unfinished line of a stream.
#[derive(Debug, Default)]
struct Line {
    /// At most [`MAX_MESSAGE`] bytes.
    pending: Vec<u8>,
    /// The last entry of this stream was a `P`.
    split: bool,
}

impl Writer {
    /// Opens or continues the log at `path`; missing directories are made (0755, the file 0640). A file is rotated when
    /// the next entry would carry it beyond `max_size` bytes, and `max_files` are kept, the live one included. `now` is
    /// in nanoseconds since 1970, as everywhere here.
    pub fn open(path: impl Into<PathBuf>, max_size: u64, max_files: u32, now: i64) -> io::Result<Writer> {
        let path = path.into();
        if let Some(directory) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
        }
        let file = open_log(&path, false)?;
        let mut size = file.metadata()?.len();
        if size > 0 && !ends_with_newline(&file, size)? {
            // The machine died in the middle of an entry; ours must not be glued to it.
            (&file).write_all(b"\n")?;
            size += 1;
        }
        let max_files = usize::try_from(max_files.max(1)).unwrap_or(usize::MAX);
        let mut writer = Writer {
            path,
            max_size,
            max_files,
            file,
            size,
            rotate_at: max_size,
            lines: Default::default(),
            backlog: Vec::new(),
            torn: 0,
        };
        if writer.size >= writer.rotate_at && writer.size > 0 {
            writer.rotate(now);
        }
        Ok(writer)
    }

    /// The live file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes all `bytes`, always. An error means that some entries could not be written: they are kept in memory, in
    /// order, and the caller should stop reading from its container and [`Writer::retry`] later (writing more tries
    /// again too, and keeps more).
    pub fn write(&mut self, stream: Stream, bytes: &[u8], unix_nanos: i64) -> io::Result<()> {
        let headers = Headers::new(stream, unix_nanos);
        let line = &mut self.lines[stream as usize];
        let mut pending = std::mem::take(&mut line.pending);
        let mut failure = None;
        {
            let mut batch = Batch::default();
            let mut head: &[u8] = &pending;
            let mut rest = bytes;
            let left = loop {
                let room = MAX_MESSAGE - head.len();
                let window = &rest[..rest.len().min(room + 1)];
                if let Some(newline) = find_newline(window) {
                    self.push(
                        &mut batch,
                        stream,
                        false,
                        [&headers.full, head, &rest[..=newline]],
                        unix_nanos,
                        &mut failure,
                    );
                    rest = &rest[newline + 1..];
                } else if rest.len() > room {
                    let slices = [&headers.partial, head, &rest[..room]];
                    self.push(&mut batch, stream, true, slices, unix_nanos, &mut failure);
                    rest = &rest[room..];
                } else {
                    break (head.len(), rest);
                }
                head = b"";
            };
            self.flush(&mut batch, &mut failure);
            let (kept, new) = left;
            if kept == 0 {
                pending.clear();
                if pending.capacity() > KEPT_CAPACITY {
                    pending = Vec::new();
                }
            }
            pending.extend_from_slice(new);
        }
        self.lines[stream as usize].pending = pending;
        failure.map_or(Ok(()), Err)
    }

    /// Writes what could not be written before. `Ok` means that nothing is left over.
    pub fn retry(&mut self) -> io::Result<()> {
        if self.backlog.is_empty() {
            return Ok(());
        }
        let backlog = std::mem::take(&mut self.backlog);
        let (kept, result) = self.append(&[IoSlice::new(&backlog)]);
        if result.is_err() {
            self.backlog = backlog;
            self.backlog.drain(..kept);
        }
        result
    }

    /// Bytes waiting for [`Writer::retry`].
    pub fn backlog(&self) -> usize {
        self.backlog.len()
    }

    /// A stream has ended: its unterminated line, if any, becomes a `P` entry, as containerd does.
    pub fn finish_stream(&mut self, stream: Stream, unix_nanos: i64) -> io::Result<()> {
        let pending = std::mem::take(&mut self.lines[stream as usize].pending);
        let mut failure = None;
        if !pending.is_empty() {
            let headers = Headers::new(stream, unix_nanos);
            let mut batch = Batch::default();
            let slices = [&headers.partial, pending.as_slice(), b""];
            self.push(&mut batch, stream, true, slices, unix_nanos, &mut failure);
            self.flush(&mut batch, &mut failure);
        }
        // Nothing of this stream will follow, so the file may be rotated here.
        self.lines[stream as usize].split = false;
        failure.map_or(Ok(()), Err)
    }

    /// Both streams have ended.
    pub fn finish(&mut self, unix_nanos: i64) -> io::Result<()> {
        let stdout = self.finish_stream(Stream::Stdout, unix_nanos);
        let stderr = self.finish_stream(Stream::Stderr, unix_nanos);
        stdout.and(stderr).and_then(|()| self.retry())
    }

    /// Adds one entry, given as header, head and tail; a `P` entry's newline is added here.
    fn push<'a>(
        &mut self,
        batch: &mut Batch<'a>,
        stream: Stream,
        partial: bool,
        [header, head, tail]: [&'a [u8]; 3],
        unix_nanos: i64,
        failure: &mut Option<io::Error>,
    ) {
        let length = (header.len() + head.len() + tail.len() + usize::from(partial)) as u64;
        let before = self.size + batch.bytes;
        if before > 0 && before + length > self.rotate_at && self.may_rotate(before) {
            self.flush(batch, failure);
            if failure.is_none() && self.backlog.is_empty() && !self.was_shortened() {
                self.rotate(unix_nanos);
            }
        }
        if batch.count + 4 > BATCH {
            self.flush(batch, failure);
        }
        batch.add(header);
        batch.add(head);
        batch.add(tail);
        if partial {
            batch.add(b"\n");
        }
        self.lines[stream as usize].split = partial;
    }

    /// Only between lines, unless a line without end would fill the disk.
    fn may_rotate(&self, size: u64) -> bool {
        !self.lines.iter().any(|line| line.split) || size >= self.max_size.saturating_mul(2)
    }

    fn flush(&mut self, batch: &mut Batch<'_>, failure: &mut Option<io::Error>) {
        let slices = &batch.slices[..batch.count];
        if failure.is_none() && !self.backlog.is_empty() {
            *failure = self.retry().err();
        }
        let mut skip = 0;
        if failure.is_none() {
            let (kept, result) = self.append(slices);
            (skip, *failure) = (kept, result.err());
        }
        if failure.is_some() {
            for slice in slices {
                let known = skip.min(slice.len());
                self.backlog.extend_from_slice(&slice[known..]);
                skip -= known;
            }
        }
        batch.count = 0;
        batch.bytes = 0;
    }

    /// Appends whole entries and, on failure, says how many bytes of them are in the file. An entry that was written
    /// half-way is cut off again: a reader may have consumed those before it, but never one without its newline.
    fn append(&mut self, slices: &[IoSlice<'_>]) -> (usize, io::Result<()>) {
        if let Err(error) = self.cut_torn_end() {
            return (0, Err(error));
        }
        let (written, result) = write_all(&self.file, slices);
        let kept = if result.is_ok() { written } else { entries_end(slices, written) };
        self.size += kept as u64;
        self.torn = (written - kept) as u64;
        // If this fails, it is tried again before anything else is written.
        let _ = self.cut_torn_end();
        (kept, result)
    }

    fn cut_torn_end(&mut self) -> io::Result<()> {
        if self.torn > 0 {
            // Relative to the end, in case somebody else emptied the file. Shrinking needs no space.
            let length = self.file.metadata()?.len();
            self.file.set_len(length.saturating_sub(self.torn))?;
            self.torn = 0;
        }
        Ok(())
    }

    /// Somebody else emptied the file (`> 0.log`): the size we know is wrong, and rotating can wait.
    fn was_shortened(&mut self) -> bool {
        let Ok(metadata) = self.file.metadata() else { return false };
        let shortened = metadata.len() < self.size;
        self.size = metadata.len();
        shortened
    }

    /// Begins a new file. If that fails, the old one just goes on: a log too large is better than a lost line.
    fn rotate(&mut self, unix_nanos: i64) {
        match self.try_rotate(unix_nanos.max(0) / NANOS) {
            Ok(file) => {
                self.file = file;
                self.size = 0;
                self.rotate_at = self.max_size;
            }
            Err(_) => self.rotate_at = self.size.saturating_add(self.max_size / 8 + 1),
        }
    }

    fn try_rotate(&self, now: i64) -> io::Result<File> {
        let older = files::rotated(&self.path)?;
        // Names have whole seconds: within one, count up rather than overwrite.
        let closed = older.last().map_or(now, |newest| now.max(newest.closed + 1));
        let target = files::rotated_path(&self.path, closed);
        let renamed = match fs::rename(&self.path, &target) {
            // Somebody removed the live file; there is nothing to keep.
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            renamed => renamed.map(|()| true)?,
        };
        let file = open_log(&self.path, true).inspect_err(|_| {
            // Best effort: under its new name the old file is still written to and read.
            let _ = fs::rename(&target, &self.path);
        })?;
        let count = older.len() + usize::from(renamed);
        let surplus = count.saturating_sub(self.max_files - 1);
        let in_order = older.iter().map(|file| &file.path).chain([&target]);
        for path in in_order.take(surplus) {
            // What cannot be removed now is tried again at the next rotation.
            let _ = fs::remove_file(path);
        }
        Ok(file)
    }
}

struct Headers {
    full: [u8; HEADER],
    partial: [u8; HEADER],
}

impl Headers {
    fn new(stream: Stream, unix_nanos: i64) -> Headers {
        let mut full = [b' '; HEADER];
        full[..time::WIDTH].copy_from_slice(&time::rfc3339(unix_nanos));
        full[time::WIDTH + 1..time::WIDTH + 7].copy_from_slice(stream.name().as_bytes());
        let mut partial = full;
        full[time::WIDTH + 8] = b'F';
        partial[time::WIDTH + 8] = b'P';
        Headers { full, partial }
    }
}

/// Entries on their way to one writev(2), borrowed from where they are.
struct Batch<'a> {
    slices: [IoSlice<'a>; BATCH],
    count: usize,
    bytes: u64,
}

impl Default for Batch<'_> {
    fn default() -> Self {
        Batch { slices: [IoSlice::new(b""); BATCH], count: 0, bytes: 0 }
    }
}

impl<'a> Batch<'a> {
    fn add(&mut self, bytes: &'a [u8]) {
        if !bytes.is_empty() {
            self.slices[self.count] = IoSlice::new(bytes);
            self.count += 1;
            self.bytes += bytes.len() as u64;
        }
    }
}

/// Writes until all is written or an error comes; how many bytes went through either way.
fn write_all(mut file: &File, slices: &[IoSlice<'_>]) -> (usize, io::Result<()>) {
    // Advancing consumes the slices, and the caller may need them again.
    let mut copy = [IoSlice::new(b""); BATCH];
    let mut rest = &mut copy[..slices.len()];
    rest.copy_from_slice(slices);
    let mut written = 0;
    while !rest.is_empty() {
        match file.write_vectored(rest) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(count) => {
                written += count;
                IoSlice::advance_slices(&mut rest, count);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

/// Where the last whole entry within the first `written` bytes ends.
fn entries_end(slices: &[IoSlice<'_>], written: usize) -> usize {
    let (mut offset, mut end) = (0, 0);
    for slice in slices {
        let visible = &slice[..slice.len().min(written - offset)];
        if let Some(newline) = visible.iter().rposition(|byte| *byte == b'\n') {
            end = offset + newline + 1;
        }
        offset += visible.len();
    }
    end
}

fn open_log(path: &Path, new: bool) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).create_new(new).mode(0o640).open(path)
}

fn ends_with_newline(file: &File, size: u64) -> io::Result<bool> {
    let mut last = [0u8];
    file.read_exact_at(&mut last, size - 1)?;
    Ok(last == *b"\n")
}

/// The standard library's vectorised search, which it only offers through a reader.
fn find_newline(bytes: &[u8]) -> Option<usize> {
    let mut reader = bytes;
    let skipped = reader.skip_until(b'\n').ok()?;
    (skipped > 0 && bytes[skipped - 1] == b'\n').then(|| skipped - 1)
}

#[cfg(test)]
mod tests;
