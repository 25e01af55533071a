//! HTTP/1.1 through the proxy: bodies, persistence, what is passed on and what is not.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use crate::harness::{Client, Does, Upstream, World, eventually, ok, simple_spec};

#[test]
fn requests_go_through_and_connections_are_used_again() {
    let upstream = Upstream::start(|_| ok("hello"));
    let world = World::simple(&[upstream.address]);
    let mut client = world.client();
    for n in 0..20 {
        let answer = client.get(&format!("/x?n={n}"));
        assert_eq!((answer.status(), answer.body.as_str()), (200, "hello"));
        assert_eq!(upstream.last().line(), format!("GET /x?n={n} HTTP/1.1"));
    }
    assert_eq!(upstream.connections.load(std::sync::atomic::Ordering::Relaxed), 1);
    let seen = upstream.last();
    assert_eq!(seen.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.field("x-forwarded-proto"), Some("http"));
    assert_eq!((seen.field("host"), seen.field("connection")), (Some("test"), None));
    // The last answer is counted when it has been written.
    eventually("the count", || world.metric("outrigger_proxy_requests_total{route=\"all\",status=\"2xx\"}") == 20);
    let trace = world.ask("/trace");
    assert!(trace.contains("GET test/x route=all"), "{trace}");
}

#[test]
fn heads_and_bodies_come_in_any_pieces() {
    let upstream = Upstream::start(|seen| ok(&String::from_utf8_lossy(&seen.body)));
    let world = World::simple(&[upstream.address]);
    let whole = "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloPOST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX-Sum: 9\r\n\r\nGET /last HTTP/1.1\r\nHost: a\r\n\r\n";
    for step in [1, 3, 17, 1000] {
        let mut client = world.client();
        for piece in whole.as_bytes().chunks(step) {
            client.send(piece);
            if step < 17 {
                std::thread::sleep(Duration::from_micros(300));
            }
        }
        let bodies: Vec<String> = (0..3).map(|_| client.answer().body).collect();
        assert_eq!(bodies, ["hello", "abcde", ""], "by {step}");
        let seen = upstream.seen.lock().unwrap();
        let chunked = &seen[seen.len() - 2];
        assert_eq!((chunked.body.as_slice(), chunked.field("transfer-encoding")), (&b"abcde"[..], Some("chunked")));
        assert!(chunked.head.contains("X-Sum: 9"), "{}", chunked.head);
    }
}

#[test]
fn large_bodies_both_ways() {
    let upstream = Upstream::start(|seen| {
        let sum: u64 = seen.body.iter().map(|byte| u64::from(*byte)).sum();
        ok(&format!("{sum} {}", "x".repeat(seen.body.len())))
    });
    let world = World::simple(&[upstream.address]);
    let size = 3_000_000;
    let body: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
    let sum: u64 = body.iter().map(|byte| u64::from(*byte)).sum();
    let mut client = world.client();
    client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n")).send(&body);
    let answer = client.answer();
    assert!(
        answer.body.starts_with(&format!("{sum} ")),
        "{} {:.200}\n{}",
        answer.head,
        answer.body,
        world.ask("/metrics")
    );
    assert_eq!(answer.body.len(), size + 1 + sum.to_string().len());
    // Chunked, and a client that reads slowly.
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for piece in body.chunks(100_000) {
        client.send(format!("{:x}\r\n", piece.len())).send(piece).send("\r\n");
    }
    client.send("0\r\n\r\n");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(client.answer().body.len(), size + 1 + sum.to_string().len());
}

#[test]
fn answers_of_every_length() {
    let upstream = Upstream::start(|seen| {
        let text = match seen.line().split(' ').nth(1).unwrap() {
            "/chunked" => {
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n"
            }
            "/none" => "HTTP/1.1 204 No Content\r\n\r\n",
            "/same" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n",
            "/head" => "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n",
            "/hints" => "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nz",
            "/close" => return Does::SaysAndCloses("HTTP/1.1 200 OK\r\nX-A: b\r\n\r\nuntil the end".to_owned()),
            "/old" => return Does::SaysAndCloses("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi".to_owned()),
            _ => {
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\r\n"
            }
        };
        Does::Says(text.to_owned())
    });
    let world = World::simple(&[upstream.address]);
    let mut client = world.client();
    let answer = client.get("/chunked");
    assert_eq!((answer.body.as_str(), answer.field("x-t")), ("abc", Some("1")));
    assert_eq!(client.get("/none").status(), 204);
    assert_eq!(client.get("/same").field("content-length"), Some("10"));
    client.send("HEAD /head HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer_to("HEAD").field("content-length"), Some("10"));
    assert_eq!(client.get("/hints").status(), 103);
    assert_eq!(client.answer().body, "z");
    let answer = client.get("/close");
    assert_eq!((answer.body.as_str(), answer.field("transfer-encoding")), ("until the end", Some("chunked")));
    assert_eq!(client.get("/old").body, "hi");
    let answer = client.get("/hop");
    assert!(!answer.head.contains("X-Hop") && !answer.head.contains("Keep-Alive"), "{}", answer.head);

    // HTTP/1.0 knows no chunks: its answers end with the connection.
    let mut old = world.client();
    old.send("GET /chunked HTTP/1.0\r\n\r\n");
    let answer = old.answer();
    assert_eq!((answer.body.as_str(), answer.field("connection")), ("abc", Some("close")));
    let mut old = world.client();
    old.send("GET /hop HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(old.answer().field("connection"), Some("keep-alive"));
    old.send("GET /hop HTTP/1.0\r\n\r\n");
    old.answer();
    assert!(old.is_closed());
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let upstream = Upstream::start(|seen| ok(seen.line()));
    let world = World::simple(&[upstream.address]);
    let mut client = world.client();
    let many: String = (0..200).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    client.send(many);
    for n in 0..200 {
        assert_eq!(client.answer().body, format!("GET /{n} HTTP/1.1"));
    }
}

#[test]
fn expectations() {
    let upstream = Upstream::start(|seen| ok(&String::from_utf8_lossy(&seen.body)));
    let world = World::simple(&[upstream.address]);
    let mut client = world.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    assert_eq!(client.answer().status(), 100);
    client.send("abc");
    assert_eq!(client.answer().body, "abc");
}

#[test]
fn web_sockets_pass_both_ways_and_other_upgrades_do_not() {
    let upstream = Upstream::start(|seen| {
        if seen.field("upgrade") == Some("websocket") && seen.field("connection") == Some("Upgrade") {
            Does::Echoes("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\nfirst".to_owned())
        } else {
            ok("plain")
        }
    });
    let world = World::simple(&[upstream.address]);
    let mut client = world.client();
    client.send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n");
    let answer = client.answer();
    assert_eq!(
        (answer.status(), answer.field("upgrade"), answer.field("sec-websocket-accept")),
        (101, Some("websocket"), Some("x"))
    );
    let mut bytes = [0; 5];
    client.stream.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"first");
    for size in [1, 1000, 200_000] {
        let text = vec![b'w'; size];
        let mut writer = client.stream.get_ref().try_clone().unwrap();
        let sent = text.clone();
        let thread = std::thread::spawn(move || writer.write_all(&sent).unwrap());
        let mut back = vec![0; size];
        client.stream.read_exact(&mut back).unwrap();
        thread.join().unwrap();
        assert!(back == text);
    }
    client.stream.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
    assert!(client.is_closed());

    let mut client = world.client();
    client.send(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n",
    );
    assert_eq!(client.answer().body, "plain");
    let seen = upstream.last();
    assert_eq!((seen.field("upgrade"), seen.field("http2-settings")), (None, None));
}

#[test]
fn what_goes_wrong_has_a_status() {
    let upstream = Upstream::start(|seen| match seen.line().split(' ').nth(1).unwrap() {
        "/slow" => Does::Waits(Duration::from_secs(30)),
        "/close" => Does::SaysAndCloses(String::new()),
        "/bad" => Does::Says("NOT HTTP\r\n\r\n".to_owned()),
        "/both" => Does::Says("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned()),
        "/short" => Does::SaysAndCloses("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc".to_owned()),
        _ => ok(""),
    });
    // A port that was free a moment ago may be another test's by now.
    let nobody = "127.0.0.1:1";
    let spec = format!(
        "listeners:\n- {{name: http, address: \"127.0.0.1:0\"}}\nroutes:\n- name: slow\n  matches: [{{path: {{prefix: /a/slow}}}}]\n  filters: [{{rewrite: {{path: {{replacePrefix: /slow}}}}}}]\n  timeouts: {{backend: 300ms}}\n  backends: [{{name: app}}]\n- name: app\n  matches: [{{path: {{prefix: /a}}}}]\n  filters: [{{rewrite: {{path: {{replacePrefix: /}}}}}}]\n  maxBody: 10\n  backends: [{{name: app}}]\n- name: gone\n  matches: [{{path: {{prefix: /gone}}}}]\n  backends: [{{name: gone}}]\nbackends:\n- {{name: app, endpoints: [\"{}\"]}}\n- {{name: gone, endpoints: [\"{nobody}\"]}}\n",
        upstream.address
    );
    let world = World::with(&spec);
    let mut client = world.client();
    for (path, status) in [
        ("/a/slow", 504),
        ("/a/bad", 502),
        ("/a/both", 502),
        ("/a/close", 502),
        ("/gone", 502),
        ("/nowhere", 404),
        ("/a/../b", 400),
    ] {
        let answer = client.get(path);
        assert_eq!(
            (answer.status(), answer.body.starts_with(&status.to_string())),
            (status, true),
            "{path}: {}",
            answer.body
        );
    }
    // The connection has gone on through all of it; an answer that is cut short is the end.
    client.send("GET /a/short HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.try_answer("GET").is_none());
    for request in [
        "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n01234567890",
        "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n01234567890\r\n0\r\n\r\n",
    ] {
        let mut client = world.client();
        client.send(request);
        assert_eq!(client.answer().status(), 413, "{request}");
    }
    let mut client = world.client();
    client.send("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().status(), 405);
}

#[test]
fn routes_filters_and_fixed_answers() {
    let upstream = Upstream::start(|seen| {
        let body = format!("{}|{}", seen.line(), seen.field("host").unwrap());
        Does::Says(format!("HTTP/1.1 200 OK\r\nServer: secret\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
    });
    let spec = format!(
        "listeners:
- {{name: http, address: \"127.0.0.1:0\"}}
routes:
- name: api
  hosts: [\"*.example.com\"]
  matches: [{{path: {{prefix: /api}}}}]
  filters:
  - rewrite: {{host: inner, path: {{replacePrefix: /v2}}}}
  - requestHeaders: {{set: {{X-A: \"1\"}}, add: {{X-B: \"2\"}}, remove: [Cookie]}}
  - responseHeaders: {{remove: [Server], set: {{X-Via: outrigger}}}}
  backends: [{{name: app}}]
- name: old
  matches: [{{path: {{prefix: /old}}}}]
  filters: [{{redirect: {{scheme: https, status: 301, path: {{replacePrefix: /new}}}}}}]
- name: health
  matches: [{{path: {{exact: /up}}, method: GET}}]
  filters: [{{respond: {{status: 200, body: fine}}}}]
- name: blue
  matches: [{{headers: {{X-Env: {{exact: blue}}}}}}]
  filters: [{{respond: {{status: 299, body: blue}}}}]
- name: rest
  backends: [{{name: app}}]
backends:
- {{name: app, endpoints: [\"{}\"]}}
",
        upstream.address
    );
    let world = World::with(&spec);
    let mut client = world.client();
    client.send("GET /api/x?q HTTP/1.1\r\nHost: a.example.com\r\nCookie: c\r\nX-A: 0\r\n\r\n");
    let answer = client.answer();
    assert_eq!(answer.body, "GET /v2/x?q HTTP/1.1|inner");
    assert_eq!((answer.field("server"), answer.field("x-via")), (None, Some("outrigger")));
    let seen = upstream.last();
    assert_eq!((seen.field("cookie"), seen.field("x-a"), seen.field("x-b")), (None, Some("1"), Some("2")));
    let answer = client.get("/old/p?q=1");
    assert_eq!((answer.status(), answer.field("location")), (301, Some("https://test/new/p?q=1")));
    assert_eq!(client.get("/up").body, "fine");
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Env: blue\r\n\r\n");
    assert_eq!(client.answer().status(), 299);
    assert_eq!(client.get("/rest").body, "GET /rest HTTP/1.1|test");
    client.send("GET http://proxied:8/abs HTTP/1.1\r\nHost: test\r\nX-Outrigger-Timing: 1\r\n\r\n");
    let answer = client.answer();
    assert_eq!(answer.body, "GET /abs HTTP/1.1|proxied:8");
    assert!(answer.field("server-timing").unwrap().contains("app;dur="), "{}", answer.head);
}

#[test]
fn a_client_that_goes_away_leaves_nothing_behind() {
    let upstream = Upstream::start(|_| Does::Waits(Duration::from_secs(30)));
    let world = World::with(&simple_spec(&[upstream.address], ""));
    let mut client = world.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the request", || upstream.count() == 1);
    rustix::net::sockopt::set_socket_linger(client.stream.get_ref(), Some(Duration::ZERO)).unwrap();
    drop(client);
    eventually("the end of the exchange", || world.metric("outrigger_proxy_connections_active") == 0);
    eventually("the end of all", || world.metric("outrigger_proxy_requests_active{route=\"all\"}") == 0);
    let gone = "outrigger_proxy_backend_requests_active{backend=\"app\"";
    assert!(world.ask("/metrics").lines().any(|line| line.starts_with(gone) && line.ends_with(" 0")));
}

#[test]
fn slow_clients_are_not_waited_for() {
    let upstream = Upstream::start(|_| ok("hi"));
    let spec = simple_spec(&[upstream.address], "timeouts: {head: 300ms, body: 300ms, idle: 400ms}\n");
    let world = World::with(&spec);
    // Who connects and then is stopped itself for as long has had its time already, and comes again.
    let come = |first: &str, status: u16| {
        let mut client = world.client();
        eventually("an answer", || {
            client = world.client();
            client.send(first);
            client.try_answer("GET").is_some_and(|answer| answer.status() == status)
        });
        client
    };
    assert!(come("GET / HTTP/1.1\r\nHo", 408).is_closed());
    assert!(come("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc", 408).is_closed());
    let mut silent = world.client();
    assert!(silent.is_closed());
    assert!(come("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 200).is_closed());
    // One that drips a byte now and then has no more time than others.
    let spec = simple_spec(&[upstream.address], "timeouts: {head: 3s}\n");
    let world = World::with(&spec);
    let mut drip = Client::connect(world.address());
    for byte in b"GET / HTTP/1.1\r\nHost: aaaaaaaaaaaaaaaaaaaaaaaaaaa" {
        drip.send([*byte]);
        std::thread::sleep(Duration::from_millis(40));
    }
    let last = Instant::now();
    assert_eq!(drip.answer().status(), 408);
    assert!(last.elapsed() < Duration::from_secs(3), "{:?} after the last byte", last.elapsed());
}
