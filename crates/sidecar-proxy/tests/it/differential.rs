//! The same bytes through nginx, HAProxy and us, each before a backend that records what reaches it. Whatever we pass on must
//! read the same to every reader, strict or lax, and must be what the others pass on if they pass it on at all.
//!
//! `cargo test -p sidecar-proxy --test it differential -- --ignored --nocapture` prints the table of outcomes.

use std::fmt::Write as _;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::harness::{World, eventually, simple_spec};
use crate::wire;

mod corpus;
mod reader;

use corpus::{Case, cases};
use reader::{Message, Reader, read};

/// For the first byte of an answer, which never comes where more is waited for.
const FIRST: Duration = Duration::from_secs(10);
/// For the rest of it.
const QUIET: Duration = Duration::from_millis(150);

/// A backend that answers every request it reads strictly, and keeps the bytes of every connection.
struct Recorder {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Recorder {
    fn start() -> Recorder {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let kept = Arc::clone(&seen);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let kept = Arc::clone(&kept);
                thread::spawn(move || record(stream, &kept));
            }
        });
        Recorder { address, seen }
    }

    fn take(&self) -> Vec<Vec<u8>> {
        let mut seen = self.seen.lock().unwrap();
        let taken = seen.iter().filter(|bytes| !bytes.is_empty()).cloned().collect();
        seen.iter_mut().for_each(Vec::clear);
        taken
    }
}

fn record(mut stream: TcpStream, seen: &Mutex<Vec<Vec<u8>>>) {
    let number = {
        let mut seen = seen.lock().unwrap();
        seen.push(Vec::new());
        seen.len() - 1
    };
    let (mut pending, mut piece) = (Vec::new(), [0; 4096]);
    while let Ok(length @ 1..) = stream.read(&mut piece) {
        seen.lock().unwrap()[number].extend_from_slice(&piece[..length]);
        pending.extend_from_slice(&piece[..length]);
        let (messages, rest) = read(&pending, Reader::STRICT);
        for message in messages {
            let body = if message.line.starts_with("HEAD ") { "" } else { "ok" };
            if write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{body}").is_err() {
                return;
            }
        }
        pending.drain(..pending.len() - rest);
    }
}

/// What became of a case.
#[derive(Debug)]
struct Outcome {
    /// Statuses the client saw.
    statuses: Vec<u16>,
    /// What reached the backend, by connection.
    raw: Vec<Vec<u8>>,
}

impl Outcome {
    fn messages(&self, reader: Reader) -> Vec<Message> {
        self.raw.iter().flat_map(|bytes| read(bytes, reader).0).collect()
    }

    fn summary(&self) -> String {
        let statuses: Vec<String> = self.statuses.iter().map(u16::to_string).collect();
        let what = match self.messages(Reader::STRICT).len() {
            0 if self.raw.is_empty() => "-".to_owned(),
            0 => "part".to_owned(),
            count => format!("{count} on"),
        };
        format!("{:8} {what:5}", statuses.join(","))
    }
}

struct Proxy {
    http1: SocketAddr,
    http2: SocketAddr,
    recorder: Recorder,
    _world: Option<World>,
    _child: Option<Killed>,
}

struct Killed(Child, #[allow(dead_code, reason = "goes with it")] tempfile::TempDir);

impl Drop for Killed {
    fn drop(&mut self) {
        // nginx's and HAProxy's are in the foreground and have no children here.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ours() -> Proxy {
    let recorder = Recorder::start();
    let world = World::with(&simple_spec(&[recorder.address], ""));
    let address = world.address();
    Proxy { http1: address, http2: address, recorder, _world: Some(world), _child: None }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// `None`, and said so, if the program is not installed.
fn peer(program: &str, config: impl Fn(u16, u16, SocketAddr, &Path) -> String, arguments: &[&str]) -> Option<Proxy> {
    if !Command::new(program).arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
    {
        println!("NOT RUN: {program} is not installed");
        return None;
    }
    let recorder = Recorder::start();
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (free_port(), free_port());
    let path = directory.path().join("config");
    std::fs::write(&path, config(one, two, recorder.address, directory.path())).unwrap();
    let mut command = Command::new(program);
    command.args(arguments).arg(&path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = Killed(command.spawn().unwrap(), directory);
    let (http1, http2) = (SocketAddr::from(([127, 0, 0, 1], one)), SocketAddr::from(([127, 0, 0, 1], two)));
    eventually("the peer", || TcpStream::connect(http1).is_ok() && TcpStream::connect(http2).is_ok());
    Some(Proxy { http1, http2, recorder, _world: None, _child: Some(child) })
}

fn nginx() -> Option<Proxy> {
    let config = |one: u16, two: u16, backend: SocketAddr, directory: &Path| {
        let root = directory.display();
        let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {root}/{name};"))
            .concat();
        format!(
            "daemon off; master_process off; pid {root}/pid; error_log /dev/null;\nevents {{}}\nhttp {{ access_log off; {paths}\nupstream app {{ server {backend}; keepalive 4; }}\nserver {{ listen 127.0.0.1:{one}; listen 127.0.0.1:{two} http2; location / {{ proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host; }} }} }}\n"
        )
    };
    peer("nginx", config, &["-e", "/dev/null", "-c"])
}

fn haproxy() -> Option<Proxy> {
    let config = |one: u16, two: u16, backend: SocketAddr, _: &Path| {
        format!(
            "global\n  maxconn 100\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 5s\n  timeout server 5s\nfrontend f\n  bind 127.0.0.1:{one}\n  bind 127.0.0.1:{two} proto h2\n  default_backend b\nbackend b\n  server s {backend}\n"
        )
    };
    peer("haproxy", config, &["-db", "-f"])
}

fn ask(proxy: &Proxy, case: &Case) -> Outcome {
    proxy.recorder.take();
    let (address, bytes) = match case {
        Case::Http1(bytes) => (proxy.http1, bytes.to_vec()),
        Case::Http2(fields, body) => {
            let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let end = if body.is_none() { wire::END } else { 0 };
            let mut bytes = [wire::PREFACE, &wire::settings(&[])].concat();
            bytes.extend(wire::frame(wire::HEADERS, wire::WHOLE | end, 1, &wire::block(&fields)));
            if let Some(body) = body {
                bytes.extend(wire::frame(wire::DATA, wire::END, 1, body.as_bytes()));
            }
            (proxy.http2, bytes)
        }
    };
    let mut stream = TcpStream::connect(address).unwrap();
    // Somebody who refuses early may have closed already.
    let _ = stream.write_all(&bytes);
    let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        stream.set_read_timeout(Some(if answer.is_empty() { FIRST } else { QUIET })).unwrap();
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => answer.extend_from_slice(&piece[..length]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    drop(stream);
    thread::sleep(QUIET / 3);
    let statuses = match case {
        Case::Http1(_) => {
            let text = String::from_utf8_lossy(&answer).into_owned();
            let found = text.split("HTTP/1.").skip(1).filter_map(|rest| rest.get(2..5)?.parse().ok());
            found.collect()
        }
        Case::Http2(..) => Vec::new(),
    };
    Outcome { statuses, raw: proxy.recorder.take() }
}

fn ask_all(proxy: Option<Proxy>) -> Option<Vec<Outcome>> {
    let proxy = proxy?;
    Some(cases().iter().map(|(_, case)| ask(&proxy, case)).collect())
}

#[test]
#[ignore = "tells cases apart by time, which a busy machine does not keep: run it by itself"]
fn what_we_pass_on_reads_the_same_to_everybody() {
    let others = [thread::spawn(|| ask_all(nginx())), thread::spawn(|| ask_all(haproxy()))];
    let ours = ask_all(Some(ours())).unwrap();
    let others = others.map(|thread| thread.join().unwrap());
    let mut table = format!("{:58} {:14} {:14} {:14}\n", "", "us", "nginx", "HAProxy");
    let mut problems = Vec::new();
    for (index, (name, _)) in cases().iter().enumerate() {
        let mine = &ours[index];
        let _ = write!(table, "{name:58} {}", mine.summary());
        let messages = mine.messages(Reader::STRICT);
        for reader in Reader::LAX {
            let read = mine.messages(reader);
            if read != messages {
                problems.push(format!("{name}: {reader:?} reads {read:?} where a strict one reads {messages:?}"));
            }
        }
        for (peer, outcomes) in ["nginx", "HAProxy"].into_iter().zip(&others) {
            let Some(outcome) = outcomes.as_ref().map(|all| &all[index]) else {
                let _ = write!(table, " {:14}", "not run");
                continue;
            };
            let _ = write!(table, " {}", outcome.summary());
            let theirs = outcome.messages(Reader::STRICT);
            // On a busy machine a request may arrive in the next case's time: then there is nothing to compare.
            let settled = |one: &Outcome, count| one.statuses.is_empty() || one.statuses.len() == count;
            let settled = settled(mine, messages.len()) && settled(outcome, theirs.len());
            if settled && !messages.is_empty() && !theirs.is_empty() && !alike(&messages, &theirs) {
                problems.push(format!("{name}: we pass on {messages:?}, {peer} {theirs:?}"));
            }
        }
        table.push('\n');
        let hidden = messages.iter().any(|message| message.line.contains("/hidden"));
        if hidden && !name.contains("pipelined") {
            problems.push(format!("{name}: the hidden request reached the backend: {messages:?}"));
        }
    }
    println!("{table}");
    let good = ours.iter().filter(|outcome| !outcome.messages(Reader::STRICT).is_empty()).count();
    assert!(good >= 12, "{good} cases were passed on: the test tests nothing");
    assert!(problems.is_empty(), "{problems:#?}");
}

/// As many requests, of the same methods, with the same bodies.
fn alike(a: &[Message], b: &[Message]) -> bool {
    let essence = |message: &Message| {
        let method = message.line.split(' ').next().unwrap_or_default().to_owned();
        (method, message.body.clone())
    };
    // By connection, and those have no order.
    let sorted = |messages: &[Message]| {
        let mut all: Vec<_> = messages.iter().map(essence).collect();
        all.sort();
        all
    };
    sorted(a) == sorted(b)
}
