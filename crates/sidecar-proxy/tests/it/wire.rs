//! HTTP/2 as bytes: a client that sends the frames a test wants, good or bad, and reads what comes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use dataplane::h2::hpack::Decoder;

use crate::harness::PATIENCE;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

/// END_STREAM; ACK of SETTINGS and PING.
pub(crate) const END: u8 = 1;
/// END_HEADERS.
pub(crate) const WHOLE: u8 = 4;
pub(crate) const PADDED: u8 = 8;
pub(crate) const PRIORITISED: u8 = 0x20;

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

pub(crate) fn settings(pairs: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> = pairs.iter().flat_map(|(n, v)| [&n.to_be_bytes()[..], &v.to_be_bytes()].concat()).collect();
    frame(SETTINGS, 0, 0, &payload)
}

/// A block of literals, written as they are, without any table (RFC 7541 §6.2.2).
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for text in [name, value] {
            let length = text.len();
            match length {
                0..127 => out.push(length as u8),
                _ => {
                    let mut rest = length - 127;
                    out.push(127);
                    while rest >= 128 {
                        out.push(rest as u8 & 127 | 128);
                        rest >>= 7;
                    }
                    out.push(rest as u8);
                }
            }
            out.extend_from_slice(text.as_bytes());
        }
    }
    out
}

pub(crate) fn request(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let first = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "h")];
    block(&[&first[..], more].concat())
}

pub(crate) fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, WHOLE | END, stream, &request("GET", "/", &[]))
}

pub(crate) fn post(stream: u32) -> Vec<u8> {
    frame(HEADERS, WHOLE, stream, &request("POST", "/", &[]))
}

/// What has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    /// Fields as `name: value` lines; true: nothing follows.
    Head(u32, String, bool),
    Data(u32, Vec<u8>, bool),
    Reset(u32, u32),
    Goaway(u32),
    Pong(Vec<u8>),
    Settings(Vec<u8>),
    SettingsAck,
    Window(u32, u32),
    Other(u8),
    Closed,
}

impl Came {
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Came::Head(_, text, _) => text.strip_prefix(":status: ")?.get(..3)?.parse().ok(),
            _ => None,
        }
    }
}

pub(crate) trait Duplex: Read + Write {}
impl<T: Read + Write> Duplex for T {}

pub(crate) struct Wire {
    stream: Box<dyn Duplex>,
    decoder: Decoder,
    block: Vec<u8>,
}

impl Wire {
    /// Bytes alone, without a preface.
    pub(crate) fn bare(address: SocketAddr) -> Wire {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Wire::over(Box::new(stream))
    }

    pub(crate) fn over(stream: Box<dyn Duplex>) -> Wire {
        Wire { stream, decoder: Decoder::default(), block: Vec::new() }
    }

    /// With the preface and settings sent.
    pub(crate) fn connect(address: SocketAddr, own: &[(u16, u32)]) -> Wire {
        let mut wire = Wire::bare(address);
        wire.send(&[PREFACE, &settings(own)].concat());
        wire
    }

    /// A peer that has gone already shows in what is read.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).and_then(|()| self.stream.flush()).is_ok()
    }

    pub(crate) fn next(&mut self) -> Came {
        let mut header = [0; 9];
        if self.stream.read_exact(&mut header).is_err() {
            return Came::Closed;
        }
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
        let (kind, flags) = (header[3], header[4]);
        let stream = u32::from_be_bytes([header[5], header[6], header[7], header[8]]) & 0x7fff_ffff;
        let mut payload = vec![0; length];
        if self.stream.read_exact(&mut payload).is_err() {
            return Came::Closed;
        }
        let number = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
        match kind {
            DATA => Came::Data(stream, payload, flags & END != 0),
            HEADERS | CONTINUATION => {
                self.block.extend_from_slice(&payload);
                if flags & WHOLE == 0 {
                    return self.next();
                }
                let mut text = String::new();
                self.decoder
                    .read(&std::mem::take(&mut self.block), |name, value| {
                        let show = |bytes| String::from_utf8_lossy(bytes).into_owned();
                        text.push_str(&format!("{}: {}\n", show(name), show(value)));
                    })
                    .unwrap();
                Came::Head(stream, text, flags & END != 0)
            }
            RST => Came::Reset(stream, number(0)),
            SETTINGS if flags & END != 0 => Came::SettingsAck,
            SETTINGS => Came::Settings(payload),
            PING if flags & END != 0 => Came::Pong(payload),
            GOAWAY => Came::Goaway(number(4)),
            WINDOW => Came::Window(stream, number(0)),
            other => Came::Other(other),
        }
    }

    /// The next that fits; panics when the connection ends before.
    pub(crate) fn until(&mut self, what: &str, fits: impl Fn(&Came) -> bool) -> Came {
        let mut passed = Vec::new();
        loop {
            let came = self.next();
            if fits(&came) {
                return came;
            }
            assert!(came != Came::Closed, "no {what}, only {passed:?}");
            passed.push(came);
        }
    }

    /// The whole answer of a stream: head, body, trailers.
    pub(crate) fn answer(&mut self, stream: u32) -> (String, Vec<u8>, String) {
        let (mut head, mut body, mut trailers) = (String::new(), Vec::new(), String::new());
        loop {
            match self.next() {
                Came::Head(id, text, end) if id == stream => {
                    if head.is_empty() || head.starts_with(":status: 1") {
                        head = text;
                    } else {
                        trailers = text;
                    }
                    if end {
                        return (head, body, trailers);
                    }
                }
                Came::Data(id, data, end) if id == stream => {
                    body.extend_from_slice(&data);
                    if end {
                        return (head, body, trailers);
                    }
                }
                Came::Reset(id, code) if id == stream => panic!("reset with {code} after {head}"),
                Came::Closed => panic!("closed after {head}"),
                Came::Goaway(code) if code != 0 => panic!("the connection is in error: {code}"),
                _ => {}
            }
        }
    }
}
