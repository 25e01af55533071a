//! RFC 9113 and RFC 7541 section by section: a row each, frames in, verdict out. `OUTRIGGER_PEER=host:port` gives the rows to
//! another server of h2c; where the machine has HAProxy the rows themselves are checked with it.

use std::net::SocketAddr;

use crate::harness::{Port, Upstream, World, eventually, ok};
use crate::wire::*;

/// What must come of a row.
#[derive(Clone, Copy, Debug)]
enum Want {
    /// GOAWAY with this code, and the end.
    Connection(u32),
    /// RST_STREAM with this code; the connection goes on.
    Stream(u32),
    /// This status.
    Answer(u16),
    /// Nothing happens: a PING is answered.
    Alive,
}
use Want::{Alive, Answer, Connection, Stream};

const PROTOCOL: u32 = 1;
const FLOW: u32 = 3;
const CLOSED: u32 = 5;
const SIZE: u32 = 6;
const COMPRESSION: u32 = 9;

fn headers(fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, WHOLE | END, 1, &block(fields))
}

fn with(more: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, WHOLE | END, 1, &request("GET", "/", more))
}

fn raw(block: &[u8]) -> Vec<u8> {
    // GET http / in the static table, and an authority.
    frame(HEADERS, WHOLE | END, 1, &[&[0x82, 0x86, 0x84, 0x01, 1, b'h'], block].concat())
}

fn all(parts: &[Vec<u8>]) -> Vec<u8> {
    parts.concat()
}

#[allow(clippy::too_many_lines, reason = "a table")]
fn rows() -> Vec<(&'static str, &'static str, Vec<u8>, Want)> {
    let dependency = |on: u32| [&on.to_be_bytes()[..], &[15]].concat();
    let open = |length: &str| frame(HEADERS, WHOLE, 1, &request("POST", "/", &[("content-length", length)]));
    let method = (":method", "GET");
    let scheme = (":scheme", "http");
    let path = (":path", "/");
    let authority = (":authority", "h");
    vec![
        ("9113 3.4", "SETTINGS may be empty", get(1), Answer(200)),
        ("9113 4.1", "unknown types are let pass", all(&[frame(0xfe, 0xff, 0, &[0; 8]), get(1)]), Answer(200)),
        (
            "9113 4.1",
            "unknown flags are let pass",
            frame(HEADERS, WHOLE | END | 0xc2, 1, &request("GET", "/", &[])),
            Answer(200),
        ),
        ("9113 4.1", "the reserved bit is let pass", get(0x8000_0001), Answer(200)),
        ("9113 4.2", "DATA of 16384 bytes", all(&[post(1), frame(DATA, END, 1, &[b'x'; 16384])]), Answer(200)),
        (
            "9113 4.2",
            "DATA beyond the largest frame",
            all(&[post(1), frame(DATA, END, 1, &[0; 16385])]),
            Connection(SIZE),
        ),
        ("9113 4.2", "HEADERS beyond the largest frame", frame(HEADERS, WHOLE | END, 1, &[0; 16385]), Connection(SIZE)),
        ("9113 4.3", "a block that cannot be read", frame(HEADERS, WHOLE | END, 1, &[0x40]), Connection(COMPRESSION)),
        (
            "9113 4.3",
            "PRIORITY within a block",
            all(&[
                frame(HEADERS, END, 1, &request("GET", "/", &[])),
                frame(PRIORITY, 0, 1, &dependency(0)),
                frame(CONTINUATION, WHOLE, 1, &[]),
            ]),
            Connection(PROTOCOL),
        ),
        (
            "9113 4.3",
            "HEADERS of another stream within a block",
            all(&[frame(HEADERS, END, 1, &request("GET", "/", &[])), get(3)]),
            Connection(PROTOCOL),
        ),
        ("9113 5.1", "idle: DATA", frame(DATA, END, 1, b"x"), Connection(PROTOCOL)),
        ("9113 5.1", "idle: RST_STREAM", frame(RST, 0, 1, &[0, 0, 0, 8]), Connection(PROTOCOL)),
        ("9113 5.1", "idle: WINDOW_UPDATE", frame(WINDOW, 0, 1, &[0, 0, 0, 100]), Connection(PROTOCOL)),
        (
            "9113 5.1",
            "idle: CONTINUATION",
            frame(CONTINUATION, WHOLE, 1, &request("GET", "/", &[])),
            Connection(PROTOCOL),
        ),
        ("9113 5.1", "idle: PRIORITY", all(&[frame(PRIORITY, 0, 1, &dependency(0)), get(1)]), Answer(200)),
        (
            "9113 5.1",
            "half-closed: DATA",
            all(&[frame(HEADERS, WHOLE | END, 1, &request("GET", "/slow", &[])), frame(DATA, END, 1, b"x")]),
            Stream(CLOSED),
        ),
        (
            "9113 5.1",
            "half-closed: HEADERS",
            all(&[frame(HEADERS, WHOLE | END, 1, &request("GET", "/slow", &[])), get(1)]),
            Stream(CLOSED),
        ),
        (
            "9113 5.1",
            "half-closed: CONTINUATION",
            all(&[frame(HEADERS, WHOLE | END, 1, &request("GET", "/slow", &[])), frame(CONTINUATION, WHOLE, 1, &[])]),
            Connection(PROTOCOL),
        ),
        ("9113 5.1", "half-closed: PRIORITY", all(&[get(1), frame(PRIORITY, 0, 1, &dependency(0))]), Answer(200)),
        ("9113 5.1", "half-closed: WINDOW_UPDATE", all(&[get(1), frame(WINDOW, 0, 1, &[0, 0, 0, 9])]), Answer(200)),
        (
            "9113 5.1",
            "closed by the client: DATA",
            all(&[post(1), frame(RST, 0, 1, &[0, 0, 0, 8]), frame(DATA, END, 1, b"x")]),
            Connection(CLOSED),
        ),
        (
            "9113 5.1",
            "closed by the client: HEADERS",
            all(&[post(1), frame(RST, 0, 1, &[0, 0, 0, 8]), get(1)]),
            Connection(CLOSED),
        ),
        (
            "9113 5.1",
            "closed by the client: WINDOW_UPDATE",
            all(&[post(1), frame(RST, 0, 1, &[0, 0, 0, 8]), frame(WINDOW, 0, 1, &[0, 0, 0, 9])]),
            Alive,
        ),
        (
            "9113 5.1",
            "closed by the client: RST_STREAM",
            all(&[post(1), frame(RST, 0, 1, &[0, 0, 0, 8]), frame(RST, 0, 1, &[0, 0, 0, 8])]),
            Alive,
        ),
        ("9113 5.1.1", "an even number", get(2), Connection(PROTOCOL)),
        ("9113 5.1.1", "a number below the last", all(&[get(5), get(3)]), Connection(CLOSED)),
        (
            "9113 5.3.1",
            "HEADERS that depend on themselves",
            frame(HEADERS, WHOLE | END | PRIORITISED, 1, &[dependency(1), request("GET", "/", &[])].concat()),
            Connection(PROTOCOL),
        ),
        (
            "9113 5.3.1",
            "HEADERS with a priority",
            frame(HEADERS, WHOLE | END | PRIORITISED, 1, &[dependency(0), request("GET", "/", &[])].concat()),
            Answer(200),
        ),
        ("9113 5.3.1", "PRIORITY that depends on itself", frame(PRIORITY, 0, 1, &dependency(1)), Connection(PROTOCOL)),
        (
            "9113 5.5",
            "an unknown frame within a block",
            all(&[frame(HEADERS, END, 1, &request("GET", "/", &[])), frame(0xfe, 0, 0, b"x")]),
            Connection(PROTOCOL),
        ),
        ("9113 5.5", "an unknown setting", all(&[settings(&[(0xff, 1)]), get(1)]), Answer(200)),
        ("9113 6.1", "DATA", all(&[post(1), frame(DATA, END, 1, b"test")]), Answer(200)),
        ("9113 6.1", "padded DATA", all(&[post(1), frame(DATA, END | PADDED, 1, b"\x02hi\0\0")]), Answer(200)),
        ("9113 6.1", "DATA of the connection", all(&[post(1), frame(DATA, END, 0, b"x")]), Connection(PROTOCOL)),
        (
            "9113 6.1",
            "padding beyond the payload",
            all(&[post(1), frame(DATA, END | PADDED, 1, b"\x06hello")]),
            Connection(PROTOCOL),
        ),
        (
            "9113 6.2",
            "padded HEADERS",
            frame(HEADERS, WHOLE | END | PADDED, 1, &[&[2], &request("GET", "/", &[])[..], &[0, 0]].concat()),
            Answer(200),
        ),
        ("9113 6.2", "HEADERS of the connection", get(0), Connection(PROTOCOL)),
        (
            "9113 6.2",
            "padding beyond the block",
            frame(HEADERS, WHOLE | END | PADDED, 1, &[200, 0x82]),
            Connection(PROTOCOL),
        ),
        ("9113 6.3", "PRIORITY of the connection", frame(PRIORITY, 0, 0, &dependency(0)), Connection(PROTOCOL)),
        ("9113 6.3", "PRIORITY of four bytes", all(&[post(1), frame(PRIORITY, 0, 1, &[0; 4])]), Stream(SIZE)),
        ("9113 6.4", "RST_STREAM of the connection", frame(RST, 0, 0, &[0; 4]), Connection(PROTOCOL)),
        ("9113 6.4", "RST_STREAM of three bytes", all(&[post(1), frame(RST, 0, 1, &[0; 3])]), Connection(SIZE)),
        ("9113 6.5", "an answer to SETTINGS with payload", frame(SETTINGS, END, 0, &[0; 6]), Connection(SIZE)),
        ("9113 6.5", "SETTINGS of a stream", frame(SETTINGS, 0, 1, &[]), Connection(PROTOCOL)),
        ("9113 6.5", "SETTINGS of five bytes", frame(SETTINGS, 0, 0, &[0; 5]), Connection(SIZE)),
        ("9113 6.5.2", "ENABLE_PUSH of 2", settings(&[(2, 2)]), Connection(PROTOCOL)),
        ("9113 6.5.2", "INITIAL_WINDOW_SIZE above the greatest", settings(&[(4, 0x8000_0000)]), Connection(FLOW)),
        ("9113 6.5.2", "MAX_FRAME_SIZE below the least", settings(&[(5, 16_383)]), Connection(PROTOCOL)),
        ("9113 6.5.2", "MAX_FRAME_SIZE above the greatest", settings(&[(5, 16_777_216)]), Connection(PROTOCOL)),
        ("9113 6.5.3", "the last of two values holds", all(&[settings(&[(4, 0), (4, 100)]), get(1)]), Answer(200)),
        ("9113 6.7", "an answer to a PING nobody sent", frame(PING, END, 0, b"nobody's"), Alive),
        ("9113 6.7", "PING of a stream", frame(PING, 0, 1, &[0; 8]), Connection(PROTOCOL)),
        ("9113 6.7", "PING of six bytes", frame(PING, 0, 0, &[0; 6]), Connection(SIZE)),
        ("9113 6.8", "GOAWAY of a stream", frame(GOAWAY, 0, 1, &[0; 8]), Connection(PROTOCOL)),
        (
            "9113 6.8",
            "what was begun before GOAWAY is answered",
            all(&[get(1), frame(GOAWAY, 0, 0, &[0; 8])]),
            Answer(200),
        ),
        ("9113 6.9", "WINDOW_UPDATE by nothing", frame(WINDOW, 0, 0, &[0; 4]), Connection(PROTOCOL)),
        (
            "9113 6.9",
            "WINDOW_UPDATE of a stream by nothing",
            all(&[post(1), frame(WINDOW, 0, 1, &[0; 4])]),
            Stream(PROTOCOL),
        ),
        ("9113 6.9", "WINDOW_UPDATE of three bytes", frame(WINDOW, 0, 0, &[0; 3]), Connection(SIZE)),
        (
            "9113 6.9.1",
            "a window beyond the greatest",
            frame(WINDOW, 0, 0, &0x7fff_ffffu32.to_be_bytes()),
            Connection(FLOW),
        ),
        (
            "9113 6.9.1",
            "a stream's window beyond the greatest",
            all(&[post(1), frame(WINDOW, 0, 1, &0x7fff_ffffu32.to_be_bytes())]),
            Stream(FLOW),
        ),
        (
            "9113 6.9.2",
            "a change that overflows a stream's window",
            all(&[post(1), frame(WINDOW, 0, 1, &0x7000_0000u32.to_be_bytes()), settings(&[(4, 0x7fff_ffff)])]),
            Connection(FLOW),
        ),
        (
            "9113 6.10",
            "a block in pieces",
            all(&[
                frame(HEADERS, END, 1, &request("GET", "/", &[])[..7]),
                frame(CONTINUATION, 0, 1, &request("GET", "/", &[])[7..9]),
                frame(CONTINUATION, WHOLE, 1, &request("GET", "/", &[])[9..]),
            ]),
            Answer(200),
        ),
        (
            "9113 6.10",
            "CONTINUATION of the connection",
            all(&[frame(HEADERS, END, 1, &request("GET", "/", &[])), frame(CONTINUATION, WHOLE, 0, &[])]),
            Connection(PROTOCOL),
        ),
        (
            "9113 6.10",
            "CONTINUATION of another stream",
            all(&[frame(HEADERS, END, 1, &request("GET", "/", &[])), frame(CONTINUATION, WHOLE, 3, &[])]),
            Connection(PROTOCOL),
        ),
        (
            "9113 6.10",
            "CONTINUATION after a whole block",
            all(&[post(1), frame(CONTINUATION, WHOLE, 1, &[])]),
            Connection(PROTOCOL),
        ),
        (
            "9113 6.10",
            "DATA within a block",
            all(&[frame(HEADERS, 0, 1, &request("POST", "/", &[])), frame(DATA, END, 1, b"x")]),
            Connection(PROTOCOL),
        ),
        ("9113 7", "an unknown code in RST_STREAM", all(&[post(1), frame(RST, 0, 1, &[0xff; 4]), get(3)]), Alive),
        (
            "9113 8.1",
            "trailers",
            all(&[post(1), frame(DATA, 0, 1, b"x"), frame(HEADERS, WHOLE | END, 1, &block(&[("x-t", "1")]))]),
            Answer(200),
        ),
        (
            "9113 8.1",
            "trailers that do not end the stream",
            all(&[post(1), frame(HEADERS, WHOLE, 1, &block(&[("x-t", "1")]))]),
            Stream(PROTOCOL),
        ),
        (
            "9113 8.1",
            "a pseudo-field in trailers",
            all(&[post(1), frame(HEADERS, WHOLE | END, 1, &block(&[(":path", "/")]))]),
            Stream(PROTOCOL),
        ),
        ("9113 8.1.1", "less than was declared", all(&[open("4"), frame(DATA, END, 1, b"abc")]), Stream(PROTOCOL)),
        ("9113 8.1.1", "more than was declared", all(&[open("2"), frame(DATA, END, 1, b"abc")]), Stream(PROTOCOL)),
        (
            "9113 8.1.1",
            "as much as was declared, in two pieces",
            all(&[open("4"), frame(DATA, 0, 1, b"ab"), frame(DATA, END, 1, b"cd")]),
            Answer(200),
        ),
        ("9113 8.1.1", "declared, and nothing", with(&[("content-length", "3")]), Stream(PROTOCOL)),
        ("9113 8.2", "an upper-case name", with(&[("X-A", "b")]), Stream(PROTOCOL)),
        ("9113 8.2.1", "a name with a blank", with(&[("x a", "b")]), Stream(PROTOCOL)),
        ("9113 8.2.1", "a name with a colon", with(&[("x:a", "b")]), Stream(PROTOCOL)),
        ("9113 8.2.1", "a name beyond ASCII", with(&[("x\u{e4}", "b")]), Stream(PROTOCOL)),
        ("9113 8.2.1", "a value with LF", with(&[("x", "a\nb")]), Stream(PROTOCOL)),
        ("9113 8.2.1", "a value with CR", with(&[("x", "a\rb")]), Stream(PROTOCOL)),
        ("9113 8.2.1", "a value with NUL", with(&[("x", "a\0b")]), Stream(PROTOCOL)),
        ("9113 8.2.1", "a value that begins with a blank", with(&[("x", " a")]), Stream(PROTOCOL)),
        ("9113 8.2.1", "a value that ends with a tab", with(&[("x", "a\t")]), Stream(PROTOCOL)),
        ("9113 8.2.2", "connection", with(&[("connection", "keep-alive")]), Stream(PROTOCOL)),
        ("9113 8.2.2", "transfer-encoding", with(&[("transfer-encoding", "chunked")]), Stream(PROTOCOL)),
        ("9113 8.2.2", "upgrade", with(&[("upgrade", "h2c")]), Stream(PROTOCOL)),
        ("9113 8.2.2", "te but trailers", with(&[("te", "gzip")]), Stream(PROTOCOL)),
        ("9113 8.2.2", "te: trailers", with(&[("te", "trailers")]), Answer(200)),
        ("9113 8.2.3", "a cookie in crumbs", with(&[("cookie", "a=1"), ("cookie", "b=2")]), Answer(200)),
        (
            "9113 8.3",
            "a pseudo-field after a field",
            headers(&[method, scheme, authority, ("x", "y"), path]),
            Stream(PROTOCOL),
        ),
        (
            "9113 8.3",
            "a pseudo-field nobody knows",
            headers(&[method, scheme, path, authority, (":x", "y")]),
            Stream(PROTOCOL),
        ),
        (
            "9113 8.3",
            "a pseudo-field of answers",
            headers(&[method, scheme, path, authority, (":status", "200")]),
            Stream(PROTOCOL),
        ),
        ("9113 8.3.1", "no method", headers(&[scheme, path, authority]), Stream(PROTOCOL)),
        ("9113 8.3.1", "no scheme", headers(&[method, path, authority]), Stream(PROTOCOL)),
        ("9113 8.3.1", "no path", headers(&[method, scheme, authority]), Stream(PROTOCOL)),
        ("9113 8.3.1", "an empty path", headers(&[method, scheme, (":path", ""), authority]), Stream(PROTOCOL)),
        ("9113 8.3.1", "two methods", headers(&[method, method, scheme, path, authority]), Stream(PROTOCOL)),
        ("9113 8.3.1", "two schemes", headers(&[method, scheme, scheme, path, authority]), Stream(PROTOCOL)),
        ("9113 8.3.1", "two paths", headers(&[method, scheme, path, path, authority]), Stream(PROTOCOL)),
        ("9113 8.3.1", "two authorities", headers(&[method, scheme, path, authority, authority]), Stream(PROTOCOL)),
        ("9113 8.3.1", "an authority and another host", with(&[("host", "other")]), Stream(PROTOCOL)),
        ("9113 8.3.1", "a host instead of an authority", headers(&[method, scheme, path, ("host", "h")]), Answer(200)),
        (
            "9113 8.4",
            "PUSH_PROMISE by a client",
            frame(PUSH, WHOLE, 1, &[&[0, 0, 0, 2], &request("GET", "/", &[])[..]].concat()),
            Connection(PROTOCOL),
        ),
        (
            "9113 8.5",
            "CONNECT with a path",
            headers(&[(":method", "CONNECT"), scheme, path, (":authority", "h:1")]),
            Stream(PROTOCOL),
        ),
        ("9113 8.5", "CONNECT without an authority", headers(&[(":method", "CONNECT")]), Stream(PROTOCOL)),
        (
            "9113 8.5",
            "CONNECT where no route takes it",
            headers(&[(":method", "CONNECT"), (":authority", "h:1")]),
            Answer(405),
        ),
        (
            "8441 4",
            "a protocol without CONNECT",
            headers(&[method, (":protocol", "websocket"), scheme, path, authority]),
            Stream(PROTOCOL),
        ),
        ("7541 2.3.3", "an index beyond both tables", raw(&[0xff, 0x00]), Connection(COMPRESSION)),
        ("7541 2.3.3", "a name's index beyond both tables", raw(&[0x7f, 0x00, 1, b'x']), Connection(COMPRESSION)),
        (
            "7541 4.2",
            "a table larger than was offered",
            frame(HEADERS, WHOLE | END, 1, &[0x3f, 0xe2, 0x1f, 0x82, 0x86, 0x84, 0x01, 1, b'h']),
            Connection(COMPRESSION),
        ),
        (
            "7541 4.2",
            "a table as large as was offered",
            frame(HEADERS, WHOLE | END, 1, &[0x3f, 0xe1, 0x1f, 0x82, 0x86, 0x84, 0x01, 1, b'h']),
            Answer(200),
        ),
        ("7541 4.2", "a table's size behind a field", raw(&[0x20]), Connection(COMPRESSION)),
        (
            "7541 4.4",
            "an entry larger than the table",
            raw(&[&[0x40, 1, b'x', 0x7f, 0xa9, 0x1f][..], &[b'y'; 4136]].concat()),
            Answer(200),
        ),
        (
            "7541 5.1",
            "an integer without end",
            raw(&[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
            Connection(COMPRESSION),
        ),
        ("7541 5.2", "a string longer than the block", raw(&[0x00, 1, b'x', 9, b'y']), Connection(COMPRESSION)),
        ("7541 5.2", "Huffman padding of eight bits", raw(&[0x00, 1, b'x', 0x82, 0x1f, 0xff]), Connection(COMPRESSION)),
        ("7541 5.2", "Huffman padding with zeros", raw(&[0x00, 1, b'x', 0x81, 0x18]), Connection(COMPRESSION)),
        (
            "7541 5.2",
            "Huffman's end mark",
            raw(&[0x00, 1, b'x', 0x84, 0xff, 0xff, 0xff, 0xff]),
            Connection(COMPRESSION),
        ),
        ("7541 6.1", "index 0", raw(&[0x80]), Connection(COMPRESSION)),
        ("7541 6.2.1", "a field that is kept, and used again", raw(&[0x40, 1, b'x', 1, b'y', 0xbe]), Answer(200)),
        ("7541 6.2.2", "a field that is not kept", raw(&[0x00, 1, b'x', 1, b'y', 0xbe]), Connection(COMPRESSION)),
        ("7541 6.2.3", "a field that is never to be kept", raw(&[0x10, 1, b'x', 1, b'y']), Answer(200)),
        (
            "7541 6.3",
            "two sizes at the beginning",
            frame(HEADERS, WHOLE | END, 1, &[0x20, 0x3f, 0xe1, 0x1f, 0x82, 0x86, 0x84, 0x01, 1, b'h']),
            Answer(200),
        ),
    ]
}

/// What comes of the bytes. A PING behind them says when nothing more will.
fn verdict(wire: &mut Wire, bytes: &[u8], want: Want) -> Came {
    wire.send(bytes);
    if matches!(want, Alive | Connection(_) | Stream(_)) {
        wire.send(&frame(PING, 0, 0, b"are you?"));
    }
    loop {
        match wire.next() {
            Came::Goaway(0) => {}
            came @ (Came::Goaway(_) | Came::Closed | Came::Reset(..) | Came::Pong(_)) => return came,
            came @ Came::Head(..) if matches!(want, Answer(_)) => return came,
            _ => {}
        }
    }
}

fn is_as_wanted(came: &Came, want: Want) -> bool {
    match want {
        Connection(code) => *came == Came::Goaway(code),
        Stream(code) => matches!(came, Came::Reset(1, found) if *found == code),
        Answer(status) => came.status() == Some(status),
        Alive => matches!(came, Came::Pong(_)),
    }
}

/// Every server chooses between ending a stream and the connection, and some answer 400 (§5.4, §8.1.1).
fn is_allowed(came: &Came, want: Want) -> bool {
    match want {
        Connection(CLOSED) => matches!(came, Came::Goaway(_) | Came::Closed | Came::Reset(..)),
        Connection(_) => matches!(came, Came::Goaway(_) | Came::Closed),
        Stream(_) => matches!(came, Came::Reset(..) | Came::Goaway(_) | Came::Closed) || came.status() == Some(400),
        Answer(405) => came.status().is_some() || matches!(came, Came::Reset(..)),
        _ => is_as_wanted(came, want),
    }
}

fn judge(address: SocketAddr, own: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    for (section, name, bytes, want) in rows() {
        let mut wire = Wire::connect(address, &[]);
        let came = verdict(&mut wire, &bytes, want);
        let good = if own { is_as_wanted(&came, want) } else { is_allowed(&came, want) };
        if !good {
            wrong.push(format!("RFC {section}, {name}: wanted {want:?}, came {came:?}"));
        } else if own && matches!(want, Stream(_) | Answer(_)) && !matches!(want, Answer(405)) && section != "9113 6.8"
        {
            // The connection goes on.
            wire.send(&frame(HEADERS, WHOLE | END, 101, &request("GET", "/", &[])));
            if !wire.answer(101).0.starts_with(":status: 200") {
                wrong.push(format!("RFC {section}, {name}: the connection does not go on"));
            }
        }
    }
    wrong
}

fn app() -> Upstream {
    Upstream::start(|seen| {
        if seen.line().contains("/slow") {
            std::thread::sleep(std::time::Duration::from_millis(300));
        }
        ok("hello")
    })
}

#[test]
fn every_section_is_kept() {
    let upstream = app();
    let world = World::simple(&[upstream.address]);
    let peer = std::env::var("OUTRIGGER_PEER").ok().and_then(|peer| peer.parse().ok());
    let wrong = judge(peer.unwrap_or(world.address()), peer.is_none());
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), rows().len(), wrong.join("\n"));
}

/// The rows themselves, checked with a server that others wrote.
#[test]
fn another_server_agrees() {
    let upstream = app();
    let directory = tempfile::tempdir().unwrap();
    let reserved = Port::reserve();
    let port = reserved.address;
    let config = format!(
        "defaults\n mode http\n timeout client 30s\n timeout server 30s\n timeout connect 5s\nfrontend f\n bind {port} proto h2\n http-request return status 405 if METH_CONNECT\n default_backend b\nbackend b\n server s {}\n",
        upstream.address
    );
    let file = directory.path().join("peer.cfg");
    std::fs::write(&file, config).unwrap();
    let child = std::process::Command::new("haproxy")
        .args(["-db", "-f", file.to_str().unwrap()])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn();
    let Ok(mut child) = child else {
        println!("NOT RUN: there is no haproxy");
        return;
    };
    eventually("the other server's start", || std::net::TcpStream::connect(port).is_ok());
    let wrong = judge(port, false);
    let _ = child.kill();
    let _ = child.wait();
    // What it takes though (2.6), or says only after the answer to the PING.
    let known = [
        "a value that begins with a blank",
        "a value that ends with a tab",
        "an authority and another host",
        "overflows a stream's window",
        "declared, and nothing",
        "a protocol without CONNECT",
    ];
    let other: Vec<&String> = wrong.iter().filter(|line| !known.iter().any(|name| line.contains(name))).collect();
    assert!(other.is_empty(), "{other:#?}");
}

#[test]
fn a_preface_must_be_one() {
    let upstream = app();
    let spec = crate::harness::simple_spec(&[upstream.address], "");
    let world = World::with(&spec.replace("address: \"127.0.0.1:0\"}", "address: \"127.0.0.1:0\", http1: false}"));
    for bytes in [&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", &[0; 24]] {
        let mut wire = Wire::bare(world.address());
        wire.send(bytes);
        wire.until("GOAWAY", |came| *came == Came::Goaway(PROTOCOL));
        assert_eq!(wire.next(), Came::Closed);
    }
    // Then SETTINGS, which are no answer.
    for first in [frame(PING, 0, 0, &[0; 8]), frame(SETTINGS, END, 0, &[])] {
        let mut wire = Wire::bare(world.address());
        wire.send(&[PREFACE, &first].concat());
        wire.until("GOAWAY", |came| *came == Came::Goaway(PROTOCOL));
    }
    let mut wire = Wire::connect(world.address(), &[]);
    assert!(matches!(wire.next(), Came::Settings(_)), "ours come first");
    wire.until("their answer", |came| *came == Came::SettingsAck);
    wire.send(&frame(PING, 0, 0, b"8 bytes!"));
    assert_eq!(wire.until("the answer", |came| matches!(came, Came::Pong(_))), Came::Pong(b"8 bytes!".to_vec()));
}

/// §6.9: not a byte more than the windows let through, and all of them in the end.
#[test]
fn windows_are_kept() {
    let upstream = Upstream::start(|_| ok(&"x".repeat(100_000)));
    let world = World::simple(&[upstream.address]);
    let mut wire = Wire::connect(world.address(), &[(4, 1)]);
    wire.send(&get(1));
    let size = |came: &Came| if let Came::Data(1, data, _) = came { data.len() } else { 0 };
    assert_eq!(size(&wire.until("a byte", |came| size(came) > 0)), 1);
    // Each update lets through what it says (§6.9.1); a smaller initial window makes one less than nothing (§6.9.2).
    wire.send(&frame(WINDOW, 0, 1, &10u32.to_be_bytes()));
    assert_eq!(size(&wire.until("ten bytes", |came| size(came) > 0)), 10);
    wire.send(&settings(&[(4, 21)]));
    assert_eq!(size(&wire.until("twenty bytes", |came| size(came) > 0)), 20);
    wire.send(&settings(&[(4, 0)]));
    wire.send(&frame(WINDOW, 0, 1, &21u32.to_be_bytes()));
    wire.send(&frame(PING, 0, 0, &[7; 8]));
    assert!(matches!(wire.until("nothing", |came| size(came) > 0 || matches!(came, Came::Pong(_))), Came::Pong(_)));
    wire.send(&frame(WINDOW, 0, 1, &200_000u32.to_be_bytes()));
    wire.send(&frame(WINDOW, 0, 0, &200_000u32.to_be_bytes()));
    let (_, body, _) = wire.answer(1);
    assert_eq!(body.len(), 100_000 - 31);
}

/// §5.1.2: more streams than were offered are refused, and may be tried again.
#[test]
fn streams_beyond_the_offer_are_refused() {
    let upstream = Upstream::start(|_| ok("late"));
    let world = World::simple(&[upstream.address]);
    let mut wire = Wire::connect(world.address(), &[]);
    let Came::Settings(own) = wire.next() else { panic!("no settings") };
    let offered = own.chunks(6).find(|one| one[1] == 3).map(|one| u32::from_be_bytes(one[2..].try_into().unwrap()));
    let offered = offered.unwrap();
    let many: Vec<u8> = (0..offered + 5).flat_map(|n| post(2 * n + 1)).collect();
    wire.send(&many);
    for _ in 0..5 {
        let refused = wire.until("a refusal", |came| matches!(came, Came::Reset(..)));
        assert!(matches!(refused, Came::Reset(stream, 7) if stream > 2 * offered), "{refused:?}");
    }
    wire.send(&frame(DATA, END, 1, b""));
    assert_eq!(wire.answer(1).1, b"late");
}
