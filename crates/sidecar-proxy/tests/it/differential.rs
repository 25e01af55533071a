//! The same bytes through nginx, HAProxy, Envoy (where `.ci/kubectl` could bring it) and us, each before a backend that records what reaches it. Whatever we pass on must
//! read the same to every reader, strict or lax, and must be what the others pass on if they pass it on at all.
//!
//! Every case has a listener and a backend of its own, so that what comes late cannot count for another. It is over when the
//! proxy closes the client's connection, which its timeouts make it do; what reached the backends is complete when the proxy
//! is gone and all its connections to them have ended.
//!
//! `cargo test -p sidecar-proxy --test it differential -- --nocapture` prints the table of outcomes.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use crate::harness::{PATIENCE, World, eventually};
use crate::wire;

mod corpus;
mod reader;

use corpus::{Case, cases};
use reader::{Message, Reader, read};

/// A client that says no more is closed by all of them after this many seconds: more than a busy machine takes to send a
/// case's bytes.
const LIMIT: u32 = 4;

/// A backend that answers every request it reads strictly, and keeps the bytes of every connection.
struct Recorder {
    address: SocketAddr,
    thread: thread::JoinHandle<Vec<Vec<u8>>>,
}

impl Recorder {
    fn start() -> Recorder {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let thread = thread::spawn(move || {
            let mut connections = Vec::new();
            for stream in listener.incoming().map_while(Result::ok) {
                // `finish` comes last, and from nobody else's address.
                if stream.peer_addr().is_ok_and(|peer| peer.ip() == LAST) {
                    break;
                }
                connections.push(thread::spawn(move || record(stream)));
            }
            connections.into_iter().map(|one| one.join().unwrap()).filter(|bytes| !bytes.is_empty()).collect()
        });
        Recorder { address, thread }
    }

    /// By connection, when the proxy is gone. What it had connected is accepted before the connection made here, and has ended.
    fn finish(self) -> Vec<Vec<u8>> {
        let socket =
            rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None).unwrap();
        rustix::net::bind(&socket, &SocketAddr::from((LAST, 0))).unwrap();
        rustix::net::connect(&socket, &self.address).unwrap();
        self.thread.join().unwrap()
    }
}

const LAST: std::net::Ipv4Addr = std::net::Ipv4Addr::new(127, 0, 0, 99);

fn record(mut stream: TcpStream) -> Vec<u8> {
    let (mut all, mut pending, mut piece) = (Vec::new(), Vec::new(), [0; 4096]);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    while let Ok(length @ 1..) = stream.read(&mut piece) {
        all.extend_from_slice(&piece[..length]);
        pending.extend_from_slice(&piece[..length]);
        let (messages, rest) = read(&pending, Reader::STRICT);
        for message in messages {
            let body = if message.line.starts_with("HEAD ") { "" } else { "ok" };
            // Somebody who has gone may still have sent something.
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{body}");
        }
        pending.drain(..pending.len() - rest);
    }
    all
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

/// Listens for each case.
struct Proxy {
    listeners: Vec<SocketAddr>,
    recorders: Vec<Recorder>,
    process: Process,
}

/// Ends it when dropped.
enum Process {
    Ours(#[allow(dead_code, reason = "lives as long")] World),
    Peer(Child, #[allow(dead_code, reason = "lives as long")] tempfile::TempDir),
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Process::Peer(child, _) = self {
            // All are in the foreground and have no children here.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn recorders() -> Vec<Recorder> {
    cases().iter().map(|_| Recorder::start()).collect()
}

fn ours() -> Proxy {
    let recorders = recorders();
    let (mut listeners, mut routes, mut backends) = (String::new(), String::new(), String::new());
    for (index, recorder) in recorders.iter().enumerate() {
        // No two are alike, not even with port 0.
        let _ = writeln!(listeners, "- {{name: l{index}, address: \"127.1.0.{}:0\"}}", index + 1);
        let _ = writeln!(routes, "- {{name: r{index}, listeners: [l{index}], backends: [{{name: b{index}}}]}}");
        let _ = writeln!(backends, "- {{name: b{index}, endpoints: [\"{}\"]}}", recorder.address);
    }
    let timeouts = format!("timeouts: {{head: {LIMIT}s, body: {LIMIT}s, idle: {LIMIT}s, tunnel: {LIMIT}s}}\n");
    let mut world = World::with(&format!("listeners:\n{listeners}routes:\n{routes}backends:\n{backends}{timeouts}"));
    let listeners = (0..recorders.len()).map(|index| world.listener(&format!("l{index}"))).collect();
    Proxy { listeners, recorders, process: Process::Ours(world) }
}

/// One listener of a peer: where, whether it is for HTTP/2, and its backend.
type Place = (SocketAddr, bool, SocketAddr);

/// `None`, and said so, if the program is not installed.
fn peer(program: &str, config: impl Fn(&[Place], &Path) -> String, arguments: &[&str]) -> Option<Proxy> {
    let mut version = Command::new(program);
    version.arg(if program.ends_with("envoy") { "--version" } else { "-v" });
    if !version.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        println!("NOT RUN: {program} is not installed");
        return None;
    }
    let recorders = recorders();
    let directory = tempfile::tempdir().unwrap();
    // All are held until all are known: otherwise one could come twice. In between, nobody else is given one of this address.
    let held: Vec<TcpListener> = cases().iter().map(|_| TcpListener::bind((PEERS, 0)).unwrap()).collect();
    let listeners: Vec<SocketAddr> = held.iter().map(|one| one.local_addr().unwrap()).collect();
    drop(held);
    let is_http2 = |case: &Case| matches!(case, Case::Http2(..));
    let places: Vec<Place> = (cases().iter().zip(&listeners).zip(&recorders))
        .map(|(((_, case), listener), recorder)| (*listener, is_http2(case), recorder.address))
        .collect();
    // Envoy goes by the name's end.
    let path = directory.path().join("config.yaml");
    std::fs::write(&path, config(&places, directory.path())).unwrap();
    let mut command = Command::new(program);
    command.args(arguments).arg(&path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut process = Process::Peer(command.spawn().unwrap(), directory);
    eventually("the peer", || {
        if let Process::Peer(child, _) = &mut process {
            assert!(child.try_wait().unwrap().is_none(), "{program} has ended");
        }
        listeners.iter().all(|listener| TcpStream::connect(listener).is_ok())
    });
    Some(Proxy { listeners, recorders, process })
}

const PEERS: std::net::Ipv4Addr = std::net::Ipv4Addr::new(127, 0, 0, 98);

fn nginx() -> Option<Proxy> {
    let config = |places: &[Place], directory: &Path| {
        let root = directory.display();
        let mut text = format!(
            "daemon off; master_process off; pid {root}/pid; error_log /dev/null;\nevents {{ worker_connections 1000; }}\nhttp {{ access_log off; keepalive_timeout {LIMIT}s; client_header_timeout {LIMIT}s; client_body_timeout {LIMIT}s; lingering_close off;\n"
        );
        for name in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
            let _ = writeln!(text, "{name}_temp_path {root}/{name};");
        }
        for (index, (listener, http2, backend)) in places.iter().enumerate() {
            let http2 = if *http2 { " http2" } else { "" };
            let _ = writeln!(
                text,
                "upstream b{index} {{ server {backend}; keepalive 4; }}\nserver {{ listen {listener}{http2}; location / {{ proxy_pass http://b{index}; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host; }} }}"
            );
        }
        text + "}\n"
    };
    peer("nginx", config, &["-e", "/dev/null", "-c"])
}

fn haproxy() -> Option<Proxy> {
    let config = |places: &[Place], _: &Path| {
        let mut text = format!(
            "global\n  maxconn 400\n  nbthread 1\ndefaults\n  mode http\n  timeout connect 8s\n  timeout server 8s\n  timeout client {LIMIT}s\n  timeout http-request {LIMIT}s\n  timeout http-keep-alive {LIMIT}s\n"
        );
        for (index, (listener, http2, backend)) in places.iter().enumerate() {
            let http2 = if *http2 { " proto h2" } else { "" };
            let _ = writeln!(
                text,
                "frontend f{index}\n  bind {listener}{http2}\n  default_backend b{index}\nbackend b{index}\n  server s {backend}"
            );
        }
        text
    };
    peer("haproxy", config, &["-db", "-f"])
}

fn envoy() -> Option<Proxy> {
    let config = |places: &[Place], _: &Path| {
        let (mut listeners, mut clusters) = (String::new(), String::new());
        let address =
            |at: &SocketAddr| format!("{{socket_address: {{address: {}, port_value: {}}}}}", at.ip(), at.port());
        let filters = "type.googleapis.com/envoy.extensions.filters";
        for (index, (listener, http2, backend)) in places.iter().enumerate() {
            let (listener, backend) = (address(listener), address(backend));
            let codec = if *http2 { "HTTP2" } else { "HTTP1" };
            let _ = writeln!(
                listeners,
                "  - name: l{index}
    address: {listener}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          '@type': {filters}.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: l{index}
          codec_type: {codec}
          stream_idle_timeout: {LIMIT}s
          request_headers_timeout: {LIMIT}s
          drain_timeout: 0.1s
          common_http_protocol_options: {{idle_timeout: {LIMIT}s}}
          route_config: {{virtual_hosts: [{{name: all, domains: ['*'], routes: [{{match: {{prefix: /}}, route: {{cluster: b{index}}}}}]}}]}}
          http_filters: [{{name: envoy.filters.http.router, typed_config: {{'@type': {filters}.http.router.v3.Router}}}}]"
            );
            let _ = writeln!(
                clusters,
                "  - {{name: b{index}, connect_timeout: 8s, load_assignment: {{cluster_name: b{index}, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {backend}}}}}]}}]}}}}"
            );
        }
        format!("static_resources:\n  listeners:\n{listeners}  clusters:\n{clusters}")
    };
    let brought = crate::harness::clients().join("envoy");
    let program = if brought.exists() { brought } else { "envoy".into() };
    let arguments = ["--disable-hot-restart", "--concurrency", "1", "--log-level", "off", "-c"];
    peer(&program.to_string_lossy(), config, &arguments)
}

/// Statuses that came back; over when the proxy has closed.
fn ask(address: SocketAddr, case: &Case) -> Vec<u16> {
    let bytes = match case {
        Case::Http1(bytes) => bytes.to_vec(),
        Case::Http2(fields, body) => {
            let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let end = if body.is_none() { wire::END } else { 0 };
            let mut bytes = [wire::PREFACE, &wire::settings(&[])].concat();
            bytes.extend(wire::frame(wire::HEADERS, wire::WHOLE | end, 1, &wire::block(&fields)));
            if let Some(body) = body {
                bytes.extend(wire::frame(wire::DATA, wire::END, 1, body.as_bytes()));
            }
            bytes
        }
    };
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // Somebody who refuses early may have closed already.
    let _ = stream.write_all(&bytes);
    let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
    // A reset is an end, too.
    while let Ok(length @ 1..) = stream.read(&mut piece) {
        answer.extend_from_slice(&piece[..length]);
    }
    match case {
        Case::Http1(_) => {
            let text = String::from_utf8_lossy(&answer).into_owned();
            text.split("HTTP/1.").skip(1).filter_map(|rest| rest.get(2..5)?.parse().ok()).collect()
        }
        Case::Http2(..) => Vec::new(),
    }
}

fn ask_all(proxy: Option<Proxy>) -> Option<Vec<Outcome>> {
    let Proxy { listeners, recorders, process } = proxy?;
    let clients: Vec<_> = (cases().into_iter().zip(listeners))
        .map(|((_, case), address)| thread::spawn(move || ask(address, &case)))
        .collect();
    let statuses: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    drop(process);
    let raw = recorders.into_iter().map(Recorder::finish);
    Some(statuses.into_iter().zip(raw).map(|(statuses, raw)| Outcome { statuses, raw }).collect())
}

#[test]
fn what_we_pass_on_reads_the_same_to_everybody() {
    // One after the other, because each has hundreds of connections.
    let ours = ask_all(Some(ours())).unwrap();
    let others = [ask_all(nginx()), ask_all(haproxy()), ask_all(envoy())];
    let mut table = format!("{:58} {:14} {:14} {:14} {:14}\n", "", "us", "nginx", "HAProxy", "Envoy");
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
        for (peer, outcomes) in ["nginx", "HAProxy", "Envoy"].into_iter().zip(&others) {
            let Some(outcome) = outcomes.as_ref().map(|all| &all[index]) else {
                let _ = write!(table, " {:14}", "not run");
                continue;
            };
            let _ = write!(table, " {}", outcome.summary());
            let theirs = outcome.messages(Reader::STRICT);
            if !messages.is_empty() && !theirs.is_empty() && !alike(&messages, &theirs) {
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
