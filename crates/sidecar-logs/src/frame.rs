//! From the bytes of one file to records: lines, partial lines joined, traces grouped, JSON understood.
//!
//! A pure function of the bytes and of how they end: what is not finished is simply not consumed, and seen again with
//! more behind it. So nothing is remembered between two calls, grouping cannot depend on how reads happened to fall, and
//! a file costs no memory.

use std::cell::RefCell;

use logfile::{Stream, parse};
use memchr::{memchr_iter, memchr3, memrchr};
use record::{Batch, Flags, Record, Severity};

use crate::config::Format;
use crate::encoding::Encoding;
use crate::multiline::{Inside, Rule};
use crate::parse::Parser;

/// What follows the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Perhaps more, soon.
    Open,
    /// Nothing for the idle time: groups are finished, an unfinished line is not.
    Idle,
    /// No more room to look further: what is open is finished as far as it goes.
    Full,
    /// Nothing, ever.
    Final,
}

/// How one source is read.
#[derive(Debug)]
pub struct Framer {
    pub format: Format,
    pub parser: Parser,
    pub rule: Option<Rule>,
    /// A longer line is cut.
    pub max_line: usize,
    /// Room for a record's fields.
    pub scratch: RefCell<Vec<u8>>,
}

/// A record that may still grow.
#[derive(Debug, Default)]
struct Group {
    /// Where it begins; `None`: there is none.
    start: Option<usize>,
    /// Behind its last line so far.
    end: usize,
    time: i64,
    body: Vec<u8>,
    /// The last piece ended without a newline.
    partial: bool,
    inside: Inside,
}

/// Both streams' groups, and how far the lines of finished records reach.
#[derive(Debug, Default)]
struct Groups {
    streams: [Group; 2],
    finished: usize,
}

/// Where consuming must stop: the beginning of an open group, with no finished record beyond it; and what the batch held
/// then. Streams interleave, so a record that was finished later may have lines on both sides of another's beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hold {
    start: usize,
    frames: usize,
    count: u32,
}

impl Framer {
    /// Whether an idle end makes a difference.
    pub fn groups(&self) -> bool {
        self.rule.is_some() || self.format == Format::Cri
    }

    /// Appends the finished records of `bytes` to `batch`; returns how many bytes they took. `now` stands for times that
    /// lines do not have.
    pub fn frame(&self, encoding: Encoding, bytes: &[u8], end: End, now: i64, batch: &mut Batch) -> usize {
        if encoding == Encoding::Utf8 {
            return self.frame_text(bytes, end, now, batch);
        }
        let text = encoding.decode(bytes, end == End::Final);
        let used = self.frame_text(&text, end, now, batch);
        if used == text.len() && end == End::Final { bytes.len() } else { encoding.encoded_length(bytes, used) }
    }

    fn frame_text(&self, bytes: &[u8], end: End, now: i64, batch: &mut Batch) -> usize {
        let used = if let Some(used) = self.take_lines(bytes, now, batch) {
            used
        } else if self.groups() {
            self.frame_groups(bytes, end, now, batch)
        } else {
            batch.frames.reserve(bytes.len() + bytes.len() / 4);
            let mut at = 0;
            for newline in memchr_iter(b'\n', bytes) {
                self.line(&bytes[at..newline], now, batch);
                at = newline + 1;
            }
            at
        };
        let rest = &bytes[used..];
        match end {
            End::Final if !rest.is_empty() => {
                // The writer died in the middle of a line: it is a line all the same.
                self.text(now, Flags(0), self.clean(rest), batch);
                bytes.len()
            }
            End::Full if used == 0 && !rest.is_empty() => {
                let length = cut(rest, self.max_line);
                self.text(now, Flags::PARTIAL, clean_start(&rest[..length]), batch);
                length
            }
            _ => used,
        }
    }

    /// One message as it came: what frames it is outside. Newlines at its end are not part of it.
    pub fn message(&self, bytes: &[u8], now: i64, batch: &mut Batch) {
        let end = bytes.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r' | 0)).map_or(0, |last| last + 1);
        if end > 0 {
            self.line(&bytes[..end], now, batch);
        }
    }

    /// All whole lines at once, when there is nothing to be found, cut or cleaned in them.
    fn take_lines(&self, bytes: &[u8], now: i64, batch: &mut Batch) -> Option<usize> {
        if !matches!(self.parser, Parser::None) || self.groups() || batch.count > 0 {
            return None;
        }
        let used = memrchr(b'\n', bytes)? + 1;
        let lines = &bytes[..used];
        // A carriage return, a hole, or perhaps the mark of a beginning.
        if memchr3(b'\r', 0, 0xef, lines).is_some() || !self.fits(lines) {
            return None;
        }
        let count = u32::try_from(memchr_iter(b'\n', lines).count()).ok()?;
        batch.take_lines(lines, count, now);
        Some(used)
    }

    /// Whether no line is too long: the last newline within reach of a line's beginning begins the next to look at.
    fn fits(&self, lines: &[u8]) -> bool {
        let mut rest = lines;
        while rest.len() > self.max_line {
            let Some(newline) = memrchr(b'\n', &rest[..=self.max_line.min(rest.len() - 1)]) else { return false };
            rest = &rest[newline + 1..];
        }
        true
    }

    fn clean<'a>(&self, line: &'a [u8]) -> &'a [u8] {
        clean_start(line.strip_suffix(b"\r").unwrap_or(line))
    }

    /// One whole line of a format without groups. Too long ones are cut here too, so that cutting does not depend on
    /// how much happened to be read.
    fn line(&self, line: &[u8], now: i64, batch: &mut Batch) {
        let line = self.clean(line);
        if line.len() <= self.max_line {
            return self.text(now, Flags(0), line, batch);
        }
        let mut rest = line;
        while rest.len() > self.max_line {
            let length = cut(rest, self.max_line);
            self.text(now, Flags::PARTIAL, &rest[..length], batch);
            rest = &rest[length..];
        }
        self.text(now, Flags(0), rest, batch);
    }

    fn frame_groups(&self, bytes: &[u8], end: End, now: i64, batch: &mut Batch) -> usize {
        let mut groups = Groups::default();
        let mut hold: Option<Hold> = None;
        batch.frames.reserve(bytes.len() + bytes.len() / 4);
        let mut at = 0;
        for newline in memchr_iter(b'\n', bytes) {
            let line = self.clean(&bytes[at..newline]);
            self.add(&mut groups, (at, newline + 1), line, now, batch);
            let oldest = groups.streams.iter().filter_map(|group| group.start).min();
            hold = match (oldest, hold) {
                (Some(start), Some(hold)) if start == hold.start || groups.finished > start => Some(hold),
                (Some(start), _) => Some(Hold { start, frames: batch.frames.len(), count: batch.count }),
                (None, _) => None,
            };
            at = newline + 1;
        }
        let finish =
            matches!(end, End::Idle | End::Final) || (end == End::Full && hold.is_some_and(|hold| hold.start == 0));
        match hold {
            Some(_) if finish => {
                for stream in 0..2 {
                    self.close(&mut groups, stream, batch);
                }
                at
            }
            Some(hold) => {
                batch.frames.truncate(hold.frames);
                batch.count = hold.count;
                hold.start
            }
            None => at,
        }
    }

    /// One line, with where it begins and ends.
    fn add(&self, groups: &mut Groups, (at, end): (usize, usize), line: &[u8], now: i64, batch: &mut Batch) {
        let mut stream = 0;
        let (mut when, mut content, mut partial) = (now, line, false);
        if self.format == Format::Cri {
            // What is no entry is passed on as it is: better odd than lost.
            if let Ok(entry) = parse::parse(line) {
                stream = usize::from(entry.stream == Stream::Stderr);
                (when, content, partial) = (entry.time, entry.content, entry.partial);
            }
        }
        let group = &groups.streams[stream];
        let open = group.start.is_some();
        // Only a line's beginning decides; for a split line that is its first piece.
        if !(open && group.partial) {
            let mut joined = false;
            if let Some(rule) = &self.rule {
                let (joins, inside) = rule.joins(group.inside, content);
                joined = joins && open && group.body.len() + content.len() < self.max_line;
                groups.streams[stream].inside = inside;
            }
            if joined {
                groups.streams[stream].body.push(b'\n');
            } else {
                self.close(groups, stream, batch);
                if !partial && self.rule.is_none() {
                    // The common case: nothing to wait for.
                    groups.finished = end;
                    return self.text(when, flags_of(self.format, stream), content, batch);
                }
                let group = &mut groups.streams[stream];
                (group.start, group.time) = (Some(at), when);
                group.body.clear();
            }
        }
        let group = &mut groups.streams[stream];
        group.body.extend_from_slice(content);
        (group.partial, group.end) = (partial, end);
        if !partial && self.rule.is_none() {
            self.close(groups, stream, batch);
        }
    }

    fn close(&self, groups: &mut Groups, stream: usize, batch: &mut Batch) {
        let group = &mut groups.streams[stream];
        if group.start.take().is_some() {
            group.partial = false;
            groups.finished = groups.finished.max(group.end);
            self.text(group.time, flags_of(self.format, stream), &group.body, batch);
        }
    }

    fn text(&self, now: i64, flags: Flags, body: &[u8], batch: &mut Batch) {
        let record = Record { time: now, flags, severity: Severity::Unknown, body, fields: b"" };
        match &self.parser {
            Parser::None => batch.push(&record),
            parser => parser.understand(record, &mut self.scratch.borrow_mut(), |record| batch.push(record)),
        }
    }
}

/// At most `limit` bytes, not in the middle of a character.
fn cut(text: &[u8], limit: usize) -> usize {
    let limit = limit.min(text.len());
    let mut at = limit;
    while at < text.len() && at > 0 && limit - at < 4 && text[at] & 0xc0 == 0x80 {
        at -= 1;
    }
    if at == 0 || limit - at == 4 { limit } else { at }
}

/// A file that was truncated under a writer with an offset of its own begins with a hole.
/// Some programs mark the beginning of a file (U+FEFF).
fn clean_start(line: &[u8]) -> &[u8] {
    match line {
        [0, ..] => &line[line.iter().position(|byte| *byte != 0).unwrap_or(line.len())..],
        [0xef, 0xbb, 0xbf, rest @ ..] => rest,
        _ => line,
    }
}

const fn flags_of(format: Format, stream: usize) -> Flags {
    match (format, stream) {
        (Format::Plain, _) => Flags(0),
        (Format::Cri, 0) => Flags::STDOUT,
        (Format::Cri, _) => Flags::STDERR,
    }
}

#[cfg(test)]
mod tests;
