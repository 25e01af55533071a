//! HTTP/2 with a client we did not write: curl, where the machine has it.

use std::process::Command;

use crate::harness::{Does, Upstream, World, eventually, ok};

/// What curl prints; `None` where there is no curl.
fn curl(arguments: &[&str]) -> Option<Vec<u8>> {
    let output =
        Command::new("curl").args(["-s", "--http2-prior-knowledge", "--max-time", "60"]).args(arguments).output();
    match output {
        Ok(output) => Some(output.stdout),
        Err(_) => {
            println!("NOT RUN: there is no curl");
            None
        }
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn requests_and_bodies_of_every_length() {
    let upstream = Upstream::start(|seen| match seen.line().split(' ').nth(1).unwrap() {
        "/chunked" => Does::Says(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n".to_owned(),
        ),
        "/close" => Does::SaysAndCloses("HTTP/1.1 200 OK\r\n\r\nuntil the end".to_owned()),
        "/none" => Does::Says("HTTP/1.1 204 No Content\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n".to_owned()),
        "/cut" => Does::SaysAndCloses("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc".to_owned()),
        _ => ok(&String::from_utf8_lossy(&seen.body)),
    });
    let world = World::simple(&[upstream.address]);
    let at = |path: &str| format!("http://{}{path}", world.address());
    let Some(first) = curl(&["-D", "-", "-d", "hello", &at("/echo")]) else { return };
    let first = text(first);
    assert!(first.starts_with("HTTP/2 200") && first.ends_with("\r\n\r\nhello"), "{first}");
    let seen = upstream.last();
    assert_eq!((seen.line(), seen.field("x-forwarded-for")), ("POST /echo HTTP/1.1", Some("127.0.0.1")));
    assert_eq!(seen.field("host"), Some(world.address().to_string().as_str()));
    let chunked = text(curl(&["-D", "-", &at("/chunked")]).unwrap());
    assert!(chunked.contains("abc") && chunked.contains("x-t: 1\r\n"), "{chunked}");
    assert_eq!(text(curl(&[&at("/close")]).unwrap()), "until the end");
    let none = text(curl(&["-D", "-", &at("/none")]).unwrap());
    assert!(none.starts_with("HTTP/2 204") && !none.contains("x-hop"), "{none}");
    assert!(text(curl(&["-D", "-", &at("/nowhere/..%2f/../x"), "--path-as-is"]).unwrap()).starts_with("HTTP/2 400"));
    let cut = text(curl(&["-w", "%{exitcode}", &at("/cut")]).unwrap());
    assert!(cut.ends_with("92"), "the stream is reset: {cut}");

    let body = world.path("body");
    let bytes: Vec<u8> = (0..3_000_000u32).map(|n| b'a' + (n % 23) as u8).collect();
    std::fs::write(&body, &bytes).unwrap();
    let file = body.to_str().unwrap();
    for arguments in [&["-T", file][..], &["-T", file, "-H", "Content-Length:"]] {
        let back = curl(&[arguments, &[&at("/echo")]].concat()).unwrap();
        assert!(back == bytes, "{} of {} bytes", back.len(), bytes.len());
    }
    eventually("the end of all", || world.metric("outrigger_proxy_requests_active{route=\"all\"}") == 0);
}

#[test]
fn many_streams_at_once() {
    let upstream = Upstream::start(|seen| ok(&"x".repeat(seen.line().len() * 50)));
    let world = World::simple(&[upstream.address]);
    let url = format!("http://{}/some/path", world.address());
    let output = Command::new("h2load").args(["-n", "3000", "-c", "5", "-m", "20", &url]).output();
    let Ok(output) = output else {
        println!("NOT RUN: there is no h2load");
        return;
    };
    let shown = text(output.stdout);
    assert!(shown.contains("3000 succeeded, 0 failed, 0 errored, 0 timeout"), "{shown}");
}

/// An outer proxy whose backend is an inner one, over HTTP/2; both are ours, the application is not.
#[test]
fn backends_that_speak_http2() {
    let upstream = Upstream::start(|seen| match seen.line().split(' ').nth(1).unwrap() {
        "/chunked" => Does::Says(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n".to_owned(),
        ),
        "/hints" => Does::Says(
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nz".to_owned(),
        ),
        "/cut" => Does::SaysAndCloses("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc".to_owned()),
        "/none" => Does::Says("HTTP/1.1 204 No\r\n\r\n".to_owned()),
        "/head" => Does::Says("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n".to_owned()),
        _ => ok(&String::from_utf8_lossy(&seen.body)),
    });
    let inner = World::simple(&[upstream.address]);
    let spec = crate::harness::simple_spec(&[inner.address()], "");
    let outer = World::with(&spec.replace("- name: app\n  endpoints", "- name: app\n  http2: true\n  endpoints"));
    let mut client = outer.client();
    for n in 0..5 {
        client.send(format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nhello{n}"));
        assert_eq!(client.answer().body, format!("hello{n}"));
    }
    client.send("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    client.send("2\r\nde\r\n0\r\n\r\n");
    assert_eq!(client.answer().body, "abcde");
    let answer = client.get("/chunked");
    assert_eq!((answer.body.as_str(), answer.field("x-t")), ("abc", Some("1")));
    assert_eq!(client.get("/none").status(), 204);
    client.send("HEAD /head HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer_to("HEAD").field("content-length"), Some("7"));
    assert_eq!(client.get("/hints").status(), 103);
    assert_eq!(client.answer().body, "z");
    let size = 2_000_000;
    let body = vec![b'x'; size];
    client.send(format!("PUT /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n")).send(&body);
    assert_eq!(client.answer().body.len(), size);
    let seen = upstream.last();
    assert_eq!(seen.field("x-forwarded-for"), Some("127.0.0.1, 127.0.0.1"));
    assert_eq!(inner.metric("outrigger_proxy_connections_total"), 1);
    client.send("GET /cut HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.try_answer("GET").is_none());
    // All the way in HTTP/2.
    let Some(all) = curl(&["-D", "-", "-d", "hello", &format!("http://{}/echo", outer.address())]) else { return };
    assert!(text(all).ends_with("\r\n\r\nhello"));
    let output = Command::new("h2load")
        .args(["-n", "2000", "-c", "4", "-m", "20", &format!("http://{}/echo", outer.address())])
        .output();
    if let Ok(output) = output {
        let shown = text(output.stdout);
        assert!(shown.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout"), "{shown}");
    }
    eventually("the end of all", || outer.metric("outrigger_proxy_requests_active{route=\"all\"}") == 0);
    eventually("the end of all", || inner.metric("outrigger_proxy_requests_active{route=\"all\"}") == 0);
}

#[test]
fn a_backend_of_http2_that_goes_away_is_replaced() {
    let (a, b) = (Upstream::start(|_| ok("a")), Upstream::start(|_| ok("b")));
    let (mut one, two) = (World::simple(&[a.address]), World::simple(&[b.address]));
    let spec = crate::harness::simple_spec(&[one.address(), two.address()], "");
    let outer = World::with(&spec.replace("- name: app\n  endpoints", "- name: app\n  http2: true\n  endpoints"));
    let mut client = outer.client();
    (0..10).for_each(|_| assert_eq!(client.get("/").status(), 200));
    one.signal(rustix::process::Signal::TERM);
    for n in 0..200 {
        assert_eq!(client.get("/").status(), 200, "{n}");
    }
    assert_eq!(one.wait().code(), Some(0));
    (0..10).for_each(|_| assert_eq!(client.get("/").body, "b"));
}
