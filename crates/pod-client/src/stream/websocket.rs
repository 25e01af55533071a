//! WebSocket (RFC 6455), the client's side, after the handshake.
//!
//! Pieces of messages are handed out as they come: nothing is collected, a process may write a gigabyte in one message.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf as _, Bytes, BytesMut};
use ring::rand::SecureRandom as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

const CONTINUATION: u8 = 0;
pub(crate) const BINARY: u8 = 2;
const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// Bytes read at once.
const READ: usize = 32 * 1024;

/// The key of a handshake and what the server must answer to it (§4.2.2).
pub(crate) fn handshake() -> (String, String) {
    let key = STANDARD.encode(random::<16>());
    let accept = accept(&key);
    (key, accept)
}

fn accept(key: &str) -> String {
    let mut digest = ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY);
    digest.update(key.as_bytes());
    digest.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(digest.finish())
}

/// Masks protect proxies from scripts in browsers; inside of TLS, and from us, anything will do when there is no chance.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let _ = ring::rand::SystemRandom::new().fill(&mut bytes);
    bytes
}

/// One frame, final and masked, of the parts' bytes.
fn frame(opcode: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = Vec::with_capacity(length + 14);
    out.push(0x80 | opcode);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ ..126), _) => out.push(0x80 | short),
        (_, Ok(middle)) => {
            out.push(0x80 | 126);
            out.extend_from_slice(&middle.to_be_bytes());
        }
        _ => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    let mask: [u8; 4] = random();
    out.extend_from_slice(&mask);
    let start = out.len();
    parts.iter().for_each(|part| out.extend_from_slice(part));
    for (index, byte) in out[start..].iter_mut().enumerate() {
        *byte ^= mask[index % 4];
    }
    out
}

/// Sends frames.
#[derive(Debug)]
pub(crate) struct Writer<W> {
    io: W,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    pub(crate) fn new(io: W) -> Self {
        Self { io }
    }

    pub(crate) async fn send(&mut self, opcode: u8, parts: &[&[u8]]) -> io::Result<()> {
        self.io.write_all(&frame(opcode, parts)).await?;
        self.io.flush().await
    }

    /// Says that this was all.
    pub(crate) async fn close(&mut self) -> io::Result<()> {
        self.send(CLOSE, &[&1000u16.to_be_bytes()]).await
    }
}

/// What the server sends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    /// Bytes of a message; `first` begins one.
    Piece {
        first: bool,
        bytes: Bytes,
    },
    Ping(Bytes),
    Pong,
}

/// Reads frames.
#[derive(Debug)]
pub(crate) struct Reader<R> {
    io: R,
    buffer: BytesMut,
    /// Payload of the current frame that is still to come, and whether its bytes begin a message.
    rest: u64,
    first: bool,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(crate) fn new(io: R) -> Self {
        Self { io, buffer: BytesMut::new(), rest: 0, first: false }
    }

    /// `None` when the server has closed. Cancel-safe.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Incoming>> {
        loop {
            match self.decode()? {
                Decoded::Event(event) => return Ok(Some(event)),
                Decoded::Closed => return Ok(None),
                Decoded::More => {}
            }
            self.buffer.reserve(READ);
            match self.io.read_buf(&mut self.buffer).await {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                // Servers that close without TLS's farewell have closed all the same.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    fn decode(&mut self) -> io::Result<Decoded> {
        if self.rest > 0 {
            return Ok(self.payload());
        }
        let wrong = |text: &str| Err(io::Error::new(io::ErrorKind::InvalidData, text.to_owned()));
        let Some((header, length)) = header(&self.buffer) else { return Ok(Decoded::More) };
        let opcode = self.buffer[0] & 0x0f;
        match opcode {
            _ if self.buffer[0] & 0x70 != 0 => wrong("a WebSocket frame with reserved bits"),
            _ if self.buffer[1] & 0x80 != 0 => wrong("a masked WebSocket frame from a server"),
            CONTINUATION | 1 | BINARY => {
                self.buffer.advance(header);
                self.rest = length;
                self.first = opcode != CONTINUATION;
                if length == 0 {
                    let first = self.first;
                    return Ok(Decoded::Event(Incoming::Piece { first, bytes: Bytes::new() }));
                }
                Ok(self.payload())
            }
            CLOSE => Ok(Decoded::Closed),
            PING | PONG if length > 125 => wrong("a WebSocket control frame that is too long"),
            PING | PONG => {
                let whole = header + usize::try_from(length).unwrap_or(0);
                if self.buffer.len() < whole {
                    return Ok(Decoded::More);
                }
                let mut frame = self.buffer.split_to(whole);
                frame.advance(header);
                Ok(Decoded::Event(if opcode == PING { Incoming::Ping(frame.freeze()) } else { Incoming::Pong }))
            }
            _ => wrong("a WebSocket frame of an unknown kind"),
        }
    }

    fn payload(&mut self) -> Decoded {
        if self.buffer.is_empty() {
            return Decoded::More;
        }
        let length = usize::try_from(self.rest).unwrap_or(usize::MAX).min(self.buffer.len());
        let bytes = self.buffer.split_to(length).freeze();
        self.rest -= length as u64;
        Decoded::Event(Incoming::Piece { first: std::mem::take(&mut self.first), bytes })
    }
}

enum Decoded {
    Event(Incoming),
    Closed,
    More,
}

/// Bytes of a frame's header and of its payload.
fn header(buffer: &[u8]) -> Option<(usize, u64)> {
    match *buffer.get(1)? & 0x7f {
        126 => Some((4, u64::from(u16::from_be_bytes(buffer.get(2..4)?.try_into().ok()?)))),
        127 => Some((10, u64::from_be_bytes(buffer.get(2..10)?.try_into().ok()?))),
        short => Some((2, u64::from(short))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handshakes_answer_is_the_rfcs() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn frames_are_masked() {
        let frame = frame(BINARY, &[b"a", b"bc"]);
        assert_eq!(frame[..2], [0x82, 0x83]);
        let unmasked: Vec<u8> = (0..3).map(|index| frame[6 + index] ^ frame[2 + index]).collect();
        assert_eq!(unmasked, b"abc");
        assert_eq!(super::frame(BINARY, &[&[0; 300]])[..4], [0x82, 0xfe, 1, 44]);
        assert_eq!(super::frame(BINARY, &[&[0; 70000]])[..2], [0x82, 0xff]);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn pieces_come_as_they_are_read() {
        let bytes: &[u8] = b"\x02\x03abc\x89\x01p\x80\x02de\x82\x00\x88\x02\x03\xe8";
        let (mut sending, receiving) = tokio::io::duplex(3);
        let mut reader = Reader::new(receiving);
        let feeding = async move {
            sending.write_all(bytes).await.unwrap();
            sending
        };
        let reading = async {
            let (mut text, mut pings, mut firsts) = (Vec::new(), 0, 0);
            while let Some(event) = reader.next().await.unwrap() {
                match event {
                    Incoming::Piece { first, bytes } => {
                        text.extend_from_slice(&bytes);
                        firsts += usize::from(first);
                    }
                    Incoming::Ping(payload) => {
                        assert_eq!(&payload[..], b"p");
                        pings += 1;
                    }
                    Incoming::Pong => panic!("nobody pinged"),
                }
            }
            (text, pings, firsts)
        };
        let (_, seen) = tokio::join!(feeding, reading);
        assert_eq!(seen, (b"abcde".to_vec(), 1, 2));
        assert!(Reader::new(&b"\x82\x81\0\0\0\0x"[..]).next().await.is_err());
    }
}
