//! One thing spelled in two ways: paths that may be meant for another route, and fields that are another for an application.

use crate::harness::{Upstream, World, ok};
use crate::wire::*;

/// `/admin` is guarded; whatever else goes to the application.
fn guarded(upstream: std::net::SocketAddr, more: &str) -> String {
    format!(
        "listeners:\n- {{name: http, address: \"127.0.0.1:0\"}}\nroutes:\n- name: admin\n  matches: [{{path: {{prefix: /admin}}}}]\n  filters: [{{respond: {{status: 403, body: guarded}}}}]\n- name: all\n  backends: [{{name: app}}]\nbackends:\n- name: app\n  endpoints: [\"{upstream}\"]\n{more}"
    )
}

/// The status over either version.
fn statuses(world: &World, path: &str) -> (u16, u16) {
    let mut wire = Wire::connect(world.address(), &[]);
    let head = [(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "h")];
    wire.send(&frame(HEADERS, WHOLE | END, 1, &block(&head)));
    let second = wire.answer(1).0[9..12].parse().unwrap();
    (world.client().get(path).status(), second)
}

#[test]
fn a_guarded_route_has_no_second_spelling() {
    let upstream = Upstream::start(|_| ok("app"));
    let world = World::with(&guarded(upstream.address, ""));
    for (path, status) in [
        ("/admin", 403),
        ("/admin/x", 403),
        ("/admin/%20", 403),
        ("/admin//x;y", 403),
        ("/%61dmin", 400),
        ("/adm%69n/x", 400),
        ("//admin", 400),
        ("///admin/x", 400),
        ("/%2fadmin", 400),
        ("/admin%2f", 400),
        ("/admin%2Fx", 400),
        ("/admin;x", 400),
        ("/admin;x=1/y", 400),
        ("/admin%3bx", 400),
        ("/;x/admin", 400),
        ("/\\admin", 400),
        ("/admin%5cx", 400),
        ("/administrator", 200),
        ("/%2561dmin", 200),
        ("/a%20b;c//d", 200),
        ("/a?x=/%61dmin", 200),
        ("/a?//admin", 200),
    ] {
        assert_eq!(statuses(&world, path), (status, status), "{path}");
    }
    assert_eq!(upstream.count(), 10, "what is ordinary has come");
    let world = World::with(&guarded(upstream.address, "ambiguousPaths: pass\n"));
    assert_eq!(statuses(&world, "/%61dmin"), (200, 200));
    assert_eq!(statuses(&world, "/admin"), (403, 403));
}

/// For an application that is told `HTTP_X_USER` (RFC 3875 §4.1.18) these are the fields the proxy answers for.
#[test]
fn a_field_has_no_second_spelling() {
    let upstream = Upstream::start(|_| ok("app"));
    let spec = |address: std::net::SocketAddr, http2: bool| {
        format!(
            "listeners:\n- {{name: http, address: \"127.0.0.1:0\"}}\nforwarded: replace\nroutes:\n- name: all\n  filters: [{{requestHeaders: {{remove: [X-User], set: {{X_Team: ours}}}}}}]\n  backends: [{{name: app, requestHeaders: {{set: {{X-Tenant-Id: t}}}}}}]\nbackends:\n- {{name: app, http2: {http2}, endpoints: [\"{address}\"]}}\n"
        )
    };
    let inner = World::with(&spec(upstream.address, false));
    let outer = World::with(&spec(inner.address(), true));
    let fields = [
        ("x_forwarded_client_cert", "evil"),
        ("x-forwarded_for", "evil"),
        ("x_forwarded-proto", "evil"),
        ("x.forwarded.host", "evil"),
        ("content_length", "evil"),
        ("x_user", "evil"),
        ("x-team", "evil"),
        ("x_tenant-id", "evil"),
        ("x_other", "good"),
    ];
    let lines: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let trailers = frame(HEADERS, WHOLE | END, 1, &block(&[&fields[..], &[("x-user", "evil")]].concat()));
    for world in [&inner, &outer] {
        let before = upstream.count();
        let mut client = world.client();
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: h\r\n{lines}Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n{lines}x-user: evil\r\n\r\n"
        ));
        assert_eq!(client.answer().status(), 200);
        // The trailers come by themselves.
        client.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n");
        std::thread::sleep(std::time::Duration::from_millis(20));
        client.send(format!("0\r\n{lines}x-user: evil\r\n\r\n"));
        assert_eq!(client.answer().status(), 200);
        let mut wire = Wire::connect(world.address(), &[]);
        let head = frame(HEADERS, WHOLE, 1, &request("POST", "/", &fields));
        wire.send(&[head, frame(DATA, 0, 1, b"a"), trailers.clone()].concat());
        assert!(wire.answer(1).0.starts_with(":status: 200"));
        let seen = upstream.seen.lock().unwrap();
        assert_eq!(seen.len(), before + 3);
        for one in &seen[before..] {
            let head = one.head.to_ascii_lowercase();
            assert!(!head.contains("evil"), "{head}");
            assert!(head.contains("x-tenant-id: t") && head.contains("x_team: ours"), "{head}");
            assert!(head.ends_with("x_other: good"), "{head}");
        }
    }
    let kept = World::with(&spec(upstream.address, false).replace("forwarded: replace", "forwarded: pass"));
    let mut client = kept.client();
    client.send("GET / HTTP/1.1\r\nHost: h\r\nX_Forwarded_For: theirs\r\nX_Forwarded_Client_Cert: evil\r\n\r\n");
    assert_eq!(client.answer().status(), 200);
    let seen = upstream.seen.lock().unwrap();
    let head = &seen.last().unwrap().head;
    assert!(head.contains("X_Forwarded_For: theirs") && !head.contains("evil"), "{head}");
}
