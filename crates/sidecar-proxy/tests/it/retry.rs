//! Second tries: what is tried again and when, at another endpoint besides the first, and what waits for room.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Does, Port, Upstream, World, eventually, ok, simple_spec};

const ALL: &str = "{route=\"all\"}";

/// One worker, so that turns are predictable.
fn spec(upstreams: &[SocketAddr], retries: &str, backend: &str) -> String {
    simple_spec(upstreams, "workers: 1\n")
        .replace("  backends: [{name: app}]", &format!("  retries: {{{retries}}}\n  backends: [{{name: app}}]"))
        .replace("  endpoints:", &format!("  passiveHealth: {{failures: 0}}\n{backend}  endpoints:"))
}

fn post(world: &World) -> crate::harness::Answer {
    let mut client = world.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
    client.answer()
}

#[test]
fn a_try_that_takes_too_long_is_made_elsewhere() {
    let slow = Upstream::start(|_| Does::Waits(Duration::from_secs(50)));
    let good = Upstream::start(|_| ok("good"));
    let world =
        World::with(&spec(&[slow.address, good.address], "attempts: 1, on: [connect, timeout], perTryTimeout: 3s", ""));
    let mut client = world.client();
    (0..2).for_each(|_| assert_eq!(client.get("/").body, "good"));
    assert_eq!((slow.count(), good.count()), (1, 2));
    // What may happen only once is not repeated: it is told that it took too long.
    let statuses: Vec<u16> = (0..2).map(|_| post(&world).status()).collect();
    assert!(statuses.contains(&504) && statuses.contains(&200), "{statuses:?}");
    assert_eq!(good.count(), 3);
}

#[test]
fn only_failures_that_are_wanted_are_tried_again() {
    let dies = Upstream::start(|_| Does::SaysAndCloses(String::new()));
    let good = Upstream::start(|_| ok("good"));
    let reserved = Port::reserve();
    let gone = reserved.address;
    let cases = [(dies.address, "on: [connect]", 502), (dies.address, "on: [reset]", 200)];
    for (address, on, wanted) in [cases[0], cases[1], (gone, "on: [reset]", 502), (gone, "on: [connect]", 200)] {
        let world = World::with(&spec(&[address, good.address], on, ""));
        let mut client = world.client();
        let worst = (0..4).map(|_| client.get("/").status()).max().unwrap();
        assert_eq!(worst, wanted, "{on}");
    }
}

#[test]
fn tries_are_spaced_and_retry_after_is_passed_on() {
    let times = Arc::new(std::sync::Mutex::new(Vec::new()));
    let noted = Arc::clone(&times);
    let busy = Upstream::start(move |_| {
        noted.lock().unwrap().push(Instant::now());
        Does::Says("HTTP/1.1 503 No\r\nRetry-After: 77\r\nContent-Length: 0\r\n\r\n".to_owned())
    });
    let world = World::with(&spec(&[busy.address], "attempts: 4, statuses: [503], backoff: 200ms, maxBackoff: 5s", ""));
    let began = Instant::now();
    let answer = world.client().get("/");
    assert_eq!((answer.status(), answer.field("retry-after")), (503, Some("77")));
    assert_eq!(answer.field("x-outrigger-failure"), None, "the answer is the application's");
    assert_eq!(times.lock().unwrap().len(), 5);
    // The mean of all waits together is 1.5 s; a fiftieth of that is very unlikely.
    assert!(began.elapsed() > Duration::from_millis(30), "{:?}", began.elapsed());
    assert_eq!(world.metric(&format!("outrigger_proxy_retries_total{ALL}")), 4);
}

#[test]
fn a_client_that_leaves_between_tries_is_no_trouble() {
    let busy = Upstream::start(|_| Does::Says("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n".to_owned()));
    let world =
        World::with(&spec(&[busy.address], "attempts: 10, statuses: [503], backoff: 300ms, maxBackoff: 600ms", ""));
    for _ in 0..10 {
        world.client().send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    eventually("their end", || world.metric(&format!("outrigger_proxy_requests_active{ALL}")) == 0);
    assert_eq!(world.client().get("/x").field("host"), None);
}

#[test]
fn the_first_answer_of_two_is_taken() {
    let slow = Upstream::start(|_| Does::Waits(Duration::from_secs(50)));
    let good = Upstream::start(|_| ok("good"));
    // A good one that dawdles as long as this would be hedged, too.
    let world = World::with(&spec(&[slow.address, good.address], "attempts: 0, hedgeAfter: 3s", ""));
    let mut client = world.client();
    for _ in 0..4 {
        assert_eq!(client.get("/").body, "good");
    }
    assert_eq!((slow.count(), good.count()), (2, 4));
    let (made, won) = ("outrigger_proxy_hedges_total", "outrigger_proxy_hedges_won_total");
    assert_eq!((world.metric(&format!("{made}{ALL}")), world.metric(&format!("{won}{ALL}"))), (2, 2));
    let active = |world: &World| -> u64 {
        let active = "outrigger_proxy_backend_requests_active";
        let of = |address| world.metric(&format!("{active}{{backend=\"app\",endpoint=\"{address}\"}}"));
        [slow.address, good.address].into_iter().map(of).sum()
    };
    // The client has the answer's last byte before the books are closed.
    eventually("the books' closing: losers are not counted any more", || active(&world) == 0);

    // Never what may happen only once.
    let world = World::with(&spec(&[slow.address, good.address], "attempts: 0, hedgeAfter: 50ms", ""));
    let before = slow.count() + good.count();
    let mut waiting = [world.client(), world.client()];
    for client in &mut waiting {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
    }
    eventually("both", || slow.count() + good.count() == before + 2);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!((world.metric(&format!("{made}{ALL}")), slow.count() + good.count()), (0, before + 2));
    eventually("the good one's end", || active(&world) == 1);
}

#[test]
fn a_hedge_saves_a_first_try_that_fails_and_the_first_wins_if_faster() {
    // Each round one of them comes first; both wait until both were asked. Then one breaks, and the other answers.
    let (asked, broken) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let both = |asked: &AtomicUsize| {
        let round = asked.fetch_add(1, Ordering::Relaxed) / 2;
        eventually("both tries", || asked.load(Ordering::Relaxed) >= 2 * round + 2);
        round
    };
    let (counter, breaks) = (Arc::clone(&asked), Arc::clone(&broken));
    let dies = Upstream::start(move |_| {
        both(&counter);
        breaks.fetch_add(1, Ordering::Relaxed);
        Does::SaysAndCloses(String::new())
    });
    let (counter, breaks) = (Arc::clone(&asked), Arc::clone(&broken));
    let late = Upstream::start(move |_| {
        let round = both(&counter);
        eventually("the other's end", || breaks.load(Ordering::Relaxed) > round);
        std::thread::sleep(Duration::from_millis(300));
        ok("late")
    });
    let world = World::with(&spec(&[dies.address, late.address], "attempts: 0, hedgeAfter: 50ms", ""));
    for _ in 0..2 {
        assert_eq!(world.client().get("/").body, "late");
    }
    assert_eq!((dies.count(), late.count()), (2, 2));
    // The client has the answer's last byte before the books are closed.
    eventually("the end of both", || world.metric(&format!("outrigger_proxy_requests_active{ALL}")) == 0);
}

#[test]
fn requests_wait_for_room_in_order_and_not_for_ever() {
    let release = Arc::new(AtomicBool::new(false));
    let go = Arc::clone(&release);
    let upstream = Upstream::start(move |seen| {
        std::thread::sleep(Duration::from_millis(20));
        if seen.line().contains("slow") {
            eventually("the word", || go.load(Ordering::Relaxed));
        }
        ok("done")
    });
    let limits = "  maxRequests: 1\n  limits: {pending: 3, pendingTimeout: 6s}\n";
    let world = World::with(&spec(&[upstream.address], "attempts: 0", limits));
    let mut clients: Vec<_> = (0..4).map(|_| world.client()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    clients.iter_mut().for_each(|client| assert_eq!(client.answer().body, "done"));
    // One that takes longer than the others may wait; one too many is refused at once.
    let mut slow = world.client();
    slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the slow one", || upstream.count() == 5);
    for client in &mut clients[..3] {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    eventually("three that wait", || world.metric("outrigger_proxy_backend_pending{backend=\"app\"}") == 3);
    let refused = world.client().get("/");
    assert_eq!((refused.status(), refused.field("x-outrigger-failure")), (503, Some("overflow")));
    for client in &mut clients[..3] {
        let answer = client.answer();
        assert_eq!((answer.status(), answer.field("x-outrigger-failure")), (503, Some("pending_timeout")));
    }
    release.store(true, Ordering::Relaxed);
    assert_eq!(slow.answer().body, "done");
    assert_eq!(world.metric("outrigger_proxy_backend_pending_timeouts_total{backend=\"app\"}"), 3);
    assert_eq!(world.metric("outrigger_proxy_backend_overflows_total{backend=\"app\"}"), 1);
    assert_eq!(upstream.count(), 5);
}

#[test]
fn no_more_connections_than_allowed() {
    let upstream = Upstream::start(|_| {
        std::thread::sleep(Duration::from_millis(10));
        ok("done")
    });
    for limits in ["endpointConnections: 2", "connections: 2", "endpointRequests: 2"] {
        let before = upstream.connections.load(Ordering::Relaxed);
        let limits = format!("  limits: {{{limits}, pending: 100, pendingTimeout: 60s}}\n");
        let world = World::with(&spec(&[upstream.address], "attempts: 0", &limits));
        let mut clients: Vec<_> = (0..20).map(|_| world.client()).collect();
        for client in &mut clients {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        }
        let connections =
            format!("outrigger_proxy_backend_connections{{backend=\"app\",endpoint=\"{}\"}}", upstream.address);
        assert!(world.metric(&connections) <= 2);
        clients.iter_mut().for_each(|client| assert_eq!(client.answer().body, "done"));
        assert!(upstream.connections.load(Ordering::Relaxed) - before <= 2, "{limits}");
    }
}

#[test]
fn a_body_that_came_while_its_request_waited_goes_on() {
    let (began, go_on) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (counted, told) = (Arc::clone(&began), Arc::clone(&go_on));
    let upstream = Upstream::start(move |seen| {
        counted.fetch_add(1, Ordering::Relaxed);
        if seen.line().contains("first") {
            eventually("the word to go on", || told.load(Ordering::Relaxed));
        }
        ok(&String::from_utf8_lossy(&seen.body))
    });
    // HTTP/2 is spoken by another proxy.
    let inner = World::simple(&[upstream.address]);
    for (address, more) in [(upstream.address, ""), (inner.address(), "  http2: true\n")] {
        began.store(0, Ordering::Relaxed);
        go_on.store(false, Ordering::Relaxed);
        let bounds = "  maxRequests: 1\n  limits: {pending: 5, pendingTimeout: 1m}\ntimeouts: {body: 5s}\n";
        let world = World::with(&simple_spec(&[address], &format!("{more}{bounds}workers: 1\n")));
        let mut first = world.client();
        first.send("GET /first HTTP/1.1\r\nHost: h\r\n\r\n");
        eventually("the first request", || began.load(Ordering::Relaxed) == 1);
        let mut second = world.client();
        second.send("POST /second HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\nab");
        eventually("its place", || world.metric("outrigger_proxy_backend_pending{backend=\"app\"}") == 1);
        second.send("cdef");
        // Nothing comes any more when the connection of the first is free.
        thread::sleep(Duration::from_millis(200));
        go_on.store(true, Ordering::Relaxed);
        assert_eq!(first.answer().status(), 200);
        let answer = second.answer();
        assert_eq!((answer.status(), answer.body.as_str()), (200, "abcdef"));
    }
}
