//! WebSocket to backends that speak HTTP/2 (RFC 8441), from clients of both versions.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::harness::{Client, Does, PATIENCE, Upstream, World, eventually, ok, simple_spec};
use crate::tls::Authority;
use crate::windows::{Backend, Side};
use crate::wire::*;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// Of the key (RFC 6455 §1.3).
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\nSec-WebSocket-Protocol: chat\r\n\r\n";
/// SETTINGS_ENABLE_CONNECT_PROTOCOL.
const TAKES: (u16, u32) = (8, 1);
/// Each worker has connections of its own.
const ONE: &str = "workers: 1\n";

fn upgrade(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Protocol: chat\r\nOrigin: http://a\r\n\r\n"
    )
}

fn extended(stream: u32, path: &str) -> Vec<u8> {
    let fields = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "a"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "chat"),
    ];
    frame(HEADERS, WHOLE, stream, &block(&fields))
}

fn read(client: &mut Client, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    client.stream.read_exact(&mut bytes).unwrap();
    bytes
}

fn switched(client: &mut Client) {
    let answer = client.answer();
    assert_eq!(answer.status(), 101, "{answer:?}");
    assert_eq!((answer.field("connection"), answer.field("upgrade")), (Some("Upgrade"), Some("websocket")));
    assert_eq!(answer.field("sec-websocket-accept"), Some(ACCEPT));
    assert!(answer.field("content-length").is_none() && answer.field("transfer-encoding").is_none(), "{answer:?}");
}

/// Settings, and then everything until the next request's head, as lines.
fn asked(side: &mut Side, own: &[(u16, u32)]) -> (u32, String) {
    side.send(&settings(own));
    match side.until("a request", |came| matches!(came, Came::Head(..))) {
        Came::Head(stream, text, false) => (stream, text),
        other => panic!("{other:?}"),
    }
}

fn quiet(world: &World) {
    eventually("the end of all", || world.metric("outrigger_proxy_requests_active{route=\"all\"}") == 0);
}

/// An outer proxy before an inner one, which says that it takes tunnels; the application behind them does not know.
#[test]
fn through_a_backend_that_takes_them() {
    let upstream = Upstream::start(|seen| match seen.field("upgrade") {
        Some("websocket") if seen.line().starts_with("GET /chat?x=1 ") => Does::Echoes(format!("{SWITCH}first")),
        Some(_) => ok("no"),
        None => ok("plain"),
    });
    let inner = World::simple(&[upstream.address]);
    let outer = World::with(&simple_spec(&[inner.address()], &format!("  http2: true\n{ONE}")));
    // The first bytes come with the head; more of them than any window holds; one direction ends, then the other.
    let all: Vec<u8> = (0..1_000_000u32).map(|n| (n * 7 / 3) as u8).collect();
    for _ in 0..2 {
        let mut client = outer.client();
        client.send(format!("{}early", upgrade("/chat?x=1")));
        switched(&mut client);
        assert_eq!(read(&mut client, 10), b"firstearly");
        let mut writer = client.stream.get_ref().try_clone().unwrap();
        let sent = all.clone();
        let writing = thread::spawn(move || {
            sent.chunks(70_001).for_each(|piece| writer.write_all(piece).unwrap());
            writer.shutdown(Shutdown::Write).unwrap();
        });
        assert!(read(&mut client, all.len()) == all);
        let mut rest = Vec::new();
        client.stream.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"");
        writing.join().unwrap();
    }
    let seen = upstream.last();
    let key = seen.field("sec-websocket-key").unwrap();
    assert!(key.len() == 24 && key != KEY, "over a stream there is none, so it is the inner proxy's: {key}");
    assert_eq!((seen.field("sec-websocket-version"), seen.field("origin")), (Some("13"), Some("http://a")));
    assert_eq!((seen.field("transfer-encoding"), seen.field("host")), (None, Some("a")));

    // The same from a client of HTTP/2; what was sent before the tunnel stood is in it.
    let mut wire = Wire::connect(outer.address(), &[]);
    wire.send(&[extended(1, "/chat?x=1"), frame(DATA, 0, 1, b"early"), extended(3, "/other")].concat());
    let head = wire.until("the answer", |came| matches!(came, Came::Head(1, ..)));
    let Came::Head(_, text, false) = &head else { panic!("{head:?}") };
    assert!(text.starts_with(":status: 200\n") && text.contains("sec-websocket-protocol: chat"), "{text}");
    let mut came = Vec::new();
    while came.len() < 10 {
        if let Came::Data(1, bytes, _) = wire.until("bytes", |came| matches!(came, Came::Data(1, ..))) {
            came.extend(bytes);
        }
    }
    assert_eq!(came, b"firstearly");
    wire.send(&frame(DATA, END, 1, b"last"));
    let mut came = Vec::new();
    loop {
        match wire.until("the end", |came| matches!(came, Came::Data(1, ..) | Came::Reset(1, _))) {
            Came::Data(_, bytes, end) => {
                came.extend(bytes);
                if end {
                    break;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(came, b"last");
    // The inner one says that the application has not switched.
    wire.send(&extended(5, "/other"));
    assert_eq!(wire.until("an answer", |came| matches!(came, Came::Head(5, ..))).status(), Some(502));
    // And the same to a client of HTTP/1.1, whose connection goes on.
    let mut client = outer.client();
    client.send(upgrade("/other"));
    assert_eq!(client.answer().status(), 502);
    assert_eq!(client.get("/").body, "plain");
    // All of it over one connection.
    assert_eq!(inner.metric("outrigger_proxy_connections_total"), 1);
    quiet(&outer);
    quiet(&inner);
}

#[test]
fn what_the_backend_sees_and_how_it_ends() {
    let backend = Backend::new();
    let world = backend.world(&format!("{ONE}accessLog: {{path: ROOT/log, names: short}}\n"));
    let mut client = world.client();
    client.send(upgrade("/chat?x=1"));
    let mut side = backend.accept_silently();
    let (stream, head) = asked(&mut side, &[TAKES]);
    for line in [":method: CONNECT", ":protocol: websocket", ":scheme: http", ":path: /chat?x=1", ":authority: a"] {
        assert!(head.lines().any(|one| one == line), "{line}: {head}");
    }
    assert!(head.contains("sec-websocket-version: 13\n") && head.contains("origin: http://a\n"), "{head}");
    assert!(!head.contains("sec-websocket-key") && !head.contains("upgrade"), "{head}");
    assert!(head.find("origin").unwrap() > head.find(":protocol").unwrap(), "{head}");
    // What a length says of a tunnel is not heeded (RFC 9110 §9.3.6).
    side.answer(stream, &[("content-length", "3"), ("sec-websocket-protocol", "chat")]);
    switched(&mut client);
    client.send("hello");
    assert_eq!(
        side.until("bytes", |came| matches!(came, Came::Data(..))),
        Came::Data(stream, b"hello".to_vec(), false)
    );
    side.data(stream, 20_000, true);
    assert_eq!(read(&mut client, 20_000), vec![b'x'; 20_000]);
    // The backend's direction has ended, the client's goes on.
    assert_eq!(client.stream.read(&mut [0]).unwrap(), 0);
    client.send("more");
    assert_eq!(side.until("bytes", |came| matches!(came, Came::Data(..))), Came::Data(stream, b"more".to_vec(), false));
    client.stream.get_ref().shutdown(Shutdown::Write).unwrap();
    assert_eq!(side.until("the end", |came| matches!(came, Came::Data(..))), Came::Data(stream, vec![], true));
    quiet(&world);

    // A reset is to a tunnel what RST is to TCP (RFC 8441 §5), both ways.
    for by_client in [false, true] {
        let mut client = world.client();
        client.send(upgrade("/"));
        let stream = side.asked();
        side.answer(stream, &[]);
        switched(&mut client);
        if by_client {
            drop(client);
            let came = side.until("the end", |came| matches!(came, Came::Data(..) | Came::Reset(..)));
            assert!(matches!(came, Came::Data(_, _, true) | Came::Reset(_, 8)), "{came:?}");
            if matches!(came, Came::Data(..)) {
                side.data(stream, 1, true);
            }
        } else {
            side.send(&frame(RST, 0, stream, &8u32.to_be_bytes()));
            assert!(client.is_closed());
        }
        quiet(&world);
        let mut wire = Wire::connect(world.address(), &[]);
        wire.send(&extended(1, "/"));
        let stream = side.asked();
        side.answer(stream, &[]);
        wire.until("the tunnel", |came| came.status() == Some(200));
        if by_client {
            wire.send(&frame(RST, 0, 1, &8u32.to_be_bytes()));
            side.until("a reset", |came| *came == Came::Reset(stream, 8));
        } else {
            side.send(&frame(RST, 0, stream, &8u32.to_be_bytes()));
            wire.until("a reset", |came| *came == Came::Reset(1, 8));
        }
        quiet(&world);
    }
    // Both of them, and no other, as what they were.
    let log = || std::fs::read_to_string(world.path("log")).unwrap_or_default();
    eventually("the lines", || log().matches("\"error\":\"stream_reset\"").count() == 2);
    assert!(!log().contains("truncated"), "{}", log());
    // An answer that opens no tunnel is an answer.
    let mut client = world.client();
    client.send(upgrade("/"));
    let stream = side.asked();
    side.send(&frame(HEADERS, WHOLE, stream, &block(&[(":status", "403"), ("content-length", "2")])));
    side.data(stream, 2, true);
    let answer = client.answer();
    assert_eq!((answer.status(), answer.body.as_str()), (403, "xx"));
    // A handshake that cannot be answered is none (RFC 6455 §4.2.1), another method asks for none (§4.1).
    client.send(upgrade("/").replace(KEY, "short"));
    assert_eq!(client.answer().status(), 400);
    client.send(upgrade("/").replace("GET", "DELETE"));
    let Came::Head(stream, head, true) = side.until("a request", |came| matches!(came, Came::Head(..))) else {
        panic!("a stream goes on")
    };
    assert!(head.contains(":method: DELETE") && !head.contains("upgrade"), "{head}");
    side.answer(stream, &[("content-length", "0")]);
    assert_eq!(client.answer().status(), 200);
    quiet(&world);
}

/// Whether tunnels are taken is known when SETTINGS come (RFC 8441 §3); others need not wait for it.
#[test]
fn nobody_is_asked_before_it_is_known() {
    let backend = Backend::new();
    let world = backend.world(ONE);
    let mut one = world.client();
    one.send(format!("{}early", upgrade("/one")));
    let mut side = backend.accept_silently();
    let mut two = Wire::connect(world.address(), &[]);
    two.send(&extended(1, "/two"));
    let mut plain = world.client();
    plain.send("GET /plain HTTP/1.1\r\nHost: a\r\n\r\n");
    let came = side.until("a request", |came| matches!(came, Came::Head(..)));
    let Came::Head(stream, head, true) = came else { panic!("{came:?}") };
    assert!(head.contains(":path: /plain"), "{head}");
    // One gives up before.
    let mut three = Wire::connect(world.address(), &[]);
    three.send(&[extended(1, "/three"), frame(RST, 0, 1, &8u32.to_be_bytes())].concat());
    let (stream_of_first, first) = asked(&mut side, &[TAKES]);
    side.answer(stream_of_first, &[]);
    let second = match side.until("a request", |came| matches!(came, Came::Head(..))) {
        Came::Head(stream, head, _) => {
            side.answer(stream, &[]);
            head
        }
        other => panic!("{other:?}"),
    };
    assert!([&first, &second].iter().all(|head| head.contains(":protocol: websocket")), "{first}{second}");
    assert!([&first, &second].iter().any(|head| head.contains("/one")), "{first}{second}");
    assert!([&first, &second].iter().any(|head| head.contains("/two")), "{first}{second}");
    side.answer(stream, &[("content-length", "0")]);
    assert_eq!(plain.answer().status(), 200);
    drop((one, two, three, side));
    quiet(&world);

    // Who never says it, is not waited for for ever.
    let backend = Backend::new();
    let more = "  http2: true\n  connectTimeout: 500ms\nworkers: 1\n";
    let world = World::with(&simple_spec(&[backend.address()], more));
    let mut client = world.client();
    client.send(upgrade("/"));
    let mut silent: Vec<Side> = (0..3).map(|_| backend.accept_silently()).collect();
    let answer = client.answer();
    assert_eq!((answer.status(), answer.field("x-outrigger-failure")), (504, Some("connect_timeout")));
    silent.clear();
    quiet(&world);
}

/// What an application of HTTP/1.1 is told, answered and echoed.
fn serve_http1(mut stream: impl std::io::Read + std::io::Write) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if !matches!(stream.read(&mut byte), Ok(1)) {
            return;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("GET / HTTP/1.1\r\n") && head.contains("Upgrade: websocket\r\n"), "{head}");
    stream.write_all(SWITCH.replace("Accept: x", &format!("Accept: {ACCEPT}")).as_bytes()).unwrap();
    let mut bytes = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut bytes) {
        if stream.write_all(&bytes[..length]).is_err() {
            return;
        }
    }
}

#[test]
fn a_backend_that_takes_none_is_asked_in_http1_if_it_may_be() {
    // Without TLS nothing tells whether it speaks anything else.
    let backend = Backend::new();
    let world = backend.world(ONE);
    let mut client = world.client();
    client.send(upgrade("/"));
    let mut side = backend.accept_silently();
    side.send(&settings(&[(8, 0)]));
    let answer = client.answer();
    assert_eq!(answer.status(), 501);
    assert!(answer.body.contains("the backend takes no WebSocket over HTTP/2"), "{answer:?}");
    // It is known now.
    client.send(upgrade("/"));
    assert_eq!(client.answer().status(), 501);
    let mut wire = Wire::connect(world.address(), &[]);
    wire.send(&extended(1, "/"));
    assert_eq!(wire.until("an answer", |came| matches!(came, Came::Head(1, ..))).status(), Some(501));
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let stream = side.asked();
    side.answer(stream, &[("content-length", "0")]);
    assert_eq!(client.answer().status(), 200);
    quiet(&world);

    let backend = Backend::new();
    let world = World::with(&simple_spec(&[backend.address()], "  http2: true\n  http1: true\nworkers: 1\n"));
    let mut side = None;
    for _ in 0..2 {
        let mut client = world.client();
        client.send(upgrade("/"));
        let side = side.get_or_insert_with(|| {
            let mut side = backend.accept_silently();
            side.send(&settings(&[]));
            side
        });
        let bare = backend.accept_bare();
        let serving = thread::spawn(move || serve_http1(bare));
        switched(&mut client);
        client.send("over and over");
        assert_eq!(read(&mut client, 13), b"over and over");
        drop(client);
        serving.join().unwrap();
        side.sync();
    }
    let mut wire = Wire::connect(world.address(), &[]);
    wire.send(&[extended(1, "/"), frame(DATA, 0, 1, b"hi")].concat());
    let bare = backend.accept_bare();
    let serving = thread::spawn(move || serve_http1(bare));
    assert_eq!(wire.until("bytes", |came| matches!(came, Came::Data(1, ..))), Came::Data(1, b"hi".to_vec(), false));
    drop(wire);
    serving.join().unwrap();
    quiet(&world);
}

/// A TLS server with these protocols, the preferred first: HTTP/2 without tunnels, and HTTP/1.1.
fn tls_server(authority: &Authority, protocols: &[&str]) -> SocketAddr {
    let pair = authority.issue(&["app.test"], None);
    let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let chain = CertificateDer::pem_slice_iter(pair.0.as_bytes()).map(Result::unwrap).collect();
    let mut config =
        builder.with_single_cert(chain, PrivateKeyDer::from_pem_slice(pair.1.as_bytes()).unwrap()).unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let config = Arc::clone(&config);
            thread::spawn(move || serve_tls(socket, config));
        }
    });
    address
}

fn serve_tls(socket: TcpStream, config: Arc<ServerConfig>) {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), socket);
    while stream.conn.is_handshaking() {
        if stream.conn.complete_io(&mut stream.sock).is_err() {
            return;
        }
    }
    if stream.conn.alpn_protocol() != Some(b"h2") {
        return serve_http1(stream);
    }
    let mut preface = [0; PREFACE.len()];
    stream.read_exact(&mut preface).unwrap();
    let mut wire = Wire::over(Box::new(stream));
    wire.send(&settings(&[]));
    while wire.next() != Came::Closed {}
}

#[test]
fn over_tls_the_handshake_tells() {
    let authority = Authority::new();
    for (protocols, status) in [(&["h2", "http/1.1"][..], 101), (&["h2"], 501)] {
        let mut world = World::new();
        std::fs::write(world.path("ca.crt"), authority.pem()).unwrap();
        let tls = "  http2: true\n  tls: {serverName: app.test, caFile: ROOT/ca.crt}\n";
        world.start(&simple_spec(&[tls_server(&authority, protocols)], tls));
        for _ in 0..2 {
            let mut client = world.client();
            client.send(upgrade("/"));
            if status == 101 {
                switched(&mut client);
                client.send("hi");
                assert_eq!(read(&mut client, 2), b"hi");
            } else {
                assert_eq!(client.answer().status(), status);
            }
        }
        quiet(&world);
    }
}

#[test]
fn a_tunnel_may_be_silent_for_its_own_time() {
    let backend = Backend::new();
    let world = backend.world("workers: 1\ntimeouts: {body: 300ms, tunnel: 8s}\n");
    let mut client = world.client();
    client.send(upgrade("/"));
    let mut side = backend.accept_silently();
    let (stream, _) = asked(&mut side, &[TAKES]);
    side.answer(stream, &[]);
    switched(&mut client);
    thread::sleep(std::time::Duration::from_millis(900));
    side.data(stream, 5, false);
    assert_eq!(read(&mut client, 5), b"xxxxx");
    assert!(client.is_closed());
    side.until("a reset", |came| *came == Came::Reset(stream, 8));
    quiet(&world);
}
