//! Copies of requests for another backend: that they are the same, and that the requests learn nothing of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::config::problems;
use crate::harness::{Does, Port, Upstream, World, eventually, ok};

/// One route with one filter, a mirror to the backend `shadow`; both backends with more fields.
fn spec(app: SocketAddr, shadow: SocketAddr, filter: &str, more: (&str, &str)) -> String {
    format!(
        "workers: 1\nlisteners:\n- {{name: http, address: \"127.0.0.1:0\"}}\nroutes:\n- name: all\n  filters:\n  - mirror: {{backend: shadow{filter}}}\n  backends: [{{name: app}}]\nbackends:\n- {{name: app, endpoints: [\"{app}\"]{}}}\n- {{name: shadow, endpoints: [\"{shadow}\"]{}}}\n",
        more.0, more.1
    )
}

fn decisions(world: &World, decision: &str) -> u64 {
    world.metric(&format!(
        "outrigger_proxy_filter_decisions_total{{route=\"all\",filter=\"1\",rule=\"mirror\",decision=\"{decision}\"}}"
    ))
}

/// Asks with a body of every kind, in pieces; the copies must be the same.
fn check_copies(front: &World, app: &Upstream, shadow: &Upstream) {
    let mut client = front.client();
    assert_eq!(client.get("/plain?q=1").body, "app");
    client.send("POST /length HTTP/1.1\r\nHost: h\r\nX-Own: 1\r\nContent-Length: 10\r\n\r\n01234");
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(client.send("56789").answer().body, "app");
    client.send("POST /chunked HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(client.send("2\r\nde\r\n0\r\nX-End: 1\r\n\r\n").answer().body, "app");
    client.send("POST /once HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nxyz");
    assert_eq!(client.answer().body, "app");
    eventually("the copies", || shadow.count() == 4);
    let mut copies = shadow.seen.lock().unwrap().clone();
    for seen in app.seen.lock().unwrap().iter() {
        let at = copies
            .iter()
            .position(|copy| copy.line() == seen.line())
            .unwrap_or_else(|| panic!("no copy of {}", seen.line()));
        let copy = copies.swap_remove(at);
        assert_eq!((copy.field("host"), copy.field("x-own")), (seen.field("host"), seen.field("x-own")));
        assert_eq!(copy.body, seen.body, "{}", seen.line());
        let declared = copy.field("content-length").map(|length| length.parse::<usize>().unwrap());
        assert_eq!(declared.unwrap_or(0), seen.body.len(), "{}", copy.head);
    }
}

#[test]
fn copies_are_the_same() {
    let (app, shadow) = (Upstream::start(|_| ok("app")), Upstream::start(|_| ok("shadow, and longer")));
    let world = World::with(&spec(app.address, shadow.address, "", ("", "")));
    check_copies(&world, &app, &shadow);
    eventually("their answers", || decisions(&world, "answered") == 4);
    eventually("the count", || world.metric("outrigger_proxy_requests_total{route=\"all\",status=\"2xx\"}") == 4);
    let active =
        format!("outrigger_proxy_backend_requests_active{{backend=\"shadow\",endpoint=\"{}\"}}", shadow.address);
    eventually("the end of all", || world.metric(&active) == 0);
    // A copy that is still under way when the next one goes has that one connect anew; now none is.
    let connections = || shadow.connections.load(std::sync::atomic::Ordering::Relaxed);
    let before = connections();
    assert_eq!(world.client().get("/").body, "app");
    eventually("its copy", || decisions(&world, "answered") == 5);
    assert_eq!(connections(), before);
}

#[test]
fn copies_are_the_same_whatever_is_spoken() {
    let (app, shadow) = (Upstream::start(|_| ok("app")), Upstream::start(|_| ok("shadow")));
    let plain = |to: SocketAddr, more: &str| {
        format!(
            "listeners:\n- {{name: http, address: \"127.0.0.1:0\"}}\nroutes:\n- {{name: all, backends: [{{name: b}}]}}\nbackends:\n- {{name: b, endpoints: [\"{to}\"]{more}}}\n"
        )
    };
    // HTTP/2 in; HTTP/1.1 to the one, HTTP/2 to the other, and the other way round.
    for (to_app, to_shadow) in [("", ", http2: true"), (", http2: true", "")] {
        shadow.seen.lock().unwrap().clear();
        app.seen.lock().unwrap().clear();
        let before_app = World::with(&plain(app.address, ""));
        let before_shadow = World::with(&plain(shadow.address, ""));
        let target = |world: &World, upstream: &Upstream, more: &str| {
            if more.is_empty() { upstream.address } else { world.address() }
        };
        let (one, two) = (target(&before_app, &app, to_app), target(&before_shadow, &shadow, to_shadow));
        let middle = World::with(&spec(one, two, "", (to_app, to_shadow)));
        let front = World::with(&plain(middle.address(), ", http2: true"));
        check_copies(&front, &app, &shadow);
        eventually("their answers", || decisions(&middle, "answered") == 4);
    }
}

#[test]
fn who_asks_learns_nothing_of_a_copy_that_fails() {
    let app = Upstream::start(|_| ok("app"));
    // Nobody listens there.
    let reserved = Port::reserve();
    let gone = reserved.address;
    let world = World::with(&spec(app.address, gone, ", maxBody: 4", ("", "")));
    let mut client = world.client();
    (0..5).for_each(|_| assert_eq!(client.get("/").status(), 200));
    eventually("the failures", || decisions(&world, "failed") == 5);
    for request in [
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nabcde",
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
    ] {
        assert_eq!(client.send(request).answer().status(), 200);
    }
    eventually("both to be skipped", || decisions(&world, "skipped") == 2);
    assert_eq!(app.last().body, b"abcde");
}

#[test]
fn nobody_waits_for_a_copy() {
    let app = Upstream::start(|_| ok("app"));
    let shadow = Upstream::start(|_| Does::Waits(Duration::from_secs(3600)));
    let world = World::with(&spec(app.address, shadow.address, ", inFlight: 2, timeout: 500ms", ("", "")));
    let mut client = world.client();
    eventually("more than two at once", || {
        assert_eq!(client.get("/").status(), 200);
        decisions(&world, "skipped") >= 1
    });
    eventually("the end of their time", || decisions(&world, "failed") >= 2);
    // There is room again.
    let before = shadow.count();
    eventually("another copy", || {
        assert_eq!(client.get("/").status(), 200);
        shadow.count() > before
    });
    drop(client);
    // And the proxy's end does not wait for it either.
    let mut world = world;
    world.signal(rustix::process::Signal::TERM);
    assert_eq!(world.wait().code(), Some(0));
}

#[test]
fn a_worker_that_goes_sees_its_copies_out() {
    let app = Upstream::start(|_| ok("app"));
    let answers = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&answers);
    let shadow = Upstream::start(move |_| {
        eventually("the word to answer", || told.load(Ordering::Relaxed));
        ok("shadow")
    });
    let spec = spec(app.address, shadow.address, ", timeout: 1m", ("", ", maxRequests: 24"));
    let world = World::with(&spec.replace("workers: 1", "workers: 4"));
    for _ in 0..3 {
        answers.store(false, Ordering::Relaxed);
        let before = (shadow.count(), decisions(&world, "answered"));
        let mut clients: Vec<_> = (0..24).map(|_| world.client()).collect();
        for client in &mut clients {
            client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        }
        clients.iter_mut().for_each(|client| assert_eq!(client.answer().status(), 200));
        eventually("the copies", || shadow.count() == before.0 + 24);
        drop(clients);
        // Three of the four workers are superfluous, and have no clients.
        world.reload(&spec);
        std::thread::sleep(Duration::from_millis(100));
        answers.store(true, Ordering::Relaxed);
        eventually("their answers", || decisions(&world, "answered") == before.1 + 24);
        let active = format!("_backend_requests_active{{backend=\"shadow\",endpoint=\"{}\"}}", shadow.address);
        eventually("their end", || world.metric(&format!("outrigger_proxy{active}")) == 0);
        world.reload(&spec.replace("workers: 1", "workers: 4"));
    }
}

#[test]
fn a_share_of_all() {
    let (app, shadow) = (Upstream::start(|_| ok("app")), Upstream::start(|_| ok("shadow")));
    let world = World::with(&spec(app.address, shadow.address, ", percent: 25", ("", "")));
    let mut client = world.client();
    (0..40).for_each(|_| assert_eq!(client.get("/").status(), 200));
    eventually("the copies", || decisions(&world, "answered") == 10);
    assert_eq!((app.count(), shadow.count()), (40, 10));
}

#[test]
fn what_is_wrong_with_a_mirror_is_said_at_its_place() {
    let said = problems(
        "listeners: [{name: a, address: ':80'}]
routes:
- name: r
  filters:
  - mirror: {backend: gone, percent: 101, maxBody: 1Gi, inFlight: 0, timeout: 0s}
  - mirror: {backend: o}
  backends: [{name: b}]
backends:
- {name: b, endpoints: ['h:1']}
- {name: o, endpoints: [], originalDestination: true}
",
    );
    let expected = [
        "8:25: spec.routes[0].filters[0].mirror.backend: there is no backend `gone`",
        "8:40: spec.routes[0].filters[0].mirror.percent: must be from 0 to 100",
        "8:54: spec.routes[0].filters[0].mirror.maxBody: must be at most 16Mi",
        "8:69: spec.routes[0].filters[0].mirror.inFlight: must be at least 1",
        "8:81: spec.routes[0].filters[0].mirror.timeout: must be longer than 0s and at most 1h",
        "9:25: spec.routes[0].filters[1].mirror.backend: must be a backend without originalDestination and proxyProtocol: a copy has no client",
    ];
    assert_eq!(said, expected);
}
