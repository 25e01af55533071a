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
