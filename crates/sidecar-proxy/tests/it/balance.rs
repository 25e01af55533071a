//! Several endpoints: turns, health, retries, bounds.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::harness::{Does, Port, Upstream, World, eventually, ok, simple_spec};
use crate::passage::server;
use crate::tls::Authority;

#[test]
fn endpoints_take_turns() {
    let all: Vec<Upstream> = (0..3).map(|_| Upstream::start(|_| ok(""))).collect();
    let addresses: Vec<_> = all.iter().map(|upstream| upstream.address).collect();
    let world = World::simple(&addresses);
    let mut client = world.client();
    (0..9).for_each(|_| assert_eq!(client.get("/").status(), 200));
    assert_eq!(all.iter().map(Upstream::count).collect::<Vec<_>>(), [3, 3, 3]);
}

#[test]
fn an_endpoint_that_is_gone_costs_no_request() {
    let good = Upstream::start(|_| ok("good"));
    let reserved = Port::reserve();
    let gone = reserved.address;
    let world = World::simple(&[gone, good.address]);
    let mut client = world.client();
    for n in 0..30 {
        // Nothing was sent to the one that is gone, so that even what may happen only once is tried again.
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
        assert_eq!(client.answer().body, "good", "{n}");
    }
    let failures = format!("outrigger_proxy_backend_connect_failures_total{{backend=\"app\",endpoint=\"{gone}\"}}");
    assert_eq!(world.metric(&failures), 5, "it is left out after five");
    assert_eq!(
        world.metric(&format!("outrigger_proxy_backend_endpoint_healthy{{backend=\"app\",endpoint=\"{gone}\"}}")),
        0
    );
}

#[test]
fn connections_that_ended_while_idle_cost_no_request() {
    // Every second request finds its connection closed.
    let served = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&served);
    let upstream = Upstream::start(move |_| {
        if counter.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
            ok("one")
        } else {
            Does::SaysAndCloses("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo".to_owned())
        }
    });
    let world = World::simple(&[upstream.address]);
    let mut client = world.client();
    let open = format!("outrigger_proxy_backend_connections{{backend=\"app\",endpoint=\"{}\"}}", upstream.address);
    let is_harmless = |n: u32| !n.is_multiple_of(3);
    for n in 0..40 {
        let method = if is_harmless(n) { "GET" } else { "POST" };
        client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx"));
        assert_eq!(client.answer().status(), 200, "{n}");
        if n % 2 == 1 && !is_harmless(n + 1) {
            // What meets the end on its way may have been heard, and is not sent again.
            eventually("the connection's end", || world.metric(&open) == 0);
        } else {
            std::thread::sleep(Duration::from_millis(3));
        }
    }
    assert_eq!(upstream.count(), 40, "none was sent twice");
}

#[test]
fn only_what_does_no_harm_is_tried_again() {
    let bad = Upstream::start(|_| Does::SaysAndCloses("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n".to_owned()));
    let dies = Upstream::start(|_| Does::SaysAndCloses(String::new()));
    let good = Upstream::start(|_| ok("good"));
    let spec = |address| {
        let spec = simple_spec(&[address, good.address], "");
        spec.replace(
            "  backends: [{name: app}]",
            "  retries: {attempts: 1, statuses: [503]}\n  backends: [{name: app}]",
        )
        .replace("  endpoints:", "  passiveHealth: {failures: 0}\n  endpoints:")
    };
    for address in [bad.address, dies.address] {
        let world = World::with(&spec(address));
        let mut client = world.client();
        (0..6).for_each(|_| assert_eq!(client.get("/").body, "good"));
        let mut failed = 0;
        for _ in 0..6 {
            client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
            failed += usize::from(client.answer().status() >= 500);
        }
        assert_eq!(failed, 3);
        assert!((3..=6).contains(&world.metric("outrigger_proxy_retries_total{route=\"all\"}")));
    }
}

#[test]
fn health_is_asked_for() {
    let well = Arc::new(AtomicBool::new(true));
    let answer = Arc::clone(&well);
    let upstream = Upstream::start(move |seen| {
        let sick = seen.line().contains("/healthz") && !answer.load(Ordering::Relaxed);
        if sick { Does::Says("HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n".to_owned()) } else { ok("a") }
    });
    let other = Upstream::start(|_| ok("b"));
    let spec = simple_spec(&[upstream.address, other.address], "")
        .replace("  endpoints:", "  activeHealth: {path: /healthz, interval: 50ms, timeout: 5s}\n  endpoints:");
    let world = World::with(&spec);
    let healthy =
        format!("outrigger_proxy_backend_endpoint_healthy{{backend=\"app\",endpoint=\"{}\"}}", upstream.address);
    assert_eq!(world.metric(&healthy), 1);
    well.store(false, Ordering::Relaxed);
    eventually("the endpoint's leaving", || world.metric(&healthy) == 0);
    let mut client = world.client();
    assert!((0..6).all(|_| client.get("/").body == "b"));
    well.store(true, Ordering::Relaxed);
    eventually("the endpoint's return", || world.metric(&healthy) == 1);
    assert!((0..2).any(|_| client.get("/").body == "a"));
}

#[test]
fn an_answer_to_a_check_has_its_time_as_a_whole() {
    let good = Upstream::start(|_| ok(""));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut socket in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                // Never silent for as long as a check may take, and never done in time.
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".iter();
                for byte in answer {
                    std::thread::sleep(Duration::from_millis(400));
                    if socket.write_all(&[*byte]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    let health = "  activeHealth: {path: /, interval: 100ms, timeout: 2s, failures: 1}\n";
    let spec = simple_spec(&[address, good.address], "").replace("  endpoints:", &format!("{health}  endpoints:"));
    let world = World::with(&spec);
    eventually("the complaint", || world.log().contains("an endpoint is not well"));
    let healthy = |address| {
        world.metric(&format!("outrigger_proxy_backend_endpoint_healthy{{backend=\"app\",endpoint=\"{address}\"}}"))
    };
    assert_eq!((healthy(address), healthy(good.address)), (0, 1));
}

#[test]
fn too_many_requests_are_refused() {
    let upstream = Upstream::start(|_| Does::Waits(Duration::from_secs(30)));
    let spec = simple_spec(&[upstream.address], "").replace("  endpoints:", "  maxRequests: 2\n  endpoints:");
    let world = World::with(&spec);
    let mut waiting: Vec<_> = (0..2).map(|_| world.client()).collect();
    waiting.iter_mut().for_each(|client| {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    });
    eventually("two requests", || upstream.count() == 2);
    let answer = world.client().get("/");
    assert_eq!((answer.status(), answer.field("retry-after")), (503, Some("1")));
}

#[test]
fn weights_split_requests() {
    let (a, b) = (Upstream::start(|_| ok("a")), Upstream::start(|_| ok("b")));
    let spec = format!(
        "listeners:\n- {{name: http, address: \"127.0.0.1:0\"}}\nroutes:\n- name: split\n  backends: [{{name: a, weight: 90}}, {{name: b, weight: 10}}, {{name: c, weight: 0}}]\nbackends:\n- {{name: a, endpoints: [\"{}\"]}}\n- {{name: b, endpoints: [\"{}\"]}}\n- {{name: c, endpoints: [\"127.0.0.1:1\"]}}\n",
        a.address, b.address
    );
    let world = World::with(&spec);
    let mut client = world.client();
    (0..1000).for_each(|_| assert_eq!(client.get("/").status(), 200));
    assert!((50..170).contains(&b.count()), "{}", b.count());
    assert_eq!(a.count() + b.count(), 1000);
}

/// An application that takes this long for the handshake and for each answer.
fn slow(config: &Arc<ServerConfig>, handshake: Duration, answer: Duration) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, config) = (listener.local_addr().unwrap(), Arc::clone(config));
    let count = Arc::<AtomicUsize>::default();
    let served = Arc::clone(&count);
    std::thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let (config, served) = (Arc::clone(&config), Arc::clone(&served));
            std::thread::spawn(move || {
                std::thread::sleep(handshake);
                let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), socket);
                while stream.read(&mut [0; 4096]).is_ok_and(|length| length > 0) {
                    served.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(answer);
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
                }
            });
        }
    });
    (address, count)
}

#[test]
fn an_answer_is_expected_as_it_was_without_its_connection() {
    let authority = Authority::new();
    let config = server(&authority.issue(&["app.test"], None));
    let (far, fast) = slow(&config, Duration::from_millis(1500), Duration::ZERO);
    let (near, late) = slow(&config, Duration::ZERO, Duration::from_millis(300));
    let mut world = World::new();
    std::fs::write(world.path("ca.crt"), authority.pem()).unwrap();
    let tls = "  tls: {serverName: app.test, caFile: ROOT/ca.crt}\n  balance: p2cEwma\n";
    world.start(&simple_spec(&[far, near], "workers: 1\n").replace("  endpoints:", &format!("{tls}  endpoints:")));
    let mut client = world.client();
    (0..8).for_each(|_| assert_eq!(client.get("/").status(), 200));
    // Both are tried once; from then on the one that answers sooner has all.
    assert_eq!((fast.load(Ordering::Relaxed), late.load(Ordering::Relaxed)), (7, 1));
}
