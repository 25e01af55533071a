//! From the bytes of one file to records: lines, partial lines joined, traces grouped, JSON understood.
//!
//! A pure function of the bytes and of how they end: what is not finished is simply not consumed, and seen again with
//! more behind it. So nothing is remembered between two calls, grouping cannot depend on how reads happened to fall, and
//! a file costs no memory.

use logfile::{Stream, parse, time};
use memchr::memchr_iter;
use record::{Batch, Flags, Record, Severity, json};

use crate::config::{Format, Parse};
use crate::multiline::{Inside, Rule};
use crate::stages::Stages;

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
    pub parse: Parse,
    pub rule: Option<Rule>,
    pub stages: Stages,
    /// A longer line is cut.
    pub max_line: usize,
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
    pub fn frame(&self, bytes: &[u8], end: End, now: i64, batch: &mut Batch) -> usize {
        let used = if self.groups() {
            self.frame_groups(bytes, end, now, batch)
        } else {
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
                let piece = &rest[..rest.len().min(self.max_line)];
                self.text(now, Flags::PARTIAL, clean_start(piece), batch);
                piece.len()
            }
            _ => used,
        }
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
        let mut pieces = line.chunks(self.max_line).peekable();
        while let Some(piece) = pieces.next() {
            let flags = if pieces.peek().is_some() { Flags::PARTIAL } else { Flags(0) };
            self.text(now, flags, piece, batch);
        }
    }

    fn frame_groups(&self, bytes: &[u8], end: End, now: i64, batch: &mut Batch) -> usize {
        let mut groups = Groups::default();
        let mut hold: Option<Hold> = None;
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
        let mut record = Record { time: now, flags, severity: Severity::Unknown, body, fields: b"" };
        let mut fields = Vec::new();
        match self.parse {
            Parse::None => {}
            Parse::Json => understand_json(&mut record),
            Parse::Logfmt => {
                understand_logfmt(&mut record, &mut fields);
                record.fields = &fields;
            }
        }
        if self.stages.is_empty() {
            batch.push(&record);
        } else {
            self.stages.apply(&record, |record| batch.push(record));
        }
    }
}

/// A file that was truncated under a writer with an offset of its own begins with a hole.
fn clean_start(line: &[u8]) -> &[u8] {
    match line {
        [0, ..] => &line[line.iter().position(|byte| *byte != 0).unwrap_or(line.len())..],
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

fn understand_json(record: &mut Record<'_>) {
    if record.flags.has(Flags::PARTIAL) || !record.body.trim_ascii_start().starts_with(b"{") {
        return;
    }
    let (mut when, mut severity) = (None, Severity::Unknown);
    let whole = json::object(record.body, |(key, value)| match key {
        b"time" | b"timestamp" | b"ts" | b"@timestamp" => when = when.or_else(|| moment(value)),
        b"level" | b"severity" | b"lvl" | b"levelname" => {
            severity = Severity::parse(json::string_value(value).unwrap_or(value));
        }
        _ => {}
    });
    if whole {
        record.flags = record.flags.with(Flags::OBJECT);
        record.time = when.unwrap_or(record.time);
        record.severity = severity;
    }
}

/// RFC 3339, or seconds, milliseconds, microseconds or nanoseconds since 1970: told apart by their size.
fn moment(value: &[u8]) -> Option<i64> {
    let text = json::string_value(value).unwrap_or(value);
    if let Some(nanos) = time::parse_rfc3339(text) {
        return Some(nanos);
    }
    let number: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    let scale = match number.abs() {
        size if size < 1e11 => 1e9,
        size if size < 1e14 => 1e6,
        size if size < 1e17 => 1e3,
        _ => 1.0,
    };
    (number.is_finite() && number > 0.0).then_some((number * scale) as i64)
}

fn understand_logfmt(record: &mut Record<'_>, fields: &mut Vec<u8>) {
    let mut rest = record.body;
    while !rest.is_empty() {
        rest = rest.trim_ascii_start();
        let end = rest.iter().position(|byte| matches!(byte, b'=' | b' ')).unwrap_or(rest.len());
        let (key, tail) = rest.split_at(end);
        let Some(tail) = tail.strip_prefix(b"=") else {
            rest = tail;
            continue;
        };
        let (value, tail) = match tail.strip_prefix(b"\"") {
            Some(quoted) => {
                let mut at = 0;
                while at < quoted.len() && quoted[at] != b'"' {
                    at += if quoted[at] == b'\\' { 2 } else { 1 };
                }
                let at = at.min(quoted.len());
                (&quoted[..at], quoted.get(at + 1..).unwrap_or_default())
            }
            None => tail.split_at(tail.iter().position(|byte| *byte == b' ').unwrap_or(tail.len())),
        };
        rest = tail;
        match key {
            b"" => continue,
            b"level" | b"severity" | b"lvl" => record.severity = Severity::parse(value),
            b"time" | b"ts" | b"timestamp" => record.time = time::parse_rfc3339(value).unwrap_or(record.time),
            _ => {}
        }
        // Ours has these names already.
        if matches!(key, b"time" | b"message" | b"stream" | b"partial") {
            continue;
        }
        if !fields.is_empty() {
            fields.push(b',');
        }
        json::string(fields, key);
        fields.push(b':');
        let mut plain = Vec::new();
        json::unescape(&mut plain, value);
        json::string(fields, &plain);
    }
}

#[cfg(test)]
mod tests;
