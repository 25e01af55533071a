//! SPDY/3.1, as much of it as Kubernetes' clients speak (`github.com/moby/spdystream`): bare on a connection, or inside of
//! WebSocket messages whose boundaries mean nothing.
//!
//! There is no flow control by windows: that client neither sends WINDOW_UPDATE nor heeds it, and its streams have no
//! credit to run out of. So windows are read past, and what bounds memory is the connection: it is not read while a stream
//! has too much waiting.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::websocket;
use super::wire::{Gone, Sender};

mod header;

pub(super) use header::Headers;
use header::{Decompressor, HeaderError};

/// Bytes read at once.
const READ: usize = 16 * 1024;
/// No control frame is longer.
const MOST_CONTROL: usize = 64 * 1024;

const VERSION: u16 = 0x8003;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const FIN: u8 = 1;

/// Why a stream is reset, §2.6.3.
pub(super) const PROTOCOL_ERROR: u32 = 1;
pub(super) const REFUSED: u32 = 3;

/// What the client sent that matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    /// A new stream, to be replied to or reset.
    Open {
        stream: u32,
        headers: Headers,
        ended: bool,
    },
    /// The next bytes; `ended`: the last ones.
    Data {
        stream: u32,
        bytes: Bytes,
        ended: bool,
    },
    Reset {
        stream: u32,
    },
    Ping(u32),
    GoAway,
    /// Replies, settings, windows, more headers.
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum SpdyError {
    #[error("a frame is not of SPDY/3")]
    Version,
    #[error("a control frame of type {0} has an impossible length")]
    Length(u16),
    #[error("a frame is of stream 0")]
    Zero,
    #[error(transparent)]
    Header(#[from] HeaderError),
}

/// Frames from bytes, however they are cut.
pub(super) struct Decoder {
    headers: Decompressor,
    /// The data frame being received.
    data: Option<Data>,
}

#[derive(Debug, Clone, Copy)]
struct Data {
    stream: u32,
    remaining: usize,
    ended: bool,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self { headers: Decompressor::new(), data: None }
    }

    /// Takes the next frame, or piece of one, off the buffer; `None` if it takes more bytes.
    pub(super) fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, SpdyError> {
        if let Some(data) = self.data {
            return Ok(self.piece(data, buffer));
        }
        let Some((head, _)) = buffer.split_first_chunk::<8>() else { return Ok(None) };
        let [a, b, c, d, flags, lengths @ ..] = *head;
        let length = lengths.iter().fold(0usize, |sum, byte| sum << 8 | usize::from(*byte));
        let ended = flags & FIN != 0;
        if a & 0x80 == 0 {
            let stream = u32::from_be_bytes([a, b, c, d]);
            if stream == 0 {
                return Err(SpdyError::Zero);
            }
            let _ = buffer.split_to(8);
            let data = Data { stream, remaining: length, ended };
            self.data = Some(data);
            return Ok(self.piece(data, buffer));
        }
        if u16::from_be_bytes([a, b]) != VERSION {
            return Err(SpdyError::Version);
        }
        let kind = u16::from_be_bytes([c, d]);
        if length > MOST_CONTROL {
            return Err(SpdyError::Length(kind));
        }
        if buffer.len() < 8 + length {
            return Ok(None);
        }
        let content = buffer.split_to(8 + length).freeze().slice(8..);
        self.control(kind, ended, &content).map(Some)
    }

    fn piece(&mut self, mut data: Data, buffer: &mut BytesMut) -> Option<Frame> {
        if buffer.is_empty() && data.remaining > 0 {
            return None;
        }
        let bytes = buffer.split_to(data.remaining.min(buffer.len())).freeze();
        data.remaining -= bytes.len();
        let whole = data.remaining == 0;
        self.data = (!whole).then_some(data);
        Some(Frame::Data { stream: data.stream, bytes, ended: whole && data.ended })
    }

    fn control(&mut self, kind: u16, ended: bool, content: &[u8]) -> Result<Frame, SpdyError> {
        let number = || -> Result<u32, SpdyError> {
            let (bytes, _) = content.split_first_chunk::<4>().ok_or(SpdyError::Length(kind))?;
            Ok(u32::from_be_bytes(*bytes) & 0x7fff_ffff)
        };
        match kind {
            SYN_STREAM => {
                let block = content.get(10..).ok_or(SpdyError::Length(kind))?;
                // First of all the block: the next one cannot be read without it.
                let headers = self.headers.headers(block)?;
                match number()? {
                    0 => Err(SpdyError::Zero),
                    stream => Ok(Frame::Open { stream, headers, ended }),
                }
            }
            SYN_REPLY | HEADERS => {
                self.headers.headers(content.get(4..).ok_or(SpdyError::Length(kind))?)?;
                Ok(Frame::Other)
            }
            RST_STREAM => Ok(Frame::Reset { stream: number()? }),
            PING => {
                let (bytes, _) = content.split_first_chunk::<4>().ok_or(SpdyError::Length(kind))?;
                Ok(Frame::Ping(u32::from_be_bytes(*bytes)))
            }
            GOAWAY => Ok(Frame::GoAway),
            // What is not known is to be ignored, §2.2.1.
            _ => Ok(Frame::Other),
        }
    }
}

fn control(kind: u16, content: &[&[u8]]) -> BytesMut {
    let length: usize = content.iter().map(|part| part.len()).sum();
    let mut out = BytesMut::with_capacity(8 + length);
    out.put_u16(VERSION);
    out.put_u16(kind);
    // No flags; lengths here are far below 2^24.
    out.put_u32(length as u32);
    content.iter().for_each(|part| out.put_slice(part));
    out
}

/// Where frames come from.
enum Source<R> {
    Bare(R),
    Tunnel(websocket::Reader<R>),
}

/// The reading half of a connection. It answers pings by itself.
pub(super) struct Reader<R> {
    source: Source<R>,
    buffer: BytesMut,
    decoder: Decoder,
    writer: Writer,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(super) fn new(io: R, writer: Writer) -> Self {
        let source = if writer.tunnel { Source::Tunnel(websocket::Reader::new(io)) } else { Source::Bare(io) };
        Self { source, buffer: BytesMut::new(), decoder: Decoder::new(), writer }
    }

    /// The next frame; `None` at the connection's end. Cancel-safe.
    pub(super) async fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            let frame = self.decoder.decode(&mut self.buffer);
            match frame.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))? {
                // We never ask, so every ping is a question.
                Some(Frame::Ping(number)) => {
                    self.writer.control_or_never(&control(PING, &[&number.to_be_bytes()]));
                }
                Some(Frame::Other) => {}
                Some(frame) => return Ok(Some(frame)),
                None if self.fill().await? => {}
                None => return Ok(None),
            }
        }
    }

    /// Whether more bytes have come.
    async fn fill(&mut self) -> io::Result<bool> {
        match &mut self.source {
            Source::Bare(io) => {
                self.buffer.reserve(READ);
                Ok(io.read_buf(&mut self.buffer).await? > 0)
            }
            Source::Tunnel(reader) => loop {
                match reader.next().await? {
                    Some(websocket::Event::Piece { bytes, .. }) => {
                        self.buffer.extend_from_slice(&bytes);
                        return Ok(true);
                    }
                    Some(websocket::Event::Ping(payload)) => {
                        self.writer.sender.control_or_never(websocket::pong(&payload));
                    }
                    Some(websocket::Event::Pong) => {}
                    Some(websocket::Event::Close) | None => return Ok(false),
                }
            },
        }
    }
}

/// The writing half; clones write to the same connection.
#[derive(Clone)]
pub(super) struct Writer {
    sender: Sender,
    tunnel: bool,
}

impl Writer {
    /// `tunnel`: in WebSocket messages.
    pub(super) fn new(sender: Sender, tunnel: bool) -> Self {
        Self { sender, tunnel }
    }

    /// Accepts a stream; `first` for the connection's first one.
    pub(super) async fn accept(&self, stream: u32, first: bool) -> Result<(), Gone> {
        let frame = control(SYN_REPLY, &[&stream.to_be_bytes(), header::empty(first)]);
        self.sender.control(self.wrap(&frame)).await
    }

    pub(super) async fn reset(&self, stream: u32, why: u32) -> Result<(), Gone> {
        let frame = control(RST_STREAM, &[&stream.to_be_bytes(), &why.to_be_bytes()]);
        self.sender.control(self.wrap(&frame)).await
    }

    pub(super) async fn data(&self, stream: u32, bytes: &[u8], ended: bool) -> Result<(), Gone> {
        self.sender.payload(self.data_frame(stream, bytes, ended)).await
    }

    /// Ends a stream before anything that waits to be written.
    pub(super) async fn end_at_once(&self, stream: u32) -> Result<(), Gone> {
        self.sender.control(self.data_frame(stream, b"", true)).await
    }

    /// After all payload: nothing more will be accepted.
    pub(super) async fn go_away(&self, last: u32) -> Result<(), Gone> {
        let frame = control(GOAWAY, &[&last.to_be_bytes(), &0u32.to_be_bytes()]);
        self.sender.payload(self.wrap(&frame)).await
    }

    fn control_or_never(&self, frame: &[u8]) {
        self.sender.control_or_never(self.wrap(frame));
    }

    fn data_frame(&self, stream: u32, bytes: &[u8], ended: bool) -> Bytes {
        let mut head = [0; 8];
        head[..4].copy_from_slice(&stream.to_be_bytes());
        // Frames are cut to the size of a read, far below the 2^24 that fit.
        head[4..].copy_from_slice(&(bytes.len() as u32 | if ended { u32::from(FIN) << 24 } else { 0 }).to_be_bytes());
        match self.tunnel {
            true => websocket::frame(websocket::BINARY, &[&head, bytes]),
            false => [&head, bytes].concat().into(),
        }
    }

    fn wrap(&self, frame: &[u8]) -> Bytes {
        match self.tunnel {
            true => websocket::frame(websocket::BINARY, &[frame]),
            false => Bytes::copy_from_slice(frame),
        }
    }
}

/// The first value of a header.
pub(super) fn header<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

#[cfg(test)]
mod tests;
