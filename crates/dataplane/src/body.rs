//! A body on its way: how much of it is still to come, and what of the input belongs to it.

use std::ops::Range;

use crate::chunk::{Chunked, Piece, size_line};
use crate::head::{Length, Refusal};

#[derive(Debug)]
pub enum Body {
    /// Over, or never there.
    Done,
    Bytes(u64),
    Chunked(Chunked),
    Close,
}

/// What became of some input.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Bytes of the input that belonged to the body.
    pub used: usize,
    /// This part of the input goes out as it is. Anything else is in the output already.
    pub raw: Range<usize>,
    /// Bytes of payload.
    pub payload: u64,
    /// Trailer lines, if they are not in the output.
    pub trailers: Vec<u8>,
    /// Bytes of trailer lines in the output, which one empty line follows.
    pub trailed: usize,
}

impl Body {
    pub fn new(length: Length) -> Body {
        match length {
            Length::None | Length::Bytes(0) => Body::Done,
            Length::Bytes(bytes) => Body::Bytes(bytes),
            Length::Chunked => Body::Chunked(Chunked::default()),
            Length::Close => Body::Close,
        }
    }

    pub fn is_done(&self) -> bool {
        matches!(self, Body::Done)
    }

    /// Takes what belongs to the body; with `chunked` it is written to `out` as chunks.
    pub fn pass(&mut self, input: &[u8], chunked: bool, out: &mut Vec<u8>) -> Result<Passed, Refusal> {
        match self {
            Body::Done => Ok(Passed::default()),
            Body::Bytes(left) => {
                let used = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                *left -= used as u64;
                if *left == 0 {
                    *self = Body::Done;
                }
                Ok(Passed { used, raw: 0..used, payload: used as u64, ..Passed::default() })
            }
            Body::Close if chunked => {
                chunk(input, out);
                Ok(Passed { used: input.len(), raw: 0..0, payload: input.len() as u64, ..Passed::default() })
            }
            Body::Close => {
                Ok(Passed { used: input.len(), raw: 0..input.len(), payload: input.len() as u64, ..Passed::default() })
            }
            Body::Chunked(state) => {
                let (mut used, mut payload) = (0, 0);
                loop {
                    let (length, piece) = state.next(&input[used..])?;
                    match piece {
                        Piece::Data(range) => {
                            let data = &input[used..][range];
                            payload += data.len() as u64;
                            if chunked {
                                chunk(data, out);
                            } else {
                                out.extend_from_slice(data);
                            }
                        }
                        Piece::More => {
                            return Ok(Passed { used: used + length, raw: 0..0, payload, ..Passed::default() });
                        }
                        Piece::Done => {
                            if chunked {
                                last_chunk(state.trailers(), out);
                            }
                            let trailers = if chunked { Vec::new() } else { state.trailers().to_vec() };
                            let trailed = if chunked { state.trailers().len() } else { 0 };
                            *self = Body::Done;
                            return Ok(Passed { used: used + length, raw: 0..0, payload, trailers, trailed });
                        }
                    }
                    used += length;
                }
            }
        }
    }
}

/// One chunk.
pub fn chunk(data: &[u8], out: &mut Vec<u8>) {
    if data.is_empty() {
        return;
    }
    size_line(data.len(), out);
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

/// What says that no chunk follows, with the trailers' lines.
pub fn last_chunk(trailers: &[u8], out: &mut Vec<u8>) {
    for part in [b"0\r\n", trailers, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_a_body() {
        let mut out = Vec::new();
        let mut body = Body::new(Length::Bytes(5));
        assert_eq!(
            body.pass(b"abc", false, &mut out),
            Ok(Passed { used: 3, raw: 0..3, payload: 3, ..Passed::default() })
        );
        assert_eq!(
            body.pass(b"deGET", false, &mut out),
            Ok(Passed { used: 2, raw: 0..2, payload: 2, ..Passed::default() })
        );
        assert!(body.is_done() && out.is_empty());

        let mut body = Body::new(Length::Chunked);
        let passed = body.pass(b"3\r\nabc\r\n0\r\nX: y\r\n\r\nGET", true, &mut out).unwrap();
        assert_eq!((passed.used, passed.payload, body.is_done()), (19, 3, true));
        assert_eq!(out, b"3\r\nabc\r\n0\r\nX: y\r\n\r\n");

        out.clear();
        let mut body = Body::new(Length::Close);
        assert_eq!(body.pass(b"abc", true, &mut out).unwrap().used, 3);
        assert_eq!(out, b"3\r\nabc\r\n");
    }
}
