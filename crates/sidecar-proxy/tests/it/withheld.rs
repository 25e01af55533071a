//! Clients that begin a request and withhold the rest of it: that is nobody's failure but their own. No endpoint looks
//! broken or slow for it.

use std::thread;
use std::time::Duration;

use crate::harness::{Client, Does, Upstream, World, ok, simple_spec};
use crate::wire::{DATA, END, HEADERS, WHOLE, Wire, frame, request};

/// One worker; lines of the route and of the backend besides.
fn world(upstreams: &[&Upstream], route: &str, backend: &str) -> World {
    let addresses: Vec<_> = upstreams.iter().map(|one| one.address).collect();
    let spec = simple_spec(&addresses, "workers: 1\n")
        .replace("- name: all\n", &format!("- name: all\n{route}"))
        .replace("  endpoints:", &format!("{backend}  endpoints:"));
    World::with(&spec)
}

/// All requests at once are answered; those for `/never` are not.
fn app() -> Upstream {
    Upstream::start(
        |seen| {
            if seen.line().contains("never") { Does::Waits(Duration::from_secs(50)) } else { ok("done") }
        },
    )
}

/// The first byte of two.
fn begin(world: &World, path: &str) -> Client {
    let mut client = world.client();
    client.send(format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na"));
    client
}

fn by_endpoint(world: &World, name: &str, upstream: &Upstream) -> u64 {
    world.metric(&format!("outrigger_proxy_{name}{{backend=\"app\",endpoint=\"{}\"}}", upstream.address))
}

#[test]
fn a_try_has_its_time_from_the_last_byte_of_the_request() {
    let (one, other) = (app(), app());
    let world = world(
        &[&one, &other],
        "  retries: {attempts: 0, perTryTimeout: 1s}\n",
        "  passiveHealth: {failures: 1, ejection: 60s, maxEjectedPercent: 100}\n",
    );
    let mut clients: Vec<Client> = (0..4).map(|_| begin(&world, "/")).collect();
    let mut wire = Wire::connect(world.address(), &[]);
    wire.send(&frame(HEADERS, WHOLE, 1, &request("POST", "/", &[("content-length", "2")])));
    wire.send(&frame(DATA, 0, 1, b"a"));
    thread::sleep(Duration::from_millis(1500));
    for client in &mut clients {
        assert_eq!(client.send("b").answer().status(), 200);
    }
    wire.send(&frame(DATA, END, 1, b"b"));
    wire.until("an answer", |came| came.status() == Some(200));
    for upstream in [&one, &other] {
        assert_eq!(by_endpoint(&world, "backend_failures_total", upstream), 0);
        assert_eq!(by_endpoint(&world, "backend_ejections_total", upstream), 0);
    }
    // From then on it is the endpoint that is waited for.
    let mut client = begin(&world, "/never");
    thread::sleep(Duration::from_millis(200));
    let answer = client.send("b").answer();
    assert_eq!((answer.status(), answer.field("x-outrigger-failure")), (504, Some("backend_timeout")));
}

#[test]
fn a_slow_upload_is_no_slow_answer() {
    let upstream = app();
    let world = world(&[&upstream], "", "");
    let mut client = begin(&world, "/");
    thread::sleep(Duration::from_secs(2));
    assert_eq!(client.send("b").answer().status(), 200);
    assert_eq!(by_endpoint(&world, "backend_duration_seconds_count", &upstream), 1);
    let line = format!("_backend_duration_seconds_sum{{backend=\"app\",endpoint=\"{}\"}}", upstream.address);
    let page = world.ask("/metrics");
    let sum = page.lines().find_map(|one| one.split_once(&line)?.1.trim().parse::<f64>().ok()).unwrap();
    assert!(sum < 1.5, "{sum} s");
}
