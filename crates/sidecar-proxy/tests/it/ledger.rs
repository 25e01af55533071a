//! The ledger against the truth: time that is put into one place shows up in its phase and nowhere else, wherever the
//! ledger is shown.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use crate::harness::{Client, World, eventually, simple_spec};

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

#[test]
fn connecting_is_not_the_application() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // One connection may wait; further ones are not answered and ask again after a second (RFC 6298 §2.1).
    rustix::net::listen(&listener, 0).unwrap();
    let address = listener.local_addr().unwrap();
    let waiting: Vec<TcpStream> = (0..1).map(|_| TcpStream::connect(address).unwrap()).collect();
    let world = World::with(&simple_spec(&[address], "accessLog: {path: ROOT/log}\n"));
    let taker = thread::spawn(move || {
        thread::sleep(DELAY);
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
    let timing = ask(&world, Slow::App);
    let phase = |name: &str| {
        let shown = timing.split(", ").find_map(|part| part.strip_prefix(name)?.strip_prefix(";dur="));
        shown.map_or(0.0, |shown| shown.parse::<f64>().unwrap())
    };
    assert!(phase("connect") >= DELAY.as_secs_f64() * 1e3 && phase("connect") > 2.0 * phase("app"), "{timing}");
    drop(world);
    taker.join().unwrap();
}
