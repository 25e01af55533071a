//! The chunked coding (RFC 9112 §7.1), read strictly and byte by byte where it must be: input comes in any pieces.

use std::ops::Range;

use crate::head::field::is_like;
use crate::head::{Refusal, TOKEN, is_value};
use crate::hex;

/// Extensions of all chunks of one body together; nobody uses them but attackers (they are not passed on).
const EXTENSIONS: u32 = 4096;
/// Bytes of the trailer section.
const TRAILERS: usize = 8192;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size { digits: u8 },
    Extension,
    SizeEnd,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
    Done,
}

/// What the next bytes were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Payload: this range of the input.
    Data(Range<usize>),
    /// The input is used up.
    More,
    /// The body, with its trailers, is over.
    Done,
}

#[derive(Clone, Debug)]
pub struct Chunked {
    state: State,
    left: u64,
    extensions: u32,
    /// Trailer lines as they came, each with its CR LF.
    trailers: Vec<u8>,
    line: usize,
}

impl Default for Chunked {
    fn default() -> Chunked {
        Chunked { state: State::Size { digits: 0 }, left: 0, extensions: 0, trailers: Vec::new(), line: 0 }
    }
}

impl Chunked {
    /// Reads on; the number says how many bytes were used.
    pub fn next(&mut self, bytes: &[u8]) -> Result<(usize, Piece), Refusal> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            match self.state {
                State::Data => {
                    let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - at);
                    self.left -= length as u64;
                    if self.left == 0 {
                        self.state = State::DataCr;
                    }
                    return Ok((at + length, Piece::Data(at..at + length)));
                }
                State::Done => return Ok((at, Piece::Done)),
                _ => self.step(byte)?,
            }
            at += 1;
            if self.state == State::Done {
                return Ok((at, Piece::Done));
            }
        }
        Ok((at, if self.state == State::Done { Piece::Done } else { Piece::More }))
    }

    fn step(&mut self, byte: u8) -> Result<(), Refusal> {
        self.state = match (self.state, byte) {
            (State::Size { digits }, _) if byte.is_ascii_hexdigit() => {
                if digits == 15 {
                    return Err(Refusal::Chunk);
                }
                self.left = self.left << 4 | u64::from(hex::value(byte).unwrap_or(0));
                State::Size { digits: digits + 1 }
            }
            (State::Size { digits: 1.. }, b'\r') => State::SizeEnd,
            (State::Size { digits: 1.. }, b';') => State::Extension,
            (State::Extension, b'\r') => State::SizeEnd,
            (State::Extension, _) if is_value(&[byte]) => {
                self.extensions += 1;
                if self.extensions > EXTENSIONS {
                    return Err(Refusal::Chunk);
                }
                State::Extension
            }
            (State::SizeEnd, b'\n') if self.left > 0 => State::Data,
            (State::SizeEnd, b'\n') => State::TrailerStart,
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size { digits: 0 },
            (State::TrailerStart, b'\r') => State::EndLf,
            (State::EndLf, b'\n') => State::Done,
            (State::TrailerStart | State::Trailer, _) if byte != b'\r' => {
                if self.trailers.len() >= TRAILERS || !is_value(&[byte]) {
                    return Err(Refusal::Chunk);
                }
                self.trailers.push(byte);
                State::Trailer
            }
            (State::Trailer, b'\r') => State::TrailerLf,
            (State::TrailerLf, b'\n') => {
                self.end_line()?;
                State::TrailerStart
            }
            _ => return Err(Refusal::Chunk),
        };
        Ok(())
    }

    fn end_line(&mut self) -> Result<(), Refusal> {
        let line = &self.trailers[self.line..];
        let colon = line.iter().position(|byte| !TOKEN[usize::from(*byte)]);
        if !matches!(colon, Some(1..) if line[colon.unwrap_or(0)] == b':') {
            return Err(Refusal::Chunk);
        }
        if may_trail(&line[..colon.unwrap_or(0)]) {
            self.trailers.extend_from_slice(b"\r\n");
        } else {
            self.trailers.truncate(self.line);
        }
        self.line = self.trailers.len();
        Ok(())
    }

    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Trailer lines that may be passed on, each with its CR LF.
    pub fn trailers(&self) -> &[u8] {
        &self.trailers
    }
}

/// Fields that would change how the message is framed, routed or trusted may not come late (RFC 9110 §6.5.1), nor what an
/// application may take for them.
pub fn may_trail(name: &[u8]) -> bool {
    const EARLY: [&[u8]; 21] = [
        b"content-length",
        b"transfer-encoding",
        b"host",
        b"connection",
        b"trailer",
        b"te",
        b"upgrade",
        b"keep-alive",
        b"proxy-connection",
        b"content-type",
        b"content-encoding",
        b"content-range",
        b"authorization",
        b"proxy-authorization",
        b"cookie",
        b"set-cookie",
        b"expect",
        b"range",
        b"cache-control",
        b"max-forwards",
        b"forwarded",
    ];
    let forwarded: &[u8] = b"x-forwarded-";
    !EARLY.iter().any(|early| is_like(name, early))
        && !name.get(..forwarded.len()).is_some_and(|start| is_like(start, forwarded))
}

/// `length` in hexadecimal with the end of its line: the beginning of a chunk.
pub fn size_line(length: usize, out: &mut Vec<u8>) {
    let mut digits = [0; 18];
    let mut at = 16;
    digits[16..].copy_from_slice(b"\r\n");
    let mut rest = length;
    loop {
        at -= 1;
        digits[at] = b"0123456789abcdef"[rest & 15];
        rest >>= 4;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Payload, trailers and what is left, fed in pieces of `step`.
    fn read(text: &[u8], step: usize) -> Result<(Vec<u8>, Vec<u8>, usize), Refusal> {
        let (mut chunked, mut payload, mut used) = (Chunked::default(), Vec::new(), 0);
        let mut end = 0;
        while end < text.len() && !chunked.is_done() {
            end = (end + step).min(text.len());
            while used < end {
                let (length, piece) = chunked.next(&text[used..end])?;
                if let Piece::Data(range) = &piece {
                    payload.extend_from_slice(&text[used..end][range.clone()]);
                }
                used += length;
                if piece == Piece::Done || piece == Piece::More {
                    break;
                }
            }
        }
        assert!(chunked.is_done(), "not over");
        Ok((payload, chunked.trailers().to_vec(), text.len() - used))
    }

    #[test]
    fn good_bodies_in_any_pieces() {
        for (text, payload, trailers, left) in [
            ("0\r\n\r\n", "", "", 0),
            ("5\r\nhello\r\n0\r\n\r\nGET", "hello", "", 3),
            ("00005;a=b;c=\"d\"\r\nhello\r\n1\r\n \r\n0;x\r\n\r\n", "hello ", "", 0),
            ("1\r\na\r\n0\r\nX-Sum: 1\r\nContent-Length: 5\r\nY:\r\n\r\n", "a", "X-Sum: 1\r\nY:\r\n", 0),
            ("0\r\nX_Forwarded-Anything: 1\r\nCookie: a\r\nX-Forward: 1\r\n\r\n", "", "X-Forward: 1\r\n", 0),
        ] {
            for step in [1, 2, 3, 7, 1000] {
                let expected = (payload.as_bytes().to_vec(), trailers.as_bytes().to_vec());
                let (found, found_trailers, rest) = read(text.as_bytes(), step).unwrap();
                assert_eq!((found, found_trailers), expected, "{text:?} by {step}");
                if step == 1000 {
                    assert_eq!(rest, left);
                }
            }
        }
    }

    #[test]
    fn bad_bodies() {
        for text in [
            "\r\n",
            "g\r\n",
            "5\nhello\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "5\r\nhelloX\r\n",
            "5 \r\nhello\r\n",
            " 5\r\nhello\r\n",
            "+5\r\nhello\r\n",
            "0x5\r\nhello\r\n",
            "-1\r\n",
            "5;\nhello\r\n",
            "5;\0\r\n",
            "1000000000000000\r\n",
            "5\rhello",
            "0\r\nbad trailer\r\n\r\n",
            "0\r\n: x\r\n\r\n",
            "0\r\n x: y\r\n\r\n",
            "0\r\na b: y\r\n\r\n",
            "0\r\nx: y\n\r\n",
        ] {
            assert_eq!(read(text.as_bytes(), 1000).err(), Some(Refusal::Chunk), "{text:?}");
        }
    }

    #[test]
    fn what_nobody_needs_is_bounded() {
        let extended = |length: usize| format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(length));
        assert!(read(extended(4096).as_bytes(), 100_000).is_ok());
        assert_eq!(read(extended(4097).as_bytes(), 100_000).err(), Some(Refusal::Chunk));
        // Of all chunks together.
        let many = "1;xxxx\r\na\r\n".repeat(1025) + "0\r\n\r\n";
        assert_eq!(read(many.as_bytes(), 100_000).err(), Some(Refusal::Chunk));
        let trailing = |length: usize| format!("0\r\nX: {}\r\n\r\n", "y".repeat(length));
        assert!(read(trailing(8189).as_bytes(), 100_000).is_ok());
        assert_eq!(read(trailing(8190).as_bytes(), 100_000).err(), Some(Refusal::Chunk));
    }

    #[test]
    fn size_lines() {
        for (length, text) in [(0, "0\r\n"), (10, "a\r\n"), (4096, "1000\r\n"), (usize::MAX, "ffffffffffffffff\r\n")] {
            let mut out = Vec::new();
            size_line(length, &mut out);
            assert_eq!(out, text.as_bytes());
        }
    }
}
