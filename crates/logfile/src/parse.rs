//! One entry of a log file, read back.

use crate::{Stream, time};

/// A parsed entry; `content` borrows from the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Nanoseconds since 1970.
    pub time: i64,
    pub stream: Stream,
    /// The line goes on in the next entry of this stream.
    pub partial: bool,
    pub content: &'a [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParseError {
    Time,
    Stream,
    Tag,
}

impl std::fmt::Display for ParseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            ParseError::Time => "log entry does not begin with a time",
            ParseError::Stream => "log entry names neither stdout nor stderr",
            ParseError::Tag => "log entry is tagged neither F nor P",
        })
    }
}

impl std::error::Error for ParseError {}

/// Parses a line of a log file, given without its newline.
pub fn parse(line: &[u8]) -> Result<Entry<'_>, ParseError> {
    let (time, rest) = field(line).ok_or(ParseError::Time)?;
    let time = time::parse_rfc3339(time).ok_or(ParseError::Time)?;
    let (stream, rest) = field(rest).ok_or(ParseError::Stream)?;
    let stream = match stream {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return Err(ParseError::Stream),
    };
    // An empty message may have lost its space to an editor.
    let (tags, content) = field(rest).unwrap_or((rest, b""));
    // Only the first of several tags, joined by colons, has a meaning.
    let partial = match tags.split(|byte| *byte == b':').next() {
        Some(b"F") => false,
        Some(b"P") => true,
        _ => return Err(ParseError::Tag),
    };
    Ok(Entry { time, stream, partial, content })
}

fn field(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = text.iter().position(|byte| *byte == b' ')?;
    Some((&text[..space], &text[space + 1..]))
}

/// A whole line of a container's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Of the line's first entry.
    pub time: i64,
    pub stream: Stream,
    pub content: Vec<u8>,
    /// The container wrote a newline; without it this is the last of its stream.
    pub terminated: bool,
}

/// Puts the entries of split lines together again, each stream for itself.
#[derive(Debug, Default)]
pub struct Joiner {
    open: [Option<(i64, Vec<u8>)>; 2],
}

impl Joiner {
    /// Takes the next entry; the line it completes, if any.
    pub fn push(&mut self, entry: &Entry<'_>) -> Option<Message> {
        let open = &mut self.open[entry.stream as usize];
        let (_, content) = open.get_or_insert_with(|| (entry.time, Vec::new()));
        content.extend_from_slice(entry.content);
        if entry.partial {
            return None;
        }
        let (time, content) = open.take()?;
        Some(Message { time, stream: entry.stream, content, terminated: true })
    }

    /// The lines that never ended, stdout's first.
    pub fn finish(self) -> impl Iterator<Item = Message> {
        let streams = [Stream::Stdout, Stream::Stderr].into_iter().zip(self.open);
        streams.filter_map(|(stream, open)| {
            open.map(|(time, content)| Message { time, stream, content, terminated: false })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_786_795_200_000_000_000;

    #[test]
    fn entries() {
        let entry = |stream, partial, content: &'static str| {
            Ok(Entry { time: NOON, stream, partial, content: content.as_bytes() })
        };
        for (line, expected) in [
            ("2026-08-15T12:00:00.000000000Z stdout F hello world", entry(Stream::Stdout, false, "hello world")),
            ("2026-08-15T14:00:00+02:00 stderr P part", entry(Stream::Stderr, true, "part")),
            ("2026-08-15T12:00:00Z stdout F ", entry(Stream::Stdout, false, "")),
            ("2026-08-15T12:00:00Z stdout F", entry(Stream::Stdout, false, "")),
            ("2026-08-15T12:00:00Z stdout F  lead", entry(Stream::Stdout, false, " lead")),
            ("2026-08-15T12:00:00Z stdout P:x y", entry(Stream::Stdout, true, "y")),
            ("", Err(ParseError::Time)),
            ("noise", Err(ParseError::Time)),
            ("noon stdout F x", Err(ParseError::Time)),
            ("2026-08-15T12:00:00Z stdin F x", Err(ParseError::Stream)),
            ("2026-08-15T12:00:00Z stdout", Err(ParseError::Stream)),
            ("2026-08-15T12:00:00Z stdout Q x", Err(ParseError::Tag)),
        ] {
            assert_eq!(parse(line.as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn split_lines_are_joined_by_stream() {
        let mut joiner = Joiner::default();
        let mut push = |stream, partial, content: &str, time| {
            let joined = joiner.push(&Entry { time, stream, partial, content: content.as_bytes() });
            joined.map(|message| (message.time, String::from_utf8(message.content).unwrap()))
        };
        assert_eq!(push(Stream::Stdout, true, "a", 1), None);
        assert_eq!(push(Stream::Stderr, false, "whole", 2), Some((2, "whole".to_owned())));
        assert_eq!(push(Stream::Stdout, true, "b", 3), None);
        assert_eq!(push(Stream::Stdout, false, "c", 4), Some((1, "abc".to_owned())));
        assert_eq!(push(Stream::Stderr, true, "cut", 5), None);
        let left: Vec<_> = joiner.finish().collect();
        assert_eq!(left, [Message { time: 5, stream: Stream::Stderr, content: b"cut".to_vec(), terminated: false }]);
    }
}
