//! What two programs could read differently reaches nobody: each of these is refused, and the upstream sees nothing of it.
//! `OUTRIGGER_PEER=host:port` sends the same to another proxy, to see what it makes of them.

use std::io::Read as _;
use std::time::Duration;

use crate::harness::{Client, Upstream, World, ok};

/// Bytes as a client sends them; a second request is hidden where a lax reader would find it.
const CORPUS: &[&str] = &[
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\nGPOST / HTTP/1.1\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x, chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nX: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nX: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhelloG",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 6\r\n\r\nhelloG",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 \x0b\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 184467440737095516165\r\n\r\nhello",
    "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    "GET / HTTP/1.1\r\nX: y\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX\0: y\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
    "GET / HTTP/1.1\r\n\tHost: a\r\n\r\n",
    "GET / HTTP/1.1\nHost: a\n\n",
    "GET /\r\n HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1 x\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.9\r\nHost: a\r\n\r\n",
    "GET /\r\n\r\n",
    "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
    "\0GET / HTTP/1.1\r\nHost: a\r\n\r\n",
];

/// As above, but the head is good: what is wrong comes in the body.
const BODIES: &[&str] = &[
    "5\nhello\r\n0\r\n\r\n",
    "5\r\nhello\n0\r\n\r\n",
    "5\r\nhelloX\r\n0\r\n\r\n",
    " 5\r\nhello\r\n0\r\n\r\n",
    "5 \r\nhello\r\n0\r\n\r\n",
    "0x5\r\nhello\r\n0\r\n\r\n",
    "-5\r\nhello\r\n0\r\n\r\n",
    "5;a\nb\r\nhello\r\n0\r\n\r\n",
    "ffffffffffffffff1\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello\r\n0\r\nX : y\r\n\r\n",
    "5\r\nhello\r\n0\r\nX: y\nZ: w\r\n\r\n",
];

#[test]
fn ambiguous_heads_are_refused() {
    let upstream = Upstream::start(|_| ok("seen"));
    let world = World::simple(&[upstream.address]);
    for text in CORPUS {
        let mut client = world.client();
        client.send(text);
        client.stream.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
        let answer = client.answer();
        assert!((400..600).contains(&answer.status()), "{text:?} was answered with {}", answer.head);
        assert_eq!(answer.field("connection"), Some("close"), "{text:?}");
        assert!(client.is_closed(), "{text:?}");
    }
    assert_eq!(upstream.count(), 0, "{:?}", upstream.seen.lock().unwrap());
}

#[test]
fn ambiguous_bodies_reach_nobody_whole() {
    let upstream = Upstream::start(|_| ok("seen"));
    let world = World::simple(&[upstream.address]);
    for text in BODIES {
        let mut client = world.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{text}GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"));
        let answer = client.answer();
        assert_eq!(answer.status(), 400, "{text:?}");
        assert!(client.is_closed(), "{text:?}");
    }
    assert_eq!(upstream.count(), 0, "{:?}", upstream.seen.lock().unwrap());
    // What is no attack goes on as before.
    assert_eq!(world.client().get("/").body, "seen");
}

#[test]
fn another_proxy_can_be_asked() {
    let Ok(peer) = std::env::var("OUTRIGGER_PEER") else { return };
    for text in CORPUS {
        let mut client = Client::connect(peer.parse().unwrap());
        client.stream.get_ref().set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        client.send(text);
        let mut answer = Vec::new();
        // A peer that waits for more is cut off by the timeout.
        let _ = client.stream.read_to_end(&mut answer);
        let text_of = String::from_utf8_lossy(&answer);
        println!("{:?}\n    {}", text, text_of.lines().next().unwrap_or("(nothing)"));
    }
}
