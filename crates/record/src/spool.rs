//! Batches on disk: segments of checksummed entries, appended in order, removed from the front.
//!
//! ```text
//! 0000000000000001.seg   ┌ magic u32 │ length u32 │ crc32 u32 │ payload ┐ …
//! ```
//! A segment's name is the sequence number of its first entry. What a crash or a power cut tore is cut off when the spool
//! is opened: the sources' saved positions never depended on it. Nothing here waits or retries.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::batch::{Batch, Layout, Origin};

const MAGIC: u32 = 0x4f52_4731;
const HEADER: usize = 12;
/// No entry is longer; what claims to be is damage.
const MAX_ENTRY: usize = 64 << 20;
/// In the number of records: lines follow as they are, behind their time.
const LINES: u64 = 1 << 63;
const SUFFIX: &str = ".seg";

/// One file of the spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    pub first: u64,
    pub last: u64,
    pub bytes: u64,
}

#[derive(Debug)]
pub struct Spool {
    directory: PathBuf,
    segment_bytes: u64,
    segments: Vec<Segment>,
    writer: Option<Arc<File>>,
    /// The last segment whose name is durable.
    named: u64,
    /// Entries appended, and how many of them are durable.
    appended: u64,
    durable: u64,
    buffer: Vec<u8>,
    /// Bytes that were found damaged when opening.
    damaged: u64,
}

/// Written and not synced yet.
#[derive(Debug)]
pub struct Unsynced {
    writer: Arc<File>,
    /// It does not have the file's name yet: without that a new segment is nowhere.
    directory: Option<PathBuf>,
    first: u64,
    appended: u64,
}

impl Unsynced {
    pub fn sync(&self) -> io::Result<()> {
        self.writer.sync_data()?;
        self.directory.as_ref().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
    }
}

impl Spool {
    /// Opens or makes the spool and shows every whole entry to `visit`, oldest first.
    pub fn open(directory: &Path, segment_bytes: u64, mut visit: impl FnMut(Batch)) -> io::Result<Spool> {
        fs::create_dir_all(directory)?;
        let mut names = Vec::new();
        for entry in fs::read_dir(directory)? {
            let name = entry?.file_name();
            let first = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)).and_then(|name| name.parse().ok());
            names.extend(first.map(|first: u64| first));
        }
        names.sort_unstable();
        let mut spool = Spool {
            directory: directory.to_owned(),
            segment_bytes,
            segments: Vec::new(),
            writer: None,
            named: 0,
            appended: 0,
            durable: 0,
            buffer: Vec::new(),
            damaged: 0,
        };
        for first in names {
            spool.recover(first, &mut visit)?;
        }
        Ok(spool)
    }

    fn recover(&mut self, first: u64, visit: &mut impl FnMut(Batch)) -> io::Result<()> {
        let path = self.path(first);
        let length = fs::metadata(&path)?.len();
        let mut reader = Reader::open(&path)?;
        let mut last = None;
        while let Ok(Some(batch)) = reader.next() {
            last = Some(batch.sequence);
            visit(batch);
        }
        self.damaged += length - reader.position;
        let Some(last) = last else { return fs::remove_file(&path) };
        if reader.position < length {
            OpenOptions::new().write(true).open(&path)?.set_len(reader.position)?;
        }
        self.segments.push(Segment { first, last, bytes: reader.position });
        Ok(())
    }

    fn path(&self, first: u64) -> PathBuf {
        self.directory.join(format!("{first:016}{SUFFIX}"))
    }

    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    pub fn damaged(&self) -> u64 {
        self.damaged
    }

    pub fn first(&self) -> Option<u64> {
        self.segments.first().map(|segment| segment.first)
    }

    pub fn last(&self) -> Option<u64> {
        self.segments.last().map(|segment| segment.last)
    }

    /// The segment that holds the entry, or would if it were there.
    pub fn segment_of(&self, sequence: u64) -> Option<&Segment> {
        self.segments.iter().find(|segment| sequence <= segment.last)
    }

    /// A reader of the segment, from its beginning.
    pub fn reader(&self, first: u64) -> io::Result<Reader> {
        Reader::open(&self.path(first))
    }

    /// Appends an entry whole or not at all.
    pub fn append(&mut self, batch: &Batch) -> io::Result<()> {
        let full = self.segments.last().is_none_or(|segment| segment.bytes >= self.segment_bytes);
        if self.writer.is_none() || full {
            // First, so that a disk that refuses leaves no file in the way of the next try.
            self.sync()?;
            let path = self.path(batch.sequence);
            let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?;
            self.writer = Some(Arc::new(file));
            self.segments.push(Segment { first: batch.sequence, last: batch.sequence, bytes: 0 });
        }
        encode(&mut self.buffer, batch);
        let (Some(writer), Some(segment)) = (&self.writer, self.segments.last_mut()) else { return Ok(()) };
        let mut file: &File = writer;
        if let Err(error) = file.write_all(&self.buffer) {
            // Shrinking needs no space.
            file.set_len(segment.bytes)?;
            if segment.bytes == 0 {
                let first = segment.first;
                self.segments.pop();
                self.writer = None;
                fs::remove_file(self.path(first))?;
            }
            return Err(error);
        }
        segment.bytes += self.buffer.len() as u64;
        segment.last = batch.sequence;
        self.appended += 1;
        if self.buffer.capacity() > 1 << 20 {
            self.buffer = Vec::new();
        }
        Ok(())
    }

    /// What is to be made durable, without holding a lock; then tell [`Spool::synced`].
    pub fn unsynced(&self) -> Option<Unsynced> {
        let writer = self.writer.clone().filter(|_| self.appended > self.durable)?;
        let first = self.segments.last()?.first;
        let directory = (self.named < first).then(|| self.directory.clone());
        Some(Unsynced { writer, directory, first, appended: self.appended })
    }

    pub fn synced(&mut self, done: &Unsynced) {
        self.named = self.named.max(done.first);
        self.durable = self.durable.max(done.appended);
    }

    fn sync(&self) -> io::Result<()> {
        self.writer.as_ref().map_or(Ok(()), |file| file.sync_data())
    }

    /// Removes the segments whose last entry is at most `sequence`.
    pub fn remove_through(&mut self, sequence: u64) -> io::Result<()> {
        while let Some(segment) = self.segments.first().filter(|segment| segment.last <= sequence) {
            fs::remove_file(self.path(segment.first))?;
            self.segments.remove(0);
            if self.segments.is_empty() {
                self.writer = None;
            }
        }
        Ok(())
    }
}

/// Reads entries of one segment in order.
#[derive(Debug)]
pub struct Reader {
    file: File,
    /// Behind the last whole entry.
    position: u64,
    buffer: Vec<u8>,
}

impl Reader {
    fn open(path: &Path) -> io::Result<Reader> {
        Ok(Reader { file: File::open(path)?, position: 0, buffer: Vec::new() })
    }

    /// The next entry; `None` at the end. An error leaves the reader before the damage.
    #[expect(clippy::should_implement_trait, reason = "a fallible iterator would hide that the end may move")]
    pub fn next(&mut self) -> io::Result<Option<Batch>> {
        self.file.seek(SeekFrom::Start(self.position))?;
        let mut header = [0; HEADER];
        if read_full(&mut self.file, &mut header)? < HEADER {
            return Ok(None);
        }
        let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let length = word(4) as usize;
        if word(0) != MAGIC || length > MAX_ENTRY {
            return Err(damage());
        }
        // A damaged length must not cost the memory that it claims.
        self.buffer.clear();
        self.buffer.reserve(length.min(1 << 20));
        (&mut self.file).take(length as u64).read_to_end(&mut self.buffer)?;
        if self.buffer.len() < length || crc(&self.buffer) != word(8) {
            return Err(damage());
        }
        let batch = decode(&self.buffer).ok_or_else(damage)?;
        self.position += (HEADER + length) as u64;
        Ok(Some(batch))
    }
}

fn damage() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "damaged spool entry")
}

fn read_full(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

fn encode(out: &mut Vec<u8>, batch: &Batch) {
    out.clear();
    out.resize(HEADER, 0);
    let origin = &*batch.origin;
    let (mark, time) = match batch.layout {
        Layout::Framed => (0, None),
        Layout::Lines { time } => (LINES, Some(time)),
    };
    let count = u64::from(batch.count) | mark;
    for number in [batch.sequence, batch.start, batch.end, batch.mark, count, origin.id] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    let mut text = |bytes: &[u8]| {
        out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(bytes);
    };
    text(origin.name.as_bytes());
    text(&origin.fields);
    text(&origin.identity);
    text(&(origin.labels.len() as u32).to_le_bytes());
    for (name, value) in &origin.labels {
        text(name.as_bytes());
        text(value.as_bytes());
    }
    if let Some(time) = time {
        text(&time.to_le_bytes());
    }
    text(&batch.frames);
    let length = ((out.len() - HEADER) as u32).to_le_bytes();
    let sum = crc(&out[HEADER..]).to_le_bytes();
    out[0..4].copy_from_slice(&MAGIC.to_le_bytes());
    out[4..8].copy_from_slice(&length);
    out[8..12].copy_from_slice(&sum);
}

fn decode(payload: &[u8]) -> Option<Batch> {
    let mut rest = payload;
    let mut number = || -> Option<u64> {
        let (head, tail) = rest.split_first_chunk::<8>()?;
        rest = tail;
        Some(u64::from_le_bytes(*head))
    };
    let (sequence, start, end) = (number()?, number()?, number()?);
    let (mark, count, id) = (number()?, number()?, number()?);
    let mut bytes = || -> Option<&[u8]> {
        let (head, tail) = rest.split_first_chunk::<4>()?;
        let (text, tail) = tail.split_at_checked(u32::from_le_bytes(*head) as usize)?;
        rest = tail;
        Some(text)
    };
    let name = String::from_utf8_lossy(bytes()?).into_owned();
    let (fields, identity) = (bytes()?.to_vec(), bytes()?.to_vec());
    let many = u32::from_le_bytes(bytes()?.try_into().ok()?);
    let mut labels = Vec::new();
    for _ in 0..many {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        labels.push((text(bytes()?), text(bytes()?)));
    }
    let layout = match count & LINES {
        0 => Layout::Framed,
        _ => Layout::Lines { time: i64::from_le_bytes(bytes()?.try_into().ok()?) },
    };
    let frames = bytes()?.to_vec();
    let origin = Arc::new(Origin { id, name, fields, labels, identity });
    Some(Batch { sequence, origin, start, end, mark, count: u32::try_from(count & !LINES).ok()?, layout, frames })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::batch::Record;

    fn batch(sequence: u64) -> Batch {
        let origin = Origin {
            id: 3,
            name: "/log/app.log".to_owned(),
            labels: vec![("a".to_owned(), "b".to_owned())],
            ..Origin::default()
        };
        let mut batch = Batch { sequence, ..Batch::new(Arc::new(origin), sequence * 10) };
        let body = vec![b'x'; 50];
        let record =
            Record { time: 1, flags: Default::default(), severity: Default::default(), body: &body, fields: b"" };
        batch.push(&record);
        batch.end = sequence * 10 + 10;
        batch
    }

    fn open(directory: &Path) -> (Spool, Vec<Batch>) {
        let mut found = Vec::new();
        let spool = Spool::open(directory, 400, |batch| found.push(batch)).unwrap();
        (spool, found)
    }

    #[test]
    fn lines_come_back_as_lines() {
        let mut batch = Batch { sequence: 1, ..Batch::new(Arc::default(), 3) };
        batch.take_lines(b"one\ntwo\n", 2, -5);
        let mut entry = Vec::new();
        encode(&mut entry, &batch);
        assert_eq!(decode(&entry[HEADER..]), Some(batch));
    }

    #[test]
    fn entries_survive_and_go_from_the_front() {
        let directory = tempfile::tempdir().unwrap();
        let (mut spool, _) = open(directory.path());
        for sequence in 1..=10 {
            spool.append(&batch(sequence)).unwrap();
        }
        assert!(spool.segments.len() > 2);
        let (mut spool, found) = open(directory.path());
        assert_eq!(found, (1..=10).map(batch).collect::<Vec<_>>());
        spool.remove_through(5).unwrap();
        let kept = spool.segment_of(6).unwrap().clone();
        assert!(kept.first <= 6 && spool.segments[0] == kept);
        spool.remove_through(10).unwrap();
        assert_eq!((spool.bytes(), fs::read_dir(directory.path()).unwrap().count()), (0, 0));
    }

    proptest! {
        // Each case is some thirty file operations.
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// A power cut keeps any prefix, or flips what it did not keep.
        #[test]
        fn a_torn_spool_yields_a_prefix(cut in 0usize..2000, flip in proptest::option::of(0usize..2000)) {
            let directory = tempfile::tempdir().unwrap();
            let mut spool = Spool::open(directory.path(), 1 << 20, |_| {}).unwrap();
            for sequence in 1..=10 {
                spool.append(&batch(sequence)).unwrap();
            }
            let path = spool.path(1);
            let mut bytes = fs::read(&path).unwrap();
            bytes.truncate(bytes.len().min(cut));
            if let Some(at) = flip.filter(|at| *at < bytes.len()) {
                bytes[at] ^= 0x40;
            }
            fs::write(&path, &bytes).unwrap();
            let (mut spool, found) = open(directory.path());
            prop_assert_eq!(&found, &(1..=found.len() as u64).map(batch).collect::<Vec<_>>());
            // And it goes on where it was cut.
            spool.append(&batch(found.len() as u64 + 1)).unwrap();
            prop_assert_eq!(open(directory.path()).1.len(), found.len() + 1);
        }
    }
}
