//! Floods of HTTP/2: each is cut off or held back, with little memory and little of the processor, and others do not notice.

use std::time::Duration;

use crate::harness::{Does, Upstream, World, eventually, ok, simple_spec};
use crate::wire::*;

const CALM: u32 = 11;

/// Sends until the connection is refused; how many bytes that took.
fn flood(
    world: &World,
    own: &[(u16, u32)],
    first: &[u8],
    mut piece: impl FnMut(u32) -> Vec<u8>,
    most: usize,
) -> (Came, usize) {
    let mut wire = Wire::connect(world.address(), own);
    wire.send(first);
    let mut sent = 0;
    for n in 0.. {
        let bytes = piece(n);
        sent += bytes.len();
        if !wire.send(&bytes) || sent > most {
            break;
        }
    }
    loop {
        if let came @ (Came::Goaway(1..) | Came::Closed) = wire.next() {
            return (came, sent);
        }
    }
}

fn many(n: u32, each: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    (n * 500..n * 500 + 500).flat_map(each).collect()
}

#[test]
fn floods_end_the_connection_and_nothing_else() {
    let upstream = Upstream::start(|_| ok("hello"));
    let world = World::simple(&[upstream.address]);
    // Memory that all keep anyway: some connections have been.
    for _ in 0..5 {
        let mut wire = Wire::connect(world.address(), &[]);
        wire.send(&get(1));
        assert_eq!(wire.answer(1).1, b"hello");
    }
    let before = world.memory();
    let mut others = Wire::connect(world.address(), &[]);
    let mut stream = 1;
    let reset = |id: u32| [get(id), frame(RST, 0, id, &[0, 0, 0, 8])].concat();
    // A stream that we are made to reset (CVE-2025-8671).
    let broken = |id: u32| [get(id), frame(WINDOW, 0, id, &[0; 4])].concat();
    let empty = post(1);
    let spent = world.processor_time();
    type Piece = Box<dyn Fn(u32) -> Vec<u8>>;
    let rows: Vec<(&str, Vec<u8>, Piece, u32)> = vec![
        ("rapid reset", vec![], Box::new(move |n| many(n, |n| reset(2 * n + 1))), CALM),
        ("streams we are made to reset", vec![], Box::new(move |n| many(n, |n| broken(2 * n + 1))), CALM),
        ("PING", vec![], Box::new(|n| many(n, |_| frame(PING, 0, 0, &[1; 8]))), CALM),
        ("SETTINGS", vec![], Box::new(|n| many(n, |_| settings(&[(4, 65_535)]))), CALM),
        (
            "SETTINGS that move all windows",
            empty.clone(),
            Box::new(|n| many(n, |n| settings(&[(4, n % 2), (4, 100)]))),
            CALM,
        ),
        ("PRIORITY", vec![], Box::new(|n| many(n, |n| frame(PRIORITY, 0, 2 * n + 1, &[0, 0, 0, 0, 9]))), CALM),
        (
            "a tree of priorities",
            vec![],
            Box::new(|n| {
                many(n, |n| frame(PRIORITY, 0, 2 * n + 3, &[&(2 * n + 1).to_be_bytes()[..], &[255]].concat()))
            }),
            CALM,
        ),
        ("WINDOW_UPDATE", empty.clone(), Box::new(|n| many(n, |n| frame(WINDOW, 0, n % 2, &[0, 0, 0, 1]))), CALM),
        ("empty DATA", empty.clone(), Box::new(|n| many(n, |_| frame(DATA, 0, 1, &[]))), CALM),
        ("DATA of padding", empty, Box::new(|n| many(n, |_| frame(DATA, PADDED, 1, &[1, 0]))), CALM),
        (
            "CONTINUATION",
            frame(HEADERS, END, 1, &request("GET", "/", &[])),
            Box::new(|n| many(n, |_| frame(CONTINUATION, 0, 1, &[]))),
            CALM,
        ),
        (
            "CONTINUATION with fields",
            frame(HEADERS, END, 1, &request("GET", "/", &[])),
            Box::new(|n| many(n, |_| frame(CONTINUATION, 0, 1, &block(&[("x", "y")])))),
            CALM,
        ),
        ("frames nobody knows", vec![], Box::new(|n| many(n, |_| frame(0xee, 0, 0, &[0; 100]))), CALM),
        ("RST_STREAM of what is over", reset(1), Box::new(|n| many(n, |_| frame(RST, 0, 1, &[0; 4]))), CALM),
    ];
    for (name, first, piece, code) in rows {
        let (came, sent) = flood(&world, &[], &first, piece, 32 << 20);
        // The end may arrive before what says why: the client was still sending.
        assert!(came == Came::Goaway(code) || came == Came::Closed, "{name}: {came:?}");
        assert!(sent < 16 << 20, "{name}: {sent} bytes were taken");
        others.send(&get(stream));
        assert_eq!(others.answer(stream).1, b"hello", "{name}");
        stream += 2;
    }
    // All of them together: no more than a second or two of a slow machine.
    let spent = world.processor_time() - spent;
    assert!(spent < Duration::from_secs(20), "{spent:?}");
    let after = world.memory();
    assert!(after < before + (4 << 20), "{before} bytes before, {after} after");
}

/// A head that is small on the wire and large when read: refused without being written out.
#[test]
fn bombs_of_compressed_heads() {
    let upstream = Upstream::start(|_| ok("hello"));
    let world = World::simple(&[upstream.address]);
    let mut wire = Wire::connect(world.address(), &[]);
    let kept = [&[0x40, 1, b'x', 0x7f, 0xa1, 0x1e][..], &[b'y'; 4000]].concat();
    let first = [&request("GET", "/", &[])[..], &kept].concat();
    wire.send(&frame(HEADERS, WHOLE | END, 1, &first));
    assert_eq!(wire.answer(1).1, b"hello");
    let before = world.memory();
    let spent = world.processor_time();
    // A byte each for 4 KiB: 64 MiB a block.
    let bomb = [&request("GET", "/", &[])[..], &vec![0xbe; 16_000][..]].concat();
    for n in 1..200 {
        wire.send(&frame(HEADERS, WHOLE | END, 2 * n + 1, &bomb));
        assert!(wire.answer(2 * n + 1).0.starts_with(":status: 431"));
    }
    let spent = world.processor_time() - spent;
    assert!(spent < Duration::from_secs(15), "{spent:?}");
    assert!(world.memory() < before + (4 << 20));
    assert_eq!(upstream.count(), 1);
}

/// Clients that ask for much and take nothing: what waits for them is bounded, and they are let go in time.
#[test]
fn windows_that_never_open() {
    let upstream = Upstream::start(|_| ok(&"x".repeat(4 << 20)));
    let world = World::with(&simple_spec(&[upstream.address], "timeouts: {body: 3s}\n"));
    let before = world.memory();
    let mut wires: Vec<Wire> = (0..4).map(|_| Wire::connect(world.address(), &[(4, 0)])).collect();
    for wire in &mut wires {
        let gets: Vec<u8> = (0..50).flat_map(|n| get(2 * n + 1)).collect();
        wire.send(&gets);
    }
    eventually("all requests", || upstream.count() == 200);
    // The kernel's buffers are the kernel's.
    let waiting = world.memory().saturating_sub(before);
    assert!(waiting < 200 * (40 << 10), "{waiting} bytes for 200 streams");
    // Updates by a byte must not cost a copy of everything that waits.
    let spent = world.processor_time();
    for n in 0..2000u32 {
        wires[0].send(&frame(WINDOW, 0, 2 * (n % 50) + 1, &[0, 0, 0, 1]));
    }
    wires[0].send(&frame(PING, 0, 0, &[1; 8]));
    wires[0].until("the answer", |came| matches!(came, Came::Pong(_)));
    let spent = world.processor_time() - spent;
    assert!(spent < Duration::from_secs(8), "{spent:?}");
    for wire in &mut wires[1..] {
        let over = wire.until("a reset", |came| matches!(came, Came::Reset(..)));
        assert!(matches!(over, Came::Reset(_, 8)), "{over:?}");
    }
    eventually("the end of all", || world.metric("outrigger_proxy_requests_active{route=\"all\"}") == 0);
}

/// A body that does not come, in a stream: 408, and the connection goes on.
#[test]
fn bodies_that_never_come() {
    let upstream = Upstream::start(|_| ok("hello"));
    let world = World::with(&simple_spec(&[upstream.address], "timeouts: {body: 1s}\n"));
    let mut wire = Wire::connect(world.address(), &[]);
    wire.send(&[post(1), frame(DATA, 0, 1, b"slow")].concat());
    assert!(wire.answer(1).0.starts_with(":status: 408"));
    wire.send(&get(3));
    assert_eq!(wire.answer(3).1, b"hello");
    // A call of gRPC may rest.
    let call = [("te", "trailers"), ("content-type", "application/grpc")];
    wire.send(&frame(HEADERS, WHOLE, 5, &request("POST", "/", &call)));
    std::thread::sleep(Duration::from_millis(1500));
    wire.send(&frame(DATA, END, 5, b""));
    assert_eq!(wire.answer(5).1, b"hello");
}

/// A client that asks and does not read at all: answers nobody takes are not made without end.
#[test]
fn answers_nobody_reads() {
    let upstream =
        Upstream::start(
            |seen| if seen.line().contains("/wait") { Does::Waits(Duration::from_secs(1)) } else { ok("x") },
        );
    let world = World::simple(&[upstream.address]);
    let before = world.memory();
    let mut wire = Wire::connect(world.address(), &[]);
    let pings: Vec<u8> = (0..1000).flat_map(|_| frame(PING, 0, 0, &[1; 8])).collect();
    let mut sent = 0;
    while sent < 64 << 20 && wire.send(&pings) {
        sent += pings.len();
    }
    assert!(sent < 64 << 20, "the connection ends");
    assert!(world.memory() < before + (2 << 20));
    let mut other = Wire::connect(world.address(), &[]);
    other.send(&get(1));
    assert_eq!(other.answer(1).1, b"x");
}
