//! The ledger against the truth: time that is put into one place shows up in its phase and nowhere else, wherever the
//! ledger is shown.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use crate::harness::{Client, Port, World, eventually, simple_spec};
use crate::wire::{Came, DATA, HEADERS, WHOLE, Wire, frame, get, post, request};

const DELAY: Duration = Duration::from_millis(60);

/// Who dawdles.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Slow {
    /// Between connecting and the first byte.
    FirstByte,
    Head,
    RequestBody,
    App,
    AnswerBody,
    Reader,
}

impl Slow {
    fn phase(self) -> &'static str {
        match self {
            Slow::FirstByte => "accept",
            Slow::Head => "parse",
            Slow::RequestBody => "send",
            Slow::App => "app",
            Slow::AnswerBody => "body",
            Slow::Reader => "write",
        }
    }

    /// Whether it is over when the answer's head is written.
    fn is_early(self) -> bool {
        !matches!(self, Slow::AnswerBody | Slow::Reader)
    }
}

const LARGE: usize = 16 << 20;

fn serve(mut stream: &TcpStream, slow: Slow) {
    let mut got = Vec::new();
    let mut buffer = [0; 4096];
    // The body is `body`, or there is none.
    let whole = |got: &[u8]| {
        let text = String::from_utf8_lossy(got);
        text.split_once("\r\n\r\n").is_some_and(|(head, rest)| !head.contains("ength: 4") || rest.len() == 4)
    };
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        got.extend_from_slice(&buffer[..length]);
        if !whole(&got) {
            continue;
        }
        got.clear();
        if slow == Slow::App {
            thread::sleep(DELAY);
        }
        let body = if slow == Slow::Reader { vec![b'x'; LARGE] } else { b"body".to_vec() };
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        let (first, rest) = body.split_at(body.len() / 2);
        let _ = stream.write_all(first);
        if slow == Slow::AnswerBody {
            thread::sleep(DELAY);
        }
        let _ = stream.write_all(rest);
    }
}

fn ask(world: &World, slow: Slow) -> String {
    let mut client = Client::connect(world.address());
    let wait = |at: Slow| {
        if slow == at {
            thread::sleep(DELAY);
        }
    };
    wait(Slow::FirstByte);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nX-Outrigger-Timing: 1\r\n");
    wait(Slow::Head);
    client.send("Content-Length: 4\r\n\r\nbo");
    wait(Slow::RequestBody);
    client.send("dy");
    wait(Slow::Reader);
    client.answer().field("server-timing").unwrap().to_owned()
}

#[test]
fn a_delay_shows_up_where_it_was() {
    for slow in [Slow::FirstByte, Slow::Head, Slow::RequestBody, Slow::App, Slow::AnswerBody, Slow::Reader] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || serve(&stream, slow));
            }
        });
        let world = World::with(&simple_spec(&[address], "accessLog: {path: ROOT/log}\n"));
        let phase = slow.phase();
        let least = DELAY.as_secs_f64() * 0.9e6;
        // The machine may dawdle, too, anywhere, and eat up a part of the delay: once it must be seen that it did not.
        // No more often than the slowest are kept.
        let mut proved = 0.0;
        let alone = (1..=16).any(|count| {
            let timing = ask(&world, slow);
            let mut good = true;
            if slow.is_early() {
                let shown = timing.split(", ").find_map(|part| part.strip_prefix(phase)?.strip_prefix(";dur="));
                let shown: f64 = shown.unwrap_or_else(|| panic!("no {phase} in {timing}")).parse().unwrap();
                good &= shown * 1000.0 >= least;
            }
            let mut lines = Vec::new();
            eventually("the line", || {
                let text = std::fs::read_to_string(world.path("log")).unwrap_or_default();
                lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()).collect();
                lines.len() == count
            });
            let line = lines[count - 1].as_object().unwrap();
            let of = |name: &str| line.get(&format!("{name}_us")).and_then(serde_json::Value::as_f64).unwrap_or(0.0);
            // Phases follow one another without gaps.
            let total = line["duration_us"].as_f64().unwrap();
            proved = total;
            let names = dataplane::ledger::NAMES;
            let sum: f64 = names.iter().map(|name| of(name)).sum();
            assert!((sum - total).abs() <= 2.0 + names.len() as f64 / 10.0, "{line:?}");
            good && of(phase) >= least && names.iter().all(|name| *name == phase || of(name) < least / 2.0)
        });
        assert!(alone, "{slow:?}: the delay is not in its phase, or in others, too: {}", world.ask("/trace"));
        let page = world.ask("/metrics");
        let sum = page.lines().find_map(|line| {
            line.strip_prefix(&format!("outrigger_proxy_phase_duration_seconds_sum{{phase=\"{phase}\"}} "))
        });
        assert!(sum.unwrap().parse::<f64>().unwrap() >= least / 1e6, "{page}");
        // Among the slowest is the request that has shown it: others may have been slower for other reasons.
        let slowest = world.ask("/trace");
        let row = slowest.lines().find_map(|line| {
            let (total, phases) = line.split_once("ms  ")?;
            let total: f64 = total.split_whitespace().last()?.parse().ok()?;
            ((total * 1000.0 - proved).abs() <= 2.0).then_some(phases)
        });
        assert!(row.is_some_and(|phases| phases.starts_with(phase)), "{proved} us in {slowest}");
    }
}

/// The only line of the log, and the phase that took the most.
fn line_of(world: &World) -> (serde_json::Value, &'static str) {
    let mut line = None;
    eventually("the line", || {
        let text = std::fs::read_to_string(world.path("log")).unwrap_or_default();
        line = text.lines().next_back().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        line.is_some()
    });
    let line = line.unwrap();
    let of = |name: &str| line.get(format!("{name}_us")).and_then(serde_json::Value::as_f64).unwrap_or(0.0);
    let names = dataplane::ledger::NAMES;
    let most = names.into_iter().max_by(|a, b| of(a).total_cmp(&of(b))).unwrap();
    (line, most)
}

/// Says half of an answer to `/half`, and nothing else to anybody, nor reads on.
fn dead_end() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut streams = Vec::new();
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut head = [0; 512];
            if matches!(stream.read(&mut head), Ok(5..)) && head[4..].starts_with(b"/half") {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbo");
            }
            streams.push(stream);
        }
    });
    address
}

#[test]
fn what_never_came_was_waited_for_where_it_was_missing() {
    let app = dead_end();
    let reserved = Port::reserve();
    let refused = reserved.address;
    let spec = simple_spec(&[app], "").replace("endpoints:", "maxRequests: 2\n  limits: {pending: 9}\n  endpoints:");
    let bounded = spec.replace("- name: all\n", "- name: all\n  timeouts: {request: 600ms}\n");
    let again = "  retries: {backoff: 1m, maxBackoff: 1m}\n  timeouts: {request: 600ms}\n";
    let again = simple_spec(&[refused], "").replace("- name: all\n", &format!("- name: all\n{again}"));
    let body = "timeouts: {body: 600ms, head: 600ms}\n";
    let rows: &[(&str, &str, &str, &str, u16)] = &[
        ("app", &bounded, "", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 504),
        ("body", &bounded, "", "GET /half HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        ("pool", &again, "", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 504),
        ("send", &bounded, "", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo", 408),
        ("send", &spec, body, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo", 408),
        ("parse", &spec, body, "GET / HTTP/1.1\r\nHost: a\r\n", 408),
    ];
    for (phase, spec, more, request, status) in rows {
        let world = World::with(&format!("{spec}{more}accessLog: {{path: ROOT/log}}\n"));
        let mut client = world.client();
        client.send(request);
        let (line, most) = line_of(&world);
        assert_eq!((most, line["http.response.status_code"].as_u64()), (*phase, Some(u64::from(*status))), "{request}");
    }
    // The same of a stream.
    for (phase, request, status) in [("app", get(1), 504), ("send", post(1), 408)] {
        let world = World::with(&format!("{bounded}accessLog: {{path: ROOT/log}}\n"));
        let mut wire = Wire::connect(world.address(), &[]);
        wire.send(&request);
        let (line, most) = line_of(&world);
        assert_eq!((most, line["http.response.status_code"].as_u64()), (phase, Some(status)));
    }
    // Two are in flight, the third waits for room; then a client that does not wait for its answer.
    let world =
        World::with(&format!("{spec}accessLog: {{path: ROOT/log}}\n").replace("9}", "9, pendingTimeout: 600ms}"));
    let ask = |_| {
        let mut client = world.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        thread::sleep(DELAY);
        client
    };
    let mut clients: Vec<Client> = (0..3).map(ask).collect();
    assert_eq!(line_of(&world).1, "pool");
    std::fs::write(world.path("log"), "").unwrap();
    drop(clients.remove(0));
    assert_eq!(line_of(&world).1, "app");
}

#[test]
fn a_backend_that_does_not_take_the_body_is_the_one_that_failed() {
    let app = dead_end();
    for multiplexed in [false, true] {
        let world = World::with(&simple_spec(&[app], "timeouts: {body: 500ms}\naccessLog: {path: ROOT/log}\n"));
        if multiplexed {
            let mut wire = Wire::connect(world.address(), &[]);
            wire.send(&frame(HEADERS, WHOLE, 1, &request("POST", "/", &[])));
            // Until the kernel takes no more of it.
            loop {
                for _ in 0..3 {
                    wire.send(&frame(DATA, 0, 1, &[b'x'; 16_000]));
                }
                let came = wire.until("a window or an answer", |came| {
                    matches!(came, Came::Window(1, _)) || came.status().is_some()
                });
                if let Came::Head(_, text, _) = came {
                    assert!(text.contains(":status: 504\n") && text.contains("backend_timeout"), "{text}");
                    break;
                }
            }
        } else {
            let mut client = world.client();
            client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n");
            let mut writer = client.stream.get_ref().try_clone().unwrap();
            let pushes = thread::spawn(move || while writer.write_all(&[b'x'; 16_000]).is_ok() {});
            let answer = client.answer();
            assert_eq!((answer.status(), answer.field("x-outrigger-failure")), (504, Some("backend_timeout")));
            drop(client);
            pushes.join().unwrap();
        }
        assert_eq!(line_of(&world).1, "send");
        let failures = format!("outrigger_proxy_backend_failures_total{{backend=\"app\",endpoint=\"{app}\"}}");
        assert_eq!(world.metric(&failures), 1);
    }
}

#[test]
fn connecting_is_not_the_application() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // One connection may wait; further ones are not answered and ask again after a second (RFC 6298 §2.1).
    rustix::net::listen(&listener, 0).unwrap();
    let address = listener.local_addr().unwrap();
    let waiting: Vec<TcpStream> = (0..1).map(|_| TcpStream::connect(address).unwrap()).collect();
    let world = World::with(&simple_spec(&[address], "accessLog: {path: ROOT/log}\n"));
    let taker = thread::spawn(move || {
        // The proxy's first attempt has found no room: it is in state SYN_SENT (proc_pid_net(5)).
        let wanted = format!("0100007F:{:04X} 02", address.port());
        eventually("the proxy's attempt", || std::fs::read_to_string("/proc/net/tcp").unwrap().contains(&wanted));
        rustix::net::listen(&listener, 100).unwrap();
        loop {
            let (stream, _) = listener.accept().unwrap();
            if waiting.iter().any(|one| one.local_addr().unwrap() == stream.peer_addr().unwrap()) {
                continue;
            }
            serve(&stream, Slow::Head);
            return;
        }
    });
    let began = std::time::Instant::now();
    let timing = ask(&world, Slow::App);
    let all = began.elapsed().as_secs_f64() * 1e3;
    let phase = |name: &str| {
        let shown = timing.split(", ").find_map(|part| part.strip_prefix(name)?.strip_prefix(";dur="));
        shown.map_or(0.0, |shown| shown.parse::<f64>().unwrap())
    };
    assert!(phase("connect") >= 900.0 && phase("connect") + phase("app") <= all, "{timing} of {all} ms");
    drop(world);
    taker.join().unwrap();
}
