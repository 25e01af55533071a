//! What passes between HTTP/1.1 and HTTP/2, and through a stream: trailers both ways, CONNECT, WebSocket (RFC 8441).

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::thread;

use crate::harness::{Client, Does, Upstream, World, eventually, ok, simple_spec};
use crate::wire::*;

fn http2(spec: &str) -> String {
    spec.replace("- name: app\n  endpoints", "- name: app\n  http2: true\n  endpoints")
}

/// Trailers of requests, and of answers, over every pair of versions.
#[test]
fn trailers_pass_whatever_is_spoken() {
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 9\r\n\r\n";
    let upstream = Upstream::start(|_| Does::Says(answer.to_owned()));
    let inner = World::simple(&[upstream.address]);
    let outer = World::with(&http2(&simple_spec(&[inner.address()], "")));
    let chunked = "POST /t HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut count = 0;
    for world in [&inner, &outer] {
        // HTTP/1.1, at once and in pieces.
        for pieces in
            [&["3\r\nabc\r\n0\r\nX-Check: 1\r\n\r\n"][..], &["3\r\nab", "c\r\n0\r\nX-Ch", "eck: 1\r\n\r", "\n"]]
        {
            let mut client = world.client();
            client.send(chunked);
            for piece in pieces {
                thread::sleep(std::time::Duration::from_millis(if pieces.len() > 1 { 20 } else { 0 }));
                client.send(piece);
            }
            assert_eq!(client.answer().field("x-sum"), Some("9"));
            count += 1;
        }
        // HTTP/2.
        let mut wire = Wire::connect(world.address(), &[]);
        let trailers = frame(HEADERS, WHOLE | END, 1, &block(&[("x-check", "1"), ("host", "evil")]));
        wire.send(&[post(1), frame(DATA, 0, 1, b"abc"), trailers].concat());
        let (head, body, trailers) = wire.answer(1);
        assert!(head.starts_with(":status: 200") && body == b"ok" && trailers == "x-sum: 9\n", "{head} {trailers}");
        count += 1;
        // Of a body without a byte.
        wire.send(&[post(3), frame(HEADERS, WHOLE | END, 3, &block(&[("x-check", "1")]))].concat());
        assert!(wire.answer(3).0.starts_with(":status: 200"));
        count += 1;
    }
    eventually("all requests", || upstream.count() == count);
    for seen in upstream.seen.lock().unwrap().iter() {
        // The harness appends trailers to the head, without ends of lines.
        assert!(seen.head.to_ascii_lowercase().ends_with("x-check: 1"), "{seen:?}");
        assert!(!seen.head.contains("evil"));
    }
}

/// A server of bytes: what it gets comes back; it ends when the other side has.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok(length @ 1..) = stream.read(&mut bytes) {
                    if stream.write_all(&bytes[..length]).is_err() {
                        return;
                    }
                }
                let _ = stream.write_all(b"bye");
                let _ = stream.shutdown(Shutdown::Write);
            });
        }
    });
    address
}

fn connecting(address: SocketAddr) -> World {
    World::with(&format!(
        "listeners:\n- {{name: http, address: \"127.0.0.1:0\"}}\nroutes:\n- name: tunnel\n  hosts: [db.test, \"one.test:5432\"]\n  connect: true\n  backends: [{{name: db}}]\n- name: nobody\n  hosts: [gone.test]\n  connect: true\n  backends: [{{name: gone}}]\n- name: fixed\n  filters: [{{respond: {{status: 200, body: fixed}}}}]\nbackends:\n- {{name: db, endpoints: [\"{address}\"]}}\n- {{name: gone, endpoints: [\"127.0.0.1:1\"]}}\n"
    ))
}

/// RFC 9110 §9.3.6.
#[test]
fn connect_becomes_a_tunnel_where_a_route_says_so() {
    let world = connecting(echo());
    let mut client = world.client();
    // What comes behind the head is the tunnel's.
    client.send("CONNECT db.test:5432 HTTP/1.1\r\nHost: db.test:5432\r\n\r\nearly");
    let answer = client.try_answer("HEAD").unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.field("content-length").is_none() && answer.field("transfer-encoding").is_none(), "{answer:?}");
    let read = |client: &mut Client, length: usize| {
        let mut bytes = vec![0; length];
        client.stream.read_exact(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    };
    assert_eq!(read(&mut client, 5), "early");
    client.send("GET / HTTP/1.1\r\n\r\n");
    assert_eq!(read(&mut client, 18), "GET / HTTP/1.1\r\n\r\n");
    // One direction ends, the other goes on.
    client.stream.get_ref().shutdown(Shutdown::Write).unwrap();
    let mut rest = String::new();
    client.stream.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "bye");

    // A host with a port is for this port alone.
    let mut client = world.client();
    client.send("CONNECT one.test:5432 HTTP/1.1\r\nHost: one.test:5432\r\n\r\n");
    assert_eq!(client.try_answer("HEAD").unwrap().status(), 200);
    drop(client);

    for (line, status) in [
        ("CONNECT one.test:5433 HTTP/1.1\r\nHost: one.test:5433", 405),
        ("CONNECT other.test:1 HTTP/1.1\r\nHost: other.test:1", 405),
        ("CONNECT db.test HTTP/1.1\r\nHost: db.test", 400),
        ("CONNECT gone.test:1 HTTP/1.1\r\nHost: gone.test:1", 502),
        ("GET / HTTP/1.1\r\nHost: db.test", 200),
    ] {
        let mut client = world.client();
        // Whatever is sent in good faith behind a CONNECT that fails is no request.
        client.send(format!("{line}\r\n\r\nGET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!(client.answer().status(), status, "{line}");
        if status != 200 {
            assert!(client.is_closed(), "{line}");
        }
    }
    eventually("the end of all", || world.metric("outrigger_proxy_requests_active{route=\"tunnel\"}") == 0);
}

/// RFC 9113 §8.5.
#[test]
fn connect_over_a_stream() {
    let world = connecting(echo());
    let mut wire = Wire::connect(world.address(), &[]);
    let connect =
        |stream: u32, to: &str| frame(HEADERS, WHOLE, stream, &block(&[(":method", "CONNECT"), (":authority", to)]));
    // Two tunnels and a request at once; one is filled before it stands.
    wire.send(&[connect(1, "db.test:1"), frame(DATA, 0, 1, b"one"), connect(3, "db.test:2"), get(5)].concat());
    let mut seen = Vec::new();
    while seen.len() < 4 {
        match wire.next() {
            Came::Head(stream, text, end) => {
                assert!(text.starts_with(":status: 200") && (!end || stream == 5), "{text}");
                seen.push(stream);
            }
            Came::Data(1, bytes, false) => {
                assert_eq!(bytes, b"one");
                seen.push(0);
            }
            Came::Reset(..) | Came::Goaway(_) | Came::Closed => panic!("{seen:?}"),
            _ => {}
        }
    }
    wire.send(&frame(DATA, 0, 3, b"two"));
    assert_eq!(wire.until("the echo", |came| matches!(came, Came::Data(3, ..))), Came::Data(3, b"two".to_vec(), false));
    wire.send(&frame(DATA, END, 1, b""));
    assert_eq!(wire.until("bye", |came| matches!(came, Came::Data(1, ..))), Came::Data(1, b"bye".to_vec(), false));
    assert_eq!(wire.until("the end", |came| matches!(came, Came::Data(1, ..))), Came::Data(1, vec![], true));
    // More than the windows hold passes, too.
    let piece = vec![b'x'; 16_384];
    let mut back = 0;
    for _ in 0..20 {
        wire.send(&frame(DATA, 0, 3, &piece));
        while let Came::Data(3, bytes, _) = wire.until("data", |came| matches!(came, Came::Data(3, ..))) {
            back += bytes.len();
            let more = (bytes.len() as u32).to_be_bytes();
            wire.send(&[frame(WINDOW, 0, 3, &more), frame(WINDOW, 0, 0, &more)].concat());
            if back % piece.len() == 0 {
                break;
            }
        }
    }
    assert_eq!(back, 20 * piece.len());
    wire.send(&frame(RST, 0, 3, &[0, 0, 0, 8]));
    wire.send(&connect(7, "gone.test:9"));
    assert!(wire.answer(7).0.starts_with(":status: 502"));
    eventually("the end of all", || world.metric("outrigger_proxy_requests_active{route=\"tunnel\"}") == 0);
}

/// The client's side of a frame (RFC 6455 §5.2): masked.
fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x80 | opcode, 0x80 | payload.len() as u8, 1, 2, 3, 4];
    out.extend(payload.iter().enumerate().map(|(n, byte)| byte ^ (n % 4 + 1) as u8));
    out
}

const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\nSec-WebSocket-Protocol: chat\r\n\r\n";

/// RFC 8441.
#[test]
fn websocket_over_a_stream() {
    let upstream = Upstream::start(|seen| match seen.field("upgrade") {
        Some("websocket") if seen.line().starts_with("GET /chat?x=1 ") => Does::Echoes(format!("{SWITCH}first")),
        Some(_) => ok("no"),
        None => ok("plain"),
    });
    let world = World::simple(&[upstream.address]);
    let mut wire = Wire::connect(world.address(), &[]);
    let Came::Settings(own) = wire.next() else { panic!("no settings") };
    assert!(own.chunks(6).any(|one| one == [0, 8, 0, 0, 0, 1]), "the offer (§3): {own:?}");
    let extended = |stream: u32, path: &str, protocol: &str| {
        let fields = [
            (":method", "CONNECT"),
            (":protocol", protocol),
            (":scheme", "http"),
            (":path", path),
            (":authority", "h"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-protocol", "chat"),
            ("origin", "http://h"),
        ];
        frame(HEADERS, WHOLE, stream, &block(&fields))
    };
    wire.send(&[extended(1, "/chat?x=1", "websocket"), frame(DATA, 0, 1, &masked(1, b"hi"))].concat());
    let head = wire.until("the answer", |came| matches!(came, Came::Head(1, ..)));
    let Came::Head(_, text, false) = &head else { panic!("{head:?}") };
    assert!(text.starts_with(":status: 200\n") && text.contains("sec-websocket-protocol: chat"), "{text}");
    assert!(!text.contains("accept") && !text.contains("upgrade"), "§5: {text}");
    let mut came = Vec::new();
    let expected = [&b"first"[..], &masked(1, b"hi")].concat();
    while came.len() < expected.len() {
        if let Came::Data(1, bytes, _) = wire.until("bytes", |came| matches!(came, Came::Data(1, ..))) {
            came.extend(bytes);
        }
    }
    assert_eq!(came, expected);
    let seen = upstream.last();
    let key = seen.field("sec-websocket-key").unwrap();
    assert!(key.len() == 24 && key.ends_with("=="), "{key}");
    assert_eq!((seen.field("connection"), seen.field("sec-websocket-version")), (Some("Upgrade"), Some("13")));
    assert_eq!((seen.field("transfer-encoding"), seen.field("host")), (None, Some("h")));
    // END_STREAM is FIN (§5); the application then ends, too.
    wire.send(&frame(DATA, END, 1, &masked(8, b"\x03\xe8")));
    let mut over = false;
    while !over {
        match wire.until("the end", |came| matches!(came, Came::Data(1, ..) | Came::Reset(1, _))) {
            Came::Data(_, _, end) => over = end,
            other => panic!("{other:?}"),
        }
    }
    // An application that does not switch: its answer must not look like a tunnel's.
    wire.send(&extended(3, "/other", "websocket"));
    assert!(wire.until("an answer", |came| matches!(came, Came::Head(3, ..))).status() == Some(502));
    wire.send(&extended(5, "/chat", "connect-udp"));
    assert!(wire.until("an answer", |came| matches!(came, Came::Head(5, ..))).status() == Some(501));
    wire.send(&get(7));
    assert_eq!(wire.answer(7).1, b"plain");
    eventually("the end of all", || world.metric("outrigger_proxy_requests_active{route=\"all\"}") == 0);

    // Not offered, not taken.
    let off = World::with(&simple_spec(&[upstream.address], "webSocket: false\n"));
    let mut wire = Wire::connect(off.address(), &[]);
    let Came::Settings(own) = wire.next() else { panic!("no settings") };
    assert!(!own.chunks(6).any(|one| one[1] == 8));
    wire.send(&extended(1, "/chat?x=1", "websocket"));
    assert!(wire.until("an answer", |came| matches!(came, Came::Head(1, ..))).status() == Some(501));
}

/// RFC 6455 §4: which handshakes pass, and how; whatever comes behind is nobody's business here (§5): it passes byte by byte.
#[test]
fn websocket_handshakes() {
    let upstream = Upstream::start(|seen| match seen.field("upgrade") {
        Some(_) => Does::Echoes(SWITCH.to_owned()),
        None => ok("plain"),
    });
    let world = World::simple(&[upstream.address]);
    let fields = "Host: a\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Extensions: permessage-deflate\r\n";
    for (section, line, upgrade, status) in [
        ("4.1", "GET /chat HTTP/1.1", "Upgrade: websocket\r\nConnection: Upgrade\r\n", 101),
        ("4.2.1: names without regard to case", "GET / HTTP/1.1", "UPGRADE: WebSocket\r\nCONNECTION: uPGRADE\r\n", 101),
        (
            "4.2.1: one option of many",
            "GET / HTTP/1.1",
            "Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n",
            101,
        ),
        (
            "4.2.1: two fields",
            "GET / HTTP/1.1",
            "Upgrade: websocket\r\nConnection: keep-alive\r\nConnection: Upgrade\r\n",
            101,
        ),
        ("4.2.1: no Connection", "GET / HTTP/1.1", "Upgrade: websocket\r\n", 200),
        ("4.2.1: no Upgrade", "GET / HTTP/1.1", "Connection: Upgrade\r\n", 200),
        ("4.2.1: HTTP/1.0", "GET / HTTP/1.0", "Upgrade: websocket\r\nConnection: Upgrade\r\n", 200),
        ("9110 7.8: another protocol", "GET / HTTP/1.1", "Upgrade: h2c\r\nConnection: Upgrade\r\n", 200),
        ("9110 7.8: more than one", "GET / HTTP/1.1", "Upgrade: websocket, h2c\r\nConnection: Upgrade\r\n", 200),
    ] {
        let mut client = world.client();
        client.send(format!("{line}\r\n{fields}{upgrade}\r\n"));
        let answer = client.answer();
        assert_eq!(answer.status(), status, "RFC 6455 {section}");
        let seen = upstream.last();
        assert_eq!(seen.field("upgrade").is_some(), status == 101, "RFC 6455 {section}");
        if status != 101 {
            continue;
        }
        // §1.3, §4.2.2, §9.1: the key, its answer, protocols and extensions are between the two ends.
        assert_eq!(seen.field("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
        assert_eq!(seen.field("sec-websocket-extensions"), Some("permessage-deflate"));
        assert_eq!(
            (answer.field("sec-websocket-accept"), answer.field("sec-websocket-protocol")),
            (Some("x"), Some("chat"))
        );
        assert!(answer.field("upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket")));
        // §5: good frames, and such as only an endpoint may refuse: reserved bits, unmasked, unknown opcodes, a long ping.
        let mut all: Vec<u8> =
            [masked(1, b"text"), masked(9, b"ping"), vec![0xf3, 0x00], vec![0x89, 0x7e, 0xff, 0xff]].concat();
        all.extend((0..70_000u32).map(|n| n as u8));
        for piece in all.chunks(13_001) {
            client.send(piece);
        }
        let mut back = vec![0; all.len()];
        client.stream.read_exact(&mut back).unwrap();
        assert!(back == all, "RFC 6455 {section}");
        // §7.1.1: either side may end first; the other's bytes still arrive.
        client.send(masked(8, b"\x03\xe8"));
        client.stream.get_ref().shutdown(Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        client.stream.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, masked(8, b"\x03\xe8"));
    }
    // §4.2.2: what is refused goes back as it is.
    let upstream = Upstream::start(|_| {
        Does::Says(
            "HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13\r\nContent-Length: 2\r\n\r\nno".to_owned(),
        )
    });
    let world = World::simple(&[upstream.address]);
    let mut client = world.client();
    client.send(format!("GET / HTTP/1.1\r\n{fields}Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n"));
    let answer = client.answer();
    assert_eq!((answer.status(), answer.field("sec-websocket-version")), (426, Some("13")));
    assert_eq!(client.get("/").status(), 426, "the connection goes on");
    // A switch nobody has asked for is none.
    let upstream = Upstream::start(|_| Does::Says(SWITCH.to_owned()));
    let world = World::simple(&[upstream.address]);
    assert_eq!(world.client().get("/").status(), 502);
}
