//! Clients that begin a request and withhold the rest of it: that is nobody's failure but their own. No endpoint looks
//! broken or slow for it, and no limit falls.

use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Client, Does, Upstream, World, eventually, ok, simple_spec};
use crate::wire::{DATA, END, HEADERS, WHOLE, Wire, frame, request};

const LIMIT: &str = "outrigger_proxy_concurrency{route=\"all\",filter=\"1\",what=\"limit\"}";
const ACTIVE: &str = "outrigger_proxy_concurrency{route=\"all\",filter=\"1\",what=\"active\"}";

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
        "  retries: {attempts: 0, perTryTimeout: 3s}\n",
        "  passiveHealth: {failures: 1, ejection: 60s, maxEjectedPercent: 100}\n",
    );
    let mut clients: Vec<Client> = (0..4).map(|_| begin(&world, "/")).collect();
    let mut wire = Wire::connect(world.address(), &[]);
    wire.send(&frame(HEADERS, WHOLE, 1, &request("POST", "/", &[("content-length", "2")])));
    wire.send(&frame(DATA, 0, 1, b"a"));
    thread::sleep(Duration::from_millis(3500));
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
    let began = Instant::now();
    assert_eq!(client.send("b").answer().status(), 200);
    let waited = began.elapsed().as_secs_f64();
    eventually("the count", || by_endpoint(&world, "backend_duration_seconds_count", &upstream) == 1);
    let line = format!("_backend_duration_seconds_sum{{backend=\"app\",endpoint=\"{}\"}}", upstream.address);
    let page = world.ask("/metrics");
    let sum = page.lines().find_map(|one| one.split_once(&line)?.1.trim().parse::<f64>().ok()).unwrap();
    assert!(sum <= waited, "{sum} s, and the last byte was sent {waited} s before the answer");
}

#[test]
fn an_adaptive_limit_learns_from_backends_alone() {
    let upstream = app();
    let adaptive = "  filters: [{concurrency: {limit: 100, adaptive: {}}}]\n  timeouts: {request: 3s}\n";
    let world = world(&[&upstream], adaptive, "  maxRequests: 4\n");
    for _ in 0..2 {
        let mut clients: Vec<Client> = (0..4).map(|_| begin(&world, "/")).collect();
        eventually("four requests in flight", || world.metric(ACTIVE) == 4);
        // No room for more, which says nothing about what the backend bears.
        assert_eq!(world.client().get("/").field("x-outrigger-failure"), Some("overflow"));
        clients.iter_mut().for_each(|client| assert_eq!(client.answer().status(), 408));
        eventually("their end", || world.metric(ACTIVE) == 0);
    }
    assert_eq!(world.metric(LIMIT), 100);
    // Whole requests that are not answered are the backend's failure; the second ends what the limit is found by.
    (0..2).for_each(|_| assert_eq!(world.client().get("/never").status(), 504));
    eventually("half of it", || world.metric(LIMIT) == 50);
}

#[test]
fn a_stream_that_is_not_whole_in_time_is_its_clients_failure() {
    let upstream = app();
    let adaptive = "  filters: [{concurrency: {limit: 100, adaptive: {}}}]\n  timeouts: {request: 3s}\n";
    let world = world(&[&upstream], adaptive, "");
    let mut wire = Wire::connect(world.address(), &[]);
    wire.send(&frame(HEADERS, WHOLE, 1, &request("POST", "/", &[])));
    wire.until("a refusal", |came| came.status() == Some(408));
    for stream in [3, 5] {
        let head = frame(HEADERS, WHOLE, stream, &request("POST", "/never", &[]));
        wire.send(&[head, frame(DATA, END, stream, b"ab")].concat());
        wire.until("a failure", |came| came.status() == Some(504));
    }
    eventually("half of the limit", || world.metric(LIMIT) == 50);
}

#[test]
fn an_application_that_gives_up_waiting_for_a_client_is_not_left_out() {
    // As servers do that wait for a body for a time: they end the connection, or say 500.
    for says in [&b""[..], b"HTTP/1.1 500 Late\r\nContent-Length: 0\r\n\r\n"] {
        let address = impatient(says);
        let adaptive = "  retries: {attempts: 0}\n  filters: [{concurrency: {limit: 100, adaptive: {}}}]\n";
        let passive = "  passiveHealth: {failures: 1, ejection: 60s, maxEjectedPercent: 100}\n";
        let spec = simple_spec(&[address], "workers: 1\n")
            .replace("- name: all\n", &format!("- name: all\n{adaptive}"))
            .replace("  endpoints:", &format!("{passive}  endpoints:"));
        let world = World::with(&spec);
        let mut clients: Vec<Client> = (0..4).map(|_| begin(&world, "/")).collect();
        clients.iter_mut().for_each(|client| assert!(client.answer().status() >= 500));
        let ejections = format!("outrigger_proxy_backend_ejections_total{{backend=\"app\",endpoint=\"{address}\"}}");
        assert_eq!((world.metric(&ejections), world.metric(LIMIT)), (0, 100));
    }
}

/// An application that, a second and a half after a head, says this and ends the connection; the body's rest does not matter.
fn impatient(says: &'static [u8]) -> std::net::SocketAddr {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                thread::sleep(Duration::from_millis(1500));
                let _ = stream.write_all(says);
            });
        }
    });
    address
}
