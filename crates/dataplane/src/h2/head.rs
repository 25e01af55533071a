//! Heads between their two forms: fields of HTTP/2 and the text of HTTP/1.1 (RFC 9113 §8).

use std::ops::Range;

use super::hpack::{self, Decoder, Unreadable};
use crate::head::{Name, TOKEN, field, is_value};
use crate::websocket::is_of_handshake;

/// Which head a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Request,
    Response,
    Trailers,
}

/// What reading a block has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    Good {
        length: Option<u64>,
        status: u16,
    },
    /// Against the rules for fields: the stream is in error, the connection is not (§8.1.1).
    Malformed,
    /// More bytes or fields than are taken.
    TooLarge,
}

/// Where a value stands in `values`.
type Slot = Option<Range<usize>>;

#[derive(Debug, Default)]
struct Gathered {
    method: Slot,
    scheme: Slot,
    authority: Slot,
    path: Slot,
    protocol: Slot,
    status: Slot,
    host: Slot,
    cookie: Vec<u8>,
    values: Vec<u8>,
    lines: Vec<u8>,
    length: Option<u64>,
    bytes: usize,
    regular: bool,
    malformed: bool,
}

/// Reads a block into `text`: a whole HTTP/1.1 head, or the lines of trailers. `open`: a body follows.
pub fn read(
    decoder: &mut Decoder,
    block: &[u8],
    kind: Kind,
    open: bool,
    most: usize,
    text: &mut Vec<u8>,
) -> Result<Reading, Unreadable> {
    let [values, lines] = std::mem::take(&mut decoder.room);
    let mut all = Gathered { values, lines, ..Gathered::default() };
    all.values.clear();
    all.lines.clear();
    // Whatever is wrong with a field, the rest is read: the table must stay the same on both sides.
    let read = decoder.read(block, |name, value| all.take(kind, name, value, most));
    let reading = read.map(|()| all.write(kind, open, most, text));
    decoder.room = [all.values, all.lines];
    reading
}

impl Gathered {
    /// The text of what was gathered.
    fn write(&self, kind: Kind, open: bool, most: usize, text: &mut Vec<u8>) -> Reading {
        let of = |slot: &Slot| slot.clone().map(|range| &self.values[range]);
        if self.malformed {
            return Reading::Malformed;
        }
        if self.bytes > most {
            return Reading::TooLarge;
        }
        text.clear();
        let mut status = 0;
        match kind {
            Kind::Request if self.is_connect() => {
                if !self.connect(text) {
                    return Reading::Malformed;
                }
            }
            Kind::Request => {
                if self.protocol.is_some() {
                    return Reading::Malformed;
                }
                let (Some(method), Some(_), Some(path)) = (of(&self.method), of(&self.scheme), of(&self.path)) else {
                    return Reading::Malformed;
                };
                // An authority and a host that differ would mean two things to two readers (§8.3.1).
                if !is_path(path, method)
                    || matches!((of(&self.authority), of(&self.host)), (Some(a), Some(b)) if a != b)
                {
                    return Reading::Malformed;
                }
                let Some(host) = of(&self.authority).or(of(&self.host)) else { return Reading::Malformed };
                for part in [method, b" ", path, b" HTTP/1.1\r\nhost: ", host, b"\r\n"] {
                    text.extend_from_slice(part);
                }
            }
            Kind::Response => {
                let Some(digits) = of(&self.status).filter(|digits| digits.len() == 3) else {
                    return Reading::Malformed;
                };
                status = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).unwrap_or(0);
                if !(100..600).contains(&status) || status == 101 {
                    return Reading::Malformed;
                }
                text.extend_from_slice(b"HTTP/1.1 ");
                text.extend_from_slice(digits);
                text.extend_from_slice(b" \r\n");
            }
            Kind::Trailers => {}
        }
        text.extend_from_slice(&self.lines);
        if !self.cookie.is_empty() {
            // Crumbs become one field again (§8.2.3).
            text.extend_from_slice(b"cookie: ");
            text.extend_from_slice(&self.cookie);
            text.extend_from_slice(b"\r\n");
        }
        if kind != Kind::Trailers {
            if kind == Kind::Request && open && self.length.is_none() && !self.is_connect() {
                text.extend_from_slice(b"transfer-encoding: chunked\r\n");
            }
            text.extend_from_slice(b"\r\n");
        }
        Reading::Good { length: self.length, status }
    }

    fn is_connect(&self) -> bool {
        self.method.clone().is_some_and(|range| &self.values[range] == b"CONNECT")
    }

    /// Begins the text of a CONNECT; false if it is malformed (RFC 9113 §8.5). One with a protocol (RFC 8441 §4) becomes the
    /// request for an upgrade that it would be in HTTP/1.1: nothing else of a stream can say `Connection`.
    fn connect(&self, text: &mut Vec<u8>) -> bool {
        let of = |slot: &Slot| slot.clone().map(|range| &self.values[range]);
        let Some(authority) = of(&self.authority).filter(|authority| !authority.is_empty()) else { return false };
        if self.length.is_some() || of(&self.host).is_some_and(|host| host != authority) {
            return false;
        }
        let parts: &[&[u8]] = match (of(&self.protocol), of(&self.scheme), of(&self.path)) {
            (None, None, None) => &[b"CONNECT ", authority, b" HTTP/1.1\r\nhost: ", authority, b"\r\n"],
            (Some(protocol), Some(_), Some(path)) => {
                if !is_path(path, b"GET")
                    || protocol.is_empty()
                    || !protocol.iter().all(|byte| TOKEN[usize::from(*byte)])
                {
                    return false;
                }
                let upgrade = b"\r\nconnection: upgrade\r\nupgrade: ";
                &[b"GET ", path, b" HTTP/1.1\r\nhost: ", authority, upgrade, protocol, b"\r\n"]
            }
            _ => return false,
        };
        parts.iter().for_each(|part| text.extend_from_slice(part));
        true
    }

    fn take(&mut self, kind: Kind, name: &[u8], value: &[u8], most: usize) {
        self.bytes += name.len() + value.len() + 32;
        if self.bytes > most || self.malformed {
            return;
        }
        let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
        if !is_value(value) || blank(value.first()) || blank(value.last()) {
            self.malformed = true;
            return;
        }
        if let Some(pseudo) = name.strip_prefix(b":") {
            let range = self.keep(value);
            let slot = match (kind, pseudo) {
                (Kind::Request, b"method") => &mut self.method,
                (Kind::Request, b"scheme") => &mut self.scheme,
                (Kind::Request, b"authority") => &mut self.authority,
                (Kind::Request, b"path") => &mut self.path,
                (Kind::Request, b"protocol") => &mut self.protocol,
                (Kind::Response, b"status") => &mut self.status,
                _ => {
                    self.malformed = true;
                    return;
                }
            };
            // Before all others, and once (§8.3).
            self.malformed |= self.regular || slot.replace(range).is_some();
            return;
        }
        self.regular = true;
        let lower = |byte: &u8| TOKEN[usize::from(*byte)] && !byte.is_ascii_uppercase();
        if name.is_empty() || !name.iter().all(lower) {
            self.malformed = true;
            return;
        }
        match name {
            _ if is_foreign(name) => self.malformed = true,
            b"te" if value != b"trailers" => self.malformed = true,
            b"host" if kind == Kind::Request => {
                let range = self.keep(value);
                self.malformed |= self.host.replace(range).is_some();
            }
            b"cookie" if kind == Kind::Request => {
                if !self.cookie.is_empty() {
                    self.cookie.extend_from_slice(b"; ");
                }
                self.cookie.extend_from_slice(value);
            }
            b"content-length" if kind != Kind::Trailers => {
                let length = field::number(value);
                self.malformed |= length.is_none() || self.length.is_some();
                self.length = length;
                self.line(name, value);
            }
            _ if kind == Kind::Trailers && !crate::chunk::may_trail(name) => {}
            _ => self.line(name, value),
        }
    }

    fn keep(&mut self, value: &[u8]) -> Range<usize> {
        let start = self.values.len();
        self.values.extend_from_slice(value);
        start..self.values.len()
    }

    fn line(&mut self, name: &[u8], value: &[u8]) {
        for part in [name, b": ", value, b"\r\n"] {
            self.lines.extend_from_slice(part);
        }
    }
}

/// Name and value of each line.
fn lines(text: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut at = 0;
    let split = memchr::memchr_iter(b'\n', text).map(move |end| &text[std::mem::replace(&mut at, end + 1)..end]);
    split.filter_map(|line| {
        let line = line.strip_suffix(b"\r")?;
        let colon = memchr::memchr(b':', line)?;
        Some((&line[..colon], line[colon + 1..].trim_ascii()))
    })
}

/// What belongs to a connection of HTTP/1.1 and means nothing here (§8.2.2).
fn is_foreign(name: &[u8]) -> bool {
    matches!(
        Name::of(name),
        Name::Connection | Name::TransferEncoding | Name::KeepAlive | Name::ProxyConnection | Name::Upgrade
    )
}

/// The block of an answer, of its HTTP/1.1 head.
pub fn write_response(text: &[u8], out: &mut Vec<u8>) {
    hpack::put_status(text.get(9..12).unwrap_or(b"500"), out);
    write_fields(text, out);
}

/// The block of a request, of its HTTP/1.1 head. An upgrade to WebSocket becomes a CONNECT with that protocol (RFC 8441 §5).
pub fn write_request(text: &[u8], https: bool, upgrade: bool, out: &mut Vec<u8>) {
    let end = text.iter().position(|byte| *byte == b'\r').unwrap_or(text.len());
    let mut parts = text[..end].split(|byte| *byte == b' ');
    let (method, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let host = lines(text).find(|(name, _)| name.eq_ignore_ascii_case(b"host")).map_or(&b""[..], |(_, value)| value);
    let method = if upgrade { b"CONNECT" } else { method };
    hpack::put_request(method, if https { b"https" } else { b"http" }, host, path, out);
    if upgrade {
        hpack::put(b":protocol", b"websocket", out);
    }
    for (name, value) in lines(&text[end..]) {
        let is_left_out = is_foreign(name) || name.eq_ignore_ascii_case(b"host") || upgrade && is_of_handshake(name);
        if !is_left_out {
            hpack::put(name, value, out);
        }
    }
}

/// The fields of a head or of trailers.
pub fn write_fields(text: &[u8], out: &mut Vec<u8>) {
    let start =
        if text.starts_with(b"HTTP/1.1 ") { text.iter().position(|byte| *byte == b'\n').unwrap_or(0) } else { 0 };
    for (name, value) in lines(&text[start..]) {
        if !is_foreign(name) {
            hpack::put(name, value, out);
        }
    }
}

/// What `:path` may begin with: an absolute URI there would be another authority beside `:authority` (RFC 9113 §8.3.1).
fn is_path(path: &[u8], method: &[u8]) -> bool {
    path.starts_with(b"/") || path == b"*" && method == b"OPTIONS"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(fields: &[(&str, &str)], open: bool) -> Result<String, Reading> {
        let mut block = Vec::new();
        for (name, value) in fields {
            // As sent, without lower case.
            block.push(0);
            block.push(name.len() as u8);
            block.extend_from_slice(name.as_bytes());
            block.push(value.len() as u8);
            block.extend_from_slice(value.as_bytes());
        }
        let mut text = Vec::new();
        match read(&mut Decoder::default(), &block, Kind::Request, open, 1000, &mut text).unwrap() {
            Reading::Good { .. } => Ok(String::from_utf8(text).unwrap()),
            other => Err(other),
        }
    }

    const GOOD: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "https"), (":path", "/a"), (":authority", "h")];

    fn with(more: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
        GOOD.iter().chain(more).copied().collect()
    }

    #[test]
    fn requests_become_text() {
        assert_eq!(request(&GOOD, false).unwrap(), "GET /a HTTP/1.1\r\nhost: h\r\n\r\n");
        let fields = with(&[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2"), ("te", "trailers")]);
        assert_eq!(
            request(&fields, true).unwrap(),
            "GET /a HTTP/1.1\r\nhost: h\r\nx: y\r\nte: trailers\r\ncookie: a=1; b=2\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        assert_eq!(request(&with(&[("host", "h")]), false).unwrap(), "GET /a HTTP/1.1\r\nhost: h\r\n\r\n");
        assert_eq!(request(&with(&[("content-length", "3")]), true).unwrap().matches("chunked").count(), 0);
    }

    #[test]
    fn malformed_requests() {
        for more in [
            &[("Upper", "x")][..],
            &[("connection", "close")],
            &[("transfer-encoding", "chunked")],
            &[("te", "gzip")],
            &[("x", "a\r\nb: c")],
            &[("x", "a\0")],
            &[("x", " a")],
            &[("a b", "c")],
            &[("", "c")],
            &[("x", "y"), (":path", "/b")],
            &[(":path", "/b")],
            &[(":status", "200")],
            &[(":other", "x")],
            &[("host", "other")],
            &[("content-length", "1"), ("content-length", "1")],
            &[("content-length", "+1")],
        ] {
            assert_eq!(request(&with(more), true), Err(Reading::Malformed), "{more:?}");
        }
        for missing in 0..3 {
            let fields: Vec<_> =
                GOOD.iter().enumerate().filter(|(n, _)| *n != missing).map(|(_, field)| *field).collect();
            assert_eq!(request(&fields, false), Err(Reading::Malformed));
        }
        let long = "x".repeat(120);
        let many: Vec<(&str, &str)> = GOOD.iter().copied().chain((0..9).map(|_| ("x", long.as_str()))).collect();
        assert_eq!(request(&many, false), Err(Reading::TooLarge));
    }

    #[test]
    fn targets_that_are_no_path() {
        let connect = [(":method", "CONNECT"), (":authority", "h:1")];
        let socket = [connect[0], connect[1], (":scheme", "https"), (":path", "/a"), (":protocol", "websocket")];
        let options = [(":method", "OPTIONS"), (":scheme", "http"), (":path", "*"), (":authority", "h")];
        assert_eq!(request(&connect, true).unwrap(), "CONNECT h:1 HTTP/1.1\r\nhost: h:1\r\n\r\n");
        assert_eq!(
            request(&socket, true).unwrap(),
            "GET /a HTTP/1.1\r\nhost: h:1\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
        );
        assert!(request(&options, false).unwrap().starts_with("OPTIONS * HTTP/1.1"));
        type Fields<'a> = Vec<(&'a str, &'a str)>;
        let plus = |fields: &[(&'static str, &'static str)], more| -> Fields<'_> {
            fields.iter().copied().chain([more]).collect()
        };
        let other = |fields: &[(&'static str, &'static str)], at: usize, value| -> Fields<'_> {
            let mut fields = fields.to_vec();
            fields[at].1 = value;
            fields
        };
        for fields in [
            plus(&connect, ("content-length", "0")),
            plus(&connect, ("host", "other:1")),
            plus(&connect, (":path", "/")),
            plus(&connect, (":scheme", "http")),
            plus(&socket[..4], ("x", "y")),
            other(&connect, 1, ""),
            plus(&socket, ("host", "other")),
            other(&socket, 3, "http://other/"),
            other(&socket, 4, "web socket"),
            other(&socket, 4, ""),
            other(&options, 0, "GET"),
            // Only CONNECT has a protocol (RFC 8441 §4).
            [&options[..], &[(":protocol", "websocket")]].concat(),
            other(&socket, 0, "GET"),
            plus(&GOOD, ("x", "a ")),
            plus(&GOOD, ("proxy-connection", "close")),
            plus(&GOOD, ("keep-alive", "timeout=5")),
        ] {
            assert_eq!(request(&fields, true), Err(Reading::Malformed), "{fields:?}");
        }
    }

    #[test]
    fn text_becomes_blocks() {
        let shown = |block: &[u8]| {
            let mut out = String::new();
            let show = |name: &[u8], value: &[u8]| {
                out.push_str(&format!("{}={};", String::from_utf8_lossy(name), String::from_utf8_lossy(value)));
            };
            Decoder::default().read(block, show).unwrap();
            out
        };
        let mut block = Vec::new();
        write_response(
            b"HTTP/1.1 200 OK\r\nServer: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nX-A:  b:c \r\n\r\n",
            &mut block,
        );
        assert_eq!(shown(&block), ":status=200;server=x;x-a=b:c;");
        block.clear();
        write_request(
            b"PUT /x HTTP/1.1\r\nHost: h:1\r\nA: b\r\nTransfer-Encoding: chunked\r\n\r\n",
            false,
            false,
            &mut block,
        );
        assert_eq!(shown(&block), ":method=PUT;:scheme=http;:authority=h:1;:path=/x;a=b;");
        block.clear();
        let upgrade = b"GET /chat HTTP/1.1\r\nHost: h\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: k\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        write_request(upgrade, true, true, &mut block);
        assert_eq!(
            shown(&block),
            ":method=CONNECT;:scheme=https;:authority=h;:path=/chat;:protocol=websocket;sec-websocket-version=13;"
        );
    }
}
