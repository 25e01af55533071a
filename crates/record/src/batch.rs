//! Records in one flat buffer: one allocation for thousands of lines, and the same bytes in memory and in the spool.

use std::sync::Arc;

/// `time i64 | body u32 | fields u32 | flags u8 | severity u8 | 0 u16`, little endian.
const HEADER: usize = 20;

/// What is known about a record besides its text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    pub const STDOUT: Flags = Flags(1);
    pub const STDERR: Flags = Flags(2);
    /// The body is one JSON object, checked.
    pub const OBJECT: Flags = Flags(4);
    /// The line goes on in the next record: it was longer than the limit, or its end never came.
    pub const PARTIAL: Flags = Flags(8);

    pub const fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    #[must_use]
    pub const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    #[must_use]
    pub const fn without(self, other: Flags) -> Flags {
        Flags(self.0 & !other.0)
    }
}

/// Severities of the OpenTelemetry log data model, their smallest numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Severity {
    #[default]
    Unknown = 0,
    Trace = 1,
    Debug = 5,
    Info = 9,
    Warn = 13,
    Error = 17,
    Fatal = 21,
}

impl Severity {
    /// The words in common use, and the numbers of pino and bunyan.
    pub fn parse(text: &[u8]) -> Severity {
        let mut lower = [0u8; 9];
        let Some(word) = lower.get_mut(..text.len()) else { return Severity::Unknown };
        word.copy_from_slice(text);
        word.make_ascii_lowercase();
        match &*word {
            b"trace" | b"10" | b"finest" | b"verbose" => Severity::Trace,
            b"debug" | b"dbg" | b"20" | b"fine" => Severity::Debug,
            b"info" | b"information" | b"notice" | b"inf" | b"30" => Severity::Info,
            b"warn" | b"warning" | b"wrn" | b"40" => Severity::Warn,
            b"error" | b"err" | b"severe" | b"50" => Severity::Error,
            b"fatal" | b"critical" | b"crit" | b"alert" | b"emerg" | b"panic" | b"60" => Severity::Fatal,
            _ => Severity::Unknown,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Severity::Unknown => "",
            Severity::Trace => "TRACE",
            Severity::Debug => "DEBUG",
            Severity::Info => "INFO",
            Severity::Warn => "WARN",
            Severity::Error => "ERROR",
            Severity::Fatal => "FATAL",
        }
    }

    fn from_number(number: u8) -> Severity {
        match number {
            1..=4 => Severity::Trace,
            5..=8 => Severity::Debug,
            9..=12 => Severity::Info,
            13..=16 => Severity::Warn,
            17..=20 => Severity::Error,
            21..=24 => Severity::Fatal,
            _ => Severity::Unknown,
        }
    }
}

/// One record, borrowed from its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Nanoseconds since 1970.
    pub time: i64,
    pub flags: Flags,
    pub severity: Severity,
    pub body: &'a [u8],
    /// More JSON members, as text: `"a":1,"b":"c"`.
    pub fields: &'a [u8],
}

/// Where records come from: one incarnation of one file, or one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Unique within a state directory, for ever.
    pub id: u64,
    /// What people call it: a path.
    pub name: String,
    /// JSON members that every record of it gets, as text.
    pub fields: Vec<u8>,
    /// The same as names and values, for sinks with labels.
    pub labels: Vec<(String, String)>,
    /// How the source finds it again; not looked at here.
    pub identity: Vec<u8>,
}

/// How records lie in [`Batch::frames`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// A header, the text and the fields, one record after the other.
    #[default]
    Framed,
    /// Lines as they stood in a file, each with its newline, all of one time: nothing was found in them, so nothing needs
    /// to be written beside them, and who wants lines can have them all at once.
    Lines { time: i64 },
}

/// A stretch `start..end` of an origin, as records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Given by the queue.
    pub sequence: u64,
    pub origin: Arc<Origin>,
    pub start: u64,
    pub end: u64,
    /// How the source recognises the place `end` later; saved with it.
    pub mark: u64,
    pub count: u32,
    pub layout: Layout,
    pub frames: Vec<u8>,
}

impl Batch {
    pub fn new(origin: Arc<Origin>, start: u64) -> Batch {
        Batch { sequence: 0, origin, start, end: start, mark: 0, count: 0, layout: Layout::Framed, frames: Vec::new() }
    }

    /// Everything but the records.
    pub fn clone_head(&self) -> Batch {
        Batch { count: 0, layout: Layout::Framed, frames: Vec::new(), origin: Arc::clone(&self.origin), ..*self }
    }

    /// Appends a record. Bodies and fields are shorter than 4 GiB.
    pub fn push(&mut self, record: &Record<'_>) {
        if self.layout != Layout::Framed {
            self.frame();
        }
        let mut header = [0u8; HEADER];
        header[0..8].copy_from_slice(&record.time.to_le_bytes());
        header[8..12].copy_from_slice(&(record.body.len() as u32).to_le_bytes());
        header[12..16].copy_from_slice(&(record.fields.len() as u32).to_le_bytes());
        header[16] = record.flags.0;
        header[17] = record.severity as u8;
        self.frames.extend_from_slice(&header);
        self.frames.extend_from_slice(record.body);
        self.frames.extend_from_slice(record.fields);
        self.count += 1;
    }

    /// Takes lines as they are: whole ones, each with its newline, `count` of them. Only into an empty batch.
    pub fn take_lines(&mut self, lines: &[u8], count: u32, time: i64) {
        debug_assert!(self.frames.is_empty() && lines.last().is_none_or(|byte| *byte == b'\n'));
        self.layout = Layout::Lines { time };
        self.frames.reserve_exact(lines.len());
        self.frames.extend_from_slice(lines);
        self.count = count;
    }

    /// The text of all records if that is all there is: lines with their newlines.
    pub fn lines(&self) -> Option<&[u8]> {
        matches!(self.layout, Layout::Lines { .. }).then_some(&self.frames)
    }

    /// Something else follows the lines.
    fn frame(&mut self) {
        let lines = std::mem::replace(self, self.clone_head());
        self.frames.reserve(lines.frames.len() + lines.count as usize * HEADER);
        lines.records().for_each(|record| self.push(&record));
    }

    pub fn records(&self) -> Records<'_> {
        Records { rest: &self.frames, layout: self.layout }
    }

    /// Bytes it holds in memory, about.
    pub fn weight(&self) -> usize {
        self.frames.len() + 128
    }
}

/// The records that `keep` wants, by their number over all batches; batches without any are left out.
pub fn filtered(batches: &[Arc<Batch>], mut keep: impl FnMut(usize, &Record<'_>) -> bool) -> Vec<Arc<Batch>> {
    let mut left = Vec::new();
    let mut number = 0;
    for batch in batches {
        let mut part = batch.clone_head();
        for record in batch.records() {
            if keep(number, &record) {
                part.push(&record);
            }
            number += 1;
        }
        if part.count > 0 {
            left.push(Arc::new(part));
        }
    }
    left
}

#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
    layout: Layout,
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        if let Layout::Lines { time } = self.layout {
            let end = memchr::memchr(b'\n', self.rest)?;
            let body = &self.rest[..end];
            self.rest = &self.rest[end + 1..];
            return Some(Record { time, flags: Flags(0), severity: Severity::Unknown, body, fields: b"" });
        }
        let (header, rest) = self.rest.split_first_chunk::<HEADER>()?;
        let word =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]) as usize;
        let (body, rest) = rest.split_at_checked(word(8))?;
        let (fields, rest) = rest.split_at_checked(word(12))?;
        self.rest = rest;
        let mut time = [0; 8];
        time.copy_from_slice(&header[..8]);
        let (flags, severity) = (Flags(header[16]), Severity::from_number(header[17]));
        Some(Record { time: i64::from_le_bytes(time), flags, severity, body, fields })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back() {
        let mut batch = Batch::new(Arc::default(), 5);
        let one = Record { time: -7, flags: Flags::STDERR, severity: Severity::Warn, body: b"hello", fields: b"" };
        let two = Record { time: i64::MAX, flags: Flags::OBJECT, body: b"{}", fields: b"\"a\":1", ..one };
        batch.push(&one);
        batch.push(&two);
        assert_eq!(batch.records().collect::<Vec<_>>(), [one, two]);
        assert_eq!(batch.count, 2);
        batch.frames.pop();
        assert_eq!(batch.records().count(), 1, "a torn end is no record");
    }

    #[test]
    fn lines_are_records_too() {
        let mut batch = Batch::new(Arc::default(), 0);
        batch.take_lines(b"a\n\nb\n", 3, 7);
        let record =
            |body: &'static [u8]| Record { time: 7, flags: Flags(0), severity: Severity::Unknown, body, fields: b"" };
        assert_eq!(batch.records().collect::<Vec<_>>(), [record(b"a"), record(b""), record(b"b")]);
        assert_eq!(batch.lines(), Some(&b"a\n\nb\n"[..]));
        // What has fields needs a frame, and so does everything before it.
        let more = Record { fields: b"\"x\":1", ..record(b"c") };
        batch.push(&more);
        assert_eq!(batch.records().collect::<Vec<_>>(), [record(b"a"), record(b""), record(b"b"), more]);
        assert_eq!((batch.count, batch.lines()), (4, None));
    }

    #[test]
    fn severities() {
        for (text, severity) in [
            ("WARNING", Severity::Warn),
            ("Info", Severity::Info),
            ("50", Severity::Error),
            ("loud", Severity::Unknown),
        ] {
            assert_eq!(Severity::parse(text.as_bytes()), severity, "{text}");
        }
        assert_eq!(Severity::parse(b"a word that is far too long"), Severity::Unknown);
    }
}
