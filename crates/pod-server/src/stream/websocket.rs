//! WebSocket (RFC 6455), the server's side.
//!
//! Written here instead of taken from a library because messages must not be collected: a client may send a gigabyte as one
//! message, and a stalled container must stop the reading in the middle of it. So the reader hands out *pieces*.

use std::io;

use base64::Engine as _;
use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderValue;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::wire::Sender;

/// Bytes read at once.
const READ: usize = 16 * 1024;

pub(super) const TEXT: u8 = 1;
pub(super) const BINARY: u8 = 2;
const CONTINUATION: u8 = 0;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// The code of an ordinary end, RFC 6455 §7.4.1.
pub(super) const NORMAL: u16 = 1000;

/// The `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key` (§4.2.2).
pub(super) fn accept(key: &HeaderValue) -> Option<HeaderValue> {
    let mut digest = ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY);
    digest.update(key.as_bytes());
    digest.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let text = base64::engine::general_purpose::STANDARD.encode(digest.finish());
    HeaderValue::from_str(&text).ok()
}

/// One frame, final and unmasked, of the parts' bytes.
pub(super) fn frame(opcode: u8, parts: &[&[u8]]) -> Bytes {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = BytesMut::with_capacity(length + 10);
    out.put_u8(0x80 | opcode);
    match length {
        0..=125 => out.put_u8(length as u8),
        126..=0xffff => {
            out.put_u8(126);
            out.put_u16(length as u16);
        }
        _ => {
            out.put_u8(127);
            out.put_u64(length as u64);
        }
    }
    parts.iter().for_each(|part| out.put_slice(part));
    out.freeze()
}

pub(super) fn pong(payload: &[u8]) -> Bytes {
    frame(PONG, &[payload])
}

pub(super) fn close(code: u16) -> Bytes {
    frame(CLOSE, &[&code.to_be_bytes()])
}

/// What the client sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// The next bytes of a message.
    Piece {
        first: bool,
        last: bool,
        bytes: Bytes,
    },
    /// To be answered with the same payload.
    Ping(Bytes),
    Pong,
    Close,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProtocolError {
    #[error("a frame has reserved bits")]
    Reserved,
    #[error("a frame of the client is not masked")]
    Unmasked,
    #[error("a frame has the unknown opcode {0}")]
    Opcode(u8),
    #[error("a control frame is fragmented or too long")]
    Control,
    #[error("a message is continued that has not begun, or begun in another one")]
    Sequence,
    #[error("a frame is impossibly long")]
    Length,
}

/// Frames from bytes, however they are cut.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// The data frame whose payload is being received.
    current: Option<Payload>,
    /// A message's last frame has not come.
    in_message: bool,
}

#[derive(Debug)]
struct Payload {
    remaining: u64,
    mask: [u8; 4],
    first: bool,
    last: bool,
}

impl Decoder {
    /// Takes the next event off the buffer; `None` if it takes more bytes.
    pub(super) fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Event>, ProtocolError> {
        if self.current.is_none() {
            let Some(event) = self.header(buffer)? else { return Ok(None) };
            if let Some(control) = event {
                return Ok(Some(control));
            }
        }
        let Some(payload) = &mut self.current else { return Ok(None) };
        if buffer.is_empty() && payload.remaining > 0 {
            return Ok(None);
        }
        let length = usize::try_from(payload.remaining).unwrap_or(usize::MAX).min(buffer.len());
        let mut bytes = buffer.split_to(length);
        unmask(&mut bytes, payload.mask);
        payload.mask.rotate_left(length % 4);
        payload.remaining -= length as u64;
        let (first, ended) = (payload.first, payload.remaining == 0);
        let last = ended && payload.last;
        payload.first = false;
        if ended {
            self.current = None;
        }
        Ok(Some(Event::Piece { first, last, bytes: bytes.freeze() }))
    }

    /// Takes a frame's header: `Some(None)` has begun a data frame; a control frame is taken as a whole.
    fn header(&mut self, buffer: &mut BytesMut) -> Result<Option<Option<Event>>, ProtocolError> {
        let [one, two, ..] = buffer[..] else { return Ok(None) };
        if one & 0x70 != 0 {
            return Err(ProtocolError::Reserved);
        }
        if two & 0x80 == 0 {
            return Err(ProtocolError::Unmasked);
        }
        let (last, opcode) = (one & 0x80 != 0, one & 0x0f);
        let extended = match two & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let header = 2 + extended + 4;
        if buffer.len() < header {
            return Ok(None);
        }
        let length = match extended {
            0 => u64::from(two & 0x7f),
            _ => buffer[2..2 + extended].iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte)),
        };
        let mut mask = [0; 4];
        mask.copy_from_slice(&buffer[header - 4..header]);
        if opcode & 8 != 0 {
            if !last || length > 125 {
                return Err(ProtocolError::Control);
            }
            let length = length as usize;
            if buffer.len() < header + length {
                return Ok(None);
            }
            let _ = buffer.split_to(header);
            let mut bytes = buffer.split_to(length);
            unmask(&mut bytes, mask);
            return match opcode {
                CLOSE => Ok(Some(Some(Event::Close))),
                PING => Ok(Some(Some(Event::Ping(bytes.freeze())))),
                PONG => Ok(Some(Some(Event::Pong))),
                other => Err(ProtocolError::Opcode(other)),
            };
        }
        let first = match opcode {
            CONTINUATION => false,
            TEXT | BINARY => true,
            other => return Err(ProtocolError::Opcode(other)),
        };
        if first == self.in_message {
            return Err(ProtocolError::Sequence);
        }
        if length > i64::MAX as u64 {
            return Err(ProtocolError::Length);
        }
        let _ = buffer.split_to(header);
        self.in_message = !last;
        self.current = Some(Payload { remaining: length, mask, first, last });
        Ok(Some(None))
    }
}

fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let mut words = bytes.chunks_exact_mut(4);
    for word in &mut words {
        word.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
    }
    words.into_remainder().iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
}

/// The reading half of a connection.
pub(super) struct Reader<R> {
    io: R,
    buffer: BytesMut,
    decoder: Decoder,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(super) fn new(io: R) -> Self {
        Self { io, buffer: BytesMut::new(), decoder: Decoder::default() }
    }

    /// The next event; `None` when the connection has ended. Cancel-safe: what was read is kept.
    pub(super) async fn next(&mut self) -> io::Result<Option<Event>> {
        loop {
            let event = self.decoder.decode(&mut self.buffer);
            if let Some(event) = event.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))? {
                return Ok(Some(event));
            }
            self.buffer.reserve(READ);
            if self.io.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }
}

/// Reads until the client closes; what it says besides is of no interest.
pub(super) async fn answer_pings(reader: &mut Reader<impl AsyncRead + Unpin>, sender: Sender) {
    loop {
        match reader.next().await {
            Ok(Some(Event::Ping(payload))) => sender.control_or_never(pong(&payload)),
            Ok(Some(Event::Piece { .. } | Event::Pong)) => {}
            Ok(Some(Event::Close) | None) | Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A client's frame.
    fn masked(last: bool, opcode: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
        let server = frame(opcode, &[payload]);
        let header = server.len() - payload.len();
        let mut out = server[..header].to_vec();
        out[0] = if last { 0x80 } else { 0 } | opcode;
        out[1] |= 0x80;
        out.extend_from_slice(&mask);
        let start = out.len();
        out.extend_from_slice(payload);
        unmask(&mut out[start..], mask);
        out
    }

    fn events(bytes: &[u8]) -> Result<Vec<Event>, ProtocolError> {
        let (mut decoder, mut buffer, mut events) = (Decoder::default(), BytesMut::from(bytes), Vec::new());
        while let Some(event) = decoder.decode(&mut buffer)? {
            events.push(event);
        }
        Ok(events)
    }

    #[test]
    fn the_handshakes_answer_is_the_rfcs() {
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept(&key).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn the_rfcs_examples() {
        assert_eq!(&frame(TEXT, &[b"Hello"])[..], [0x81, 5, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);
        assert_eq!(frame(BINARY, &[&[0; 256]])[..4], [0x82, 126, 1, 0]);
        assert_eq!(frame(BINARY, &[&[0; 65536]])[..10], [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
        let hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        let bytes = Bytes::from_static(b"Hello");
        assert_eq!(events(&hello).unwrap(), [Event::Piece { first: true, last: true, bytes }]);
    }

    #[test]
    fn control_frames_come_inside_of_messages() {
        let mut bytes = masked(false, BINARY, b"ab", [1, 2, 3, 4]);
        bytes.extend(masked(true, PING, b"p", [9, 9, 9, 9]));
        bytes.extend(masked(true, CONTINUATION, b"", [0; 4]));
        bytes.extend(masked(true, CLOSE, &1000u16.to_be_bytes(), [0; 4]));
        let piece = |first, last, bytes: &'static [u8]| Event::Piece { first, last, bytes: bytes.into() };
        let expected = [piece(true, false, b"ab"), Event::Ping(b"p"[..].into()), piece(false, true, b""), Event::Close];
        assert_eq!(events(&bytes).unwrap(), expected);
    }

    #[test]
    fn nonsense_is_refused() {
        for (bytes, error) in [
            (vec![0xc1, 0x80, 0, 0, 0, 0], ProtocolError::Reserved),
            (vec![0x81, 0x00], ProtocolError::Unmasked),
            (masked(true, 3, b"", [0; 4]), ProtocolError::Opcode(3)),
            (masked(true, 11, b"", [0; 4]), ProtocolError::Opcode(11)),
            (masked(false, PING, b"", [0; 4]), ProtocolError::Control),
            (masked(true, PING, &[0; 126], [0; 4]), ProtocolError::Control),
            (masked(true, CONTINUATION, b"", [0; 4]), ProtocolError::Sequence),
            ([masked(false, TEXT, b"", [0; 4]), masked(true, TEXT, b"", [0; 4])].concat(), ProtocolError::Sequence),
            (vec![0x82, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], ProtocolError::Length),
        ] {
            assert_eq!(events(&bytes), Err(error), "{bytes:x?}");
        }
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 1..5),
            mask in any::<[u8; 4]>(),
            step in 1usize..50,
        ) {
            let bytes: Vec<u8> = messages.iter().flat_map(|payload| masked(true, BINARY, payload, mask)).collect();
            let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::new());
            let (mut seen, mut current): (Vec<Vec<u8>>, Vec<u8>) = (Vec::new(), Vec::new());
            for part in bytes.chunks(step) {
                buffer.extend_from_slice(part);
                while let Some(event) = decoder.decode(&mut buffer).unwrap() {
                    let Event::Piece { first, last, bytes } = event else { panic!("{event:?}") };
                    prop_assert_eq!(first, current.is_empty() && first);
                    current.extend_from_slice(&bytes);
                    if last {
                        seen.push(std::mem::take(&mut current));
                    }
                }
            }
            prop_assert_eq!(seen, messages);
        }
    }
}
