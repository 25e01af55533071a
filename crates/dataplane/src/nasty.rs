//! Input that has broken other programs, what is made of it by small changes, and what must hold for all of it: reading
//! never panics, does not depend on where the input was cut, and what is written again is read as the same.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::body::Body;
use crate::chunk::{Chunked, Piece};
use crate::forward;
use crate::h2::head::{self as h2head, Kind, Reading};
use crate::h2::hpack::{self, Decoder};
use crate::head::{self, Bounds, LONGEST, Length, Request};

/// Requests from reports on smuggling, desynchronisation and parsers (RFC 9112 §11.2), and plain ones to be changed.
const HEADS: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /a/b?c=d HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close, x\r\nX: y\r\n\r\nhello",
    b"PUT http://h:1/x HTTP/1.1\r\nHost: other\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\nTrailer: x\r\n\r\n0\r\n\r\n",
    b"OPTIONS * HTTP/1.0\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\x0bchunked\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n folded\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
    b"GET / HTTP/1.1\nHost: a\n\n",
    b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
    b"GET /%2e%2e/x HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
];

const BODIES: &[&[u8]] = &[
    b"5\r\nhello\r\n0\r\n\r\n",
    b"5;a=\"b\"\r\nhello\r\n0;x\r\nX-T: 1\r\nContent-Length: 9\r\n\r\n",
    b"0\r\nA: b\r\nHost: evil\r\n\r\nGET / HTTP/1.1\r\n",
    b"ffffffffffffffff\r\n",
    b"5\nhello\n0\n\n",
    b"05\r\nhello\r\n00\r\n\r\n",
    b"5\r\nhello0\r\n\r\n",
    b"1\r\n\r\n\r\n0\r\n\r\n",
    b"0\r\n\r\r\n",
];

/// Blocks of fields: good ones, bombs, and such as decoders have tripped over.
const BLOCKS: &[&[u8]] = &[
    &[0x82, 0x86, 0x84, 0x01, 1, b'h'],
    &[
        0x83, 0x86, 0x84, 0x41, 0x8a, 0xa0, 0xe4, 0x1d, 0x13, 0x9d, 0x09, 0xb8, 0xf3, 0xef, 0xbf, 0x40, 1, b'x', 1,
        b'y', 0xbe, 0xbe, 0xbf,
    ],
    &[0x3f, 0xe1, 0x1f, 0x82, 0x20],
    &[0x7f, 0xff, 0xff, 0xff, 0xff, 0x7f],
    &[0x00, 0x81, 0xff, 0x01, b'a'],
    &[0x00, 1, b'x', 3, b'\r', b'\n', b'y'],
    &[0x82, 0x86, 0x84, 0x01, 1, b'h', 0x00, 10, b'c', b'o', b'n', b'n', b'e', b'c', b't', b'i', b'o', b'n', 1, b'x'],
    &[0x02, 7, b'C', b'O', b'N', b'N', b'E', b'C', b'T', 0x01, 3, b'h', b':', b'1'],
];

/// One of these with some bytes changed, left out, put in or doubled.
fn changed(corpus: &'static [&'static [u8]]) -> impl Strategy<Value = Vec<u8>> {
    let telling = prop::sample::select(b"\r\n :;,0159afHx\t\0\x7f\x80\xff%\"/".to_vec());
    let change = (any::<prop::sample::Index>(), 0u8..6, prop_oneof![telling, any::<u8>()]);
    (prop::sample::select(corpus), prop::sample::select(corpus), vec(change, 0..6)).prop_map(|(one, other, changes)| {
        let mut bytes = one.to_vec();
        for (index, how, byte) in changes {
            if bytes.is_empty() {
                break;
            }
            let at = index.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 => drop(bytes.remove(at)),
                3 => bytes.truncate(at),
                4 => {
                    let copy = bytes[at..].to_vec();
                    bytes.extend(copy);
                }
                _ => {
                    let end = index.index(other.len());
                    bytes.splice(at..at, other[end..].iter().copied());
                }
            }
        }
        bytes
    })
}

const BOUNDS: Bounds = Bounds { bytes: 4096, fields: 30 };

fn read(bytes: &[u8]) -> (Result<Option<Request>, head::Refusal>, Vec<head::Field>) {
    let mut fields = Vec::new();
    let outcome = head::request(bytes, &mut fields, BOUNDS);
    (outcome, fields)
}

/// Payload, trailers, whether it is over, and how many bytes were used; or that it was refused.
fn unchunk(bytes: &[u8], cuts: &[usize]) -> Option<(Vec<u8>, Vec<u8>, bool, usize)> {
    let (mut state, mut payload, mut used, mut end) = (Chunked::default(), Vec::new(), 0, 0);
    let mut cuts = cuts.iter().cycle();
    while end < bytes.len() && !state.is_done() {
        end = cuts.next().map_or(bytes.len(), |cut| end + cut).min(bytes.len());
        loop {
            let (length, piece) = state.next(&bytes[used..end]).ok()?;
            if let Piece::Data(range) = &piece {
                payload.extend_from_slice(&bytes[used..end][range.clone()]);
            }
            used += length;
            if matches!(piece, Piece::More | Piece::Done) {
                break;
            }
        }
    }
    Some((payload, state.trailers().to_vec(), state.is_done(), used))
}

proptest! {
    #[test]
    fn requests(bytes in changed(HEADS), more in vec(any::<u8>(), 0..20)) {
        let (outcome, mut fields) = read(&bytes);
        // Cut anywhere: the first verdict is the verdict.
        let first = (1..bytes.len()).map(|end| read(&bytes[..end]).0).find(|one| *one != Ok(None));
        if let Some(first) = first {
            prop_assert_eq!(first, outcome);
        }
        let Ok(Some(request)) = outcome else { return Ok(()) };
        prop_assert!(request.size <= bytes.len() && bytes[..request.size].ends_with(b"\r\n\r\n"));
        // What follows is another matter.
        prop_assert_eq!(read(&[&bytes[..request.size], &more[..]].concat()).0, outcome);
        // As it goes on: read as the same request, of the same length, and nothing behind it.
        let mut out = request.method_span.of(&bytes).to_vec();
        out.push(b' ');
        out.extend_from_slice(request.target.of(&bytes));
        out.extend_from_slice(b" HTTP/1.1\r\n");
        if fields.iter().all(|field| field.name != head::Name::Host) {
            out.extend_from_slice(b"Host: a\r\n");
        }
        forward::kept(&bytes, &fields, &mut out);
        forward::framing(request.length, &mut out);
        out.extend_from_slice(b"\r\n");
        let again = head::request(&out, &mut fields, Bounds { bytes: 8192, fields: 40 });
        let Ok(Some(again)) = again else { panic!("{again:?} of {}", out.escape_ascii()) };
        prop_assert_eq!(again.size, out.len());
        prop_assert_eq!((again.length, again.method), (request.length, request.method));
        prop_assert_eq!(again.path.of(&out), request.path.of(&bytes));
    }

    #[test]
    fn answers(bytes in changed(HEADS), to_head in any::<bool>()) {
        let read = |bytes: &[u8]| head::response(bytes, &mut Vec::new(), BOUNDS, to_head);
        let outcome = read(&bytes);
        let first = (1..bytes.len()).map(|end| read(&bytes[..end])).find(|one| *one != Ok(None));
        if let Some(first) = first {
            prop_assert_eq!(first, outcome);
        }
        if let Ok(Some(response)) = outcome {
            prop_assert!(bytes[..response.size].ends_with(b"\r\n\r\n"));
            prop_assert!((100..600).contains(&response.status));
        }
    }

    #[test]
    fn chunked_bodies(bytes in changed(BODIES), cuts in vec(1usize..9, 1..5)) {
        let whole = unchunk(&bytes, &[]);
        prop_assert_eq!(&whole, &unchunk(&bytes, &cuts));
        let Some((payload, trailers, true, used)) = whole else { return Ok(()) };
        // Written as it goes on, and read again.
        let mut out = Vec::new();
        let mut body = Body::new(Length::Chunked);
        let passed = body.pass(&bytes, true, &mut out).expect("it was good");
        prop_assert_eq!((passed.used, passed.payload, body.is_done()), (used, payload.len() as u64, true));
        prop_assert_eq!(unchunk(&out, &[]), Some((payload, trailers, true, out.len())));
    }

    /// A head of HTTP/2 becomes the text of one request of HTTP/1.1, or of none: what stands in a field stays in it.
    #[test]
    fn blocks(blocks in vec(changed(BLOCKS), 1..4), open in any::<bool>()) {
        let mut decoder = Decoder::default();
        for block in blocks {
            let mut text = Vec::new();
            let mut count = 0;
            let mut shadow = Vec::new();
            let Ok(reading) = h2head::read(&mut decoder, &block, Kind::Request, open, 4096, &mut text) else { return Ok(()) };
            let Reading::Good { length, .. } = reading else { continue };
            prop_assert!(text.len() <= LONGEST);
            let outcome = head::request(&text, &mut shadow, Bounds { bytes: LONGEST, fields: 100 });
            if let Ok(Some(request)) = outcome {
                count += 1;
                prop_assert_eq!(request.size, text.len(), "{}", text.escape_ascii());
                let expected = match (length, open) {
                    (Some(0), _) | (None, false) => Length::None,
                    (Some(bytes), _) => Length::Bytes(bytes),
                    (None, true) if request.method == head::Method::Connect || request.persistence.upgrade => Length::None,
                    (None, true) => Length::Chunked,
                };
                prop_assert_eq!(request.length, expected);
            }
            prop_assert!(outcome != Ok(None) && count <= 1, "{}", text.escape_ascii());
        }
    }

    /// What is written is read as the same, whatever was read before.
    #[test]
    fn fields_pass_compression(fields in vec(("[a-z][a-z0-9-]{0,30}", "[!-~]{0,300}"), 0..10), before in vec(changed(BLOCKS), 0..3)) {
        let mut decoder = Decoder::default();
        for block in before {
            if decoder.read(&block, |_, _| {}).is_err() {
                return Ok(());
            }
        }
        let mut block = Vec::new();
        fields.iter().for_each(|(name, value)| hpack::put(name.as_bytes(), value.as_bytes(), &mut block));
        let mut found = Vec::new();
        let show = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("ASCII");
        decoder.read(&block, |name, value| found.push((show(name), show(value)))).expect("good");
        prop_assert_eq!(found, fields);
    }
}
