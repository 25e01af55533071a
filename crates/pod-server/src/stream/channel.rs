//! Kubernetes' channels in WebSocket messages: the first byte of a message says which channel the rest belongs to.
//!
//! Source: `apimachinery/pkg/util/httpstream/wsstream`, `client-go/tools/remotecommand/v5.go`. The base64 variants carry
//! text messages whose first character is the channel's digit. Version 5 adds the message `255 N`: channel N has ended.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::websocket;

/// Closes the channel whose number follows; only in version 5.
pub(super) const CLOSE: u8 = 255;

/// A WebSocket subprotocol of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Protocol {
    /// As negotiated; empty if the client named none.
    pub(super) name: &'static str,
    pub(super) base64: bool,
    /// The end is told as a `Status` in JSON (version 4 on) instead of plain text.
    pub(super) status: bool,
    /// Channels can be half-closed.
    pub(super) close: bool,
}

const fn protocol(name: &'static str, base64: bool, version: u8) -> Protocol {
    Protocol { name, base64, status: version >= 4, close: version >= 5 }
}

/// For exec and attach.
pub(super) const REMOTE: &[Protocol] = &[
    protocol("v5.channel.k8s.io", false, 5),
    protocol("v4.channel.k8s.io", false, 4),
    protocol("v4.base64.channel.k8s.io", true, 4),
    protocol("channel.k8s.io", false, 1),
    protocol("base64.channel.k8s.io", true, 1),
    protocol("", false, 1),
];

/// For port-forward with the ports in the URL.
pub(super) const FORWARD: &[Protocol] =
    &[protocol("v4.channel.k8s.io", false, 4), protocol("v4.base64.channel.k8s.io", true, 4), protocol("", false, 4)];

/// For logs: a stream without channels.
pub(super) const READER: &[Protocol] =
    &[protocol("binary.k8s.io", false, 1), protocol("base64.binary.k8s.io", true, 1), protocol("", false, 1)];

impl Protocol {
    /// One message on a channel.
    pub(super) fn message(self, channel: u8, bytes: &[u8]) -> Bytes {
        match self.base64 {
            false => websocket::frame(websocket::BINARY, &[&[channel], bytes]),
            true => websocket::frame(websocket::TEXT, &[&[b'0' + channel], STANDARD.encode(bytes).as_bytes()]),
        }
    }

    /// One message of a stream without channels.
    pub(super) fn plain(self, bytes: &[u8]) -> Bytes {
        match self.base64 {
            false => websocket::frame(websocket::BINARY, &[bytes]),
            true => websocket::frame(websocket::TEXT, &[STANDARD.encode(bytes).as_bytes()]),
        }
    }
}

/// The client's message is no base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message is not valid base64")]
pub(super) struct NotBase64;

/// Channels from the pieces of messages.
#[derive(Debug)]
pub(super) struct Demultiplexer {
    base64: bool,
    channel: Option<u8>,
    /// Up to three characters of base64 waiting for the rest of their four.
    carried: Vec<u8>,
}

impl Demultiplexer {
    pub(super) fn new(protocol: Protocol) -> Self {
        Self { base64: protocol.base64, channel: None, carried: Vec::new() }
    }

    /// The channel and its next bytes; `None` for a message, or a beginning of one, that says nothing.
    pub(super) fn piece(
        &mut self,
        first: bool,
        last: bool,
        mut bytes: Bytes,
    ) -> Result<Option<(u8, Bytes)>, NotBase64> {
        if first {
            self.channel = None;
            self.carried.clear();
        }
        if self.channel.is_none() && !bytes.is_empty() {
            let number = bytes.split_to(1)[0];
            self.channel = Some(if self.base64 { number.wrapping_sub(b'0') } else { number });
        }
        let Some(channel) = self.channel else { return Ok(None) };
        if self.base64 {
            bytes = self.decode(last, &bytes)?;
        }
        // An empty message still says something: that the channel is there, or, to some clients' minds, its end.
        Ok((last || !bytes.is_empty()).then_some((channel, bytes)))
    }

    fn decode(&mut self, last: bool, bytes: &[u8]) -> Result<Bytes, NotBase64> {
        self.carried.extend_from_slice(bytes);
        let whole = if last { self.carried.len() } else { self.carried.len() / 4 * 4 };
        let decoded = STANDARD.decode(&self.carried[..whole]).map_err(|_| NotBase64)?;
        self.carried.drain(..whole);
        Ok(decoded.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_begin_with_their_channel() {
        let [v5, base64] = [REMOTE[0], REMOTE[4]];
        assert_eq!(&v5.message(1, b"hi")[..], b"\x82\x03\x01hi");
        assert_eq!(&base64.message(1, b"\n")[..], b"\x81\x051Cg==");
        assert_eq!(&READER[1].plain(b"\n")[..], b"\x81\x04Cg==");
        let mut demultiplexer = Demultiplexer::new(v5);
        assert_eq!(demultiplexer.piece(true, true, Bytes::new()), Ok(None));
        assert_eq!(
            demultiplexer.piece(true, true, Bytes::from_static(b"\xff\x00")),
            Ok(Some((255, Bytes::from_static(b"\0"))))
        );
        assert_eq!(demultiplexer.piece(true, true, Bytes::from_static(b"\x00")), Ok(Some((0, Bytes::new()))));
        assert_eq!(Demultiplexer::new(base64).piece(true, true, Bytes::from_static(b"0a")), Err(NotBase64));
    }

    proptest! {
        #[test]
        fn pieces_make_the_message(payload in prop::collection::vec(any::<u8>(), 0..200), step in 1usize..40, base64: bool) {
            let protocol = REMOTE[if base64 { 2 } else { 1 }];
            let message = protocol.message(2, &payload);
            let message = message.slice(if message[1] == 126 { 4 } else { 2 }..);
            let mut demultiplexer = Demultiplexer::new(protocol);
            let mut seen = Vec::new();
            let pieces: Vec<&[u8]> = message.chunks(step).collect();
            for (index, piece) in pieces.iter().enumerate() {
                let piece = Bytes::copy_from_slice(piece);
                if let Some((channel, bytes)) = demultiplexer.piece(index == 0, index + 1 == pieces.len(), piece).unwrap() {
                    prop_assert_eq!(channel, 2);
                    seen.extend_from_slice(&bytes);
                }
            }
            prop_assert_eq!(seen, payload);
        }
    }
}
