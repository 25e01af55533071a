//! A whole worker on one thread: Unix sockets, a clock that goes on only by what is done, clients and applications that read
//! and write any number of bytes in any order. What happens depends on the script alone. Whatever the order: each request is
//! answered once, in turn and with its own answer; nothing that may happen once happens twice; no connection gets a request
//! after its application has ended it; and in the end nothing is left and the ledger adds up.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::backend::{self, Address, Backend, Found};
use crate::body::Body;
use crate::clock::SECOND;
use crate::h2::frame::{self, Code};
use crate::h2::session::Role;
use crate::h2::{Event, Session};
use crate::head::{self, Bounds};
use crate::plan::{Forwarded, Serves, Settings};
use crate::route::{Match, Path, Route, RouteCounters, Table};
use crate::sock;

mod ends;
mod gathering;
mod late;
mod parking;
mod replaced;
mod sharing;
mod surplus;

const BOUNDS: Bounds = Bounds { bytes: 8192, fields: 50 };

/// What is behind a worker.
struct Layout<'a> {
    /// Endpoints of each backend. What is asked for below `/N` is for backend N, modulo their number.
    backends: &'a [usize],
    settings: backend::Settings,
    /// Every route, before it is used.
    change: &'a dyn Fn(&mut Route),
}

impl Layout<'_> {
    fn simple(http2: bool) -> Layout<'static> {
        let settings = backend::Settings { http2, ..backend::Settings::default() };
        Layout { backends: &[1], settings, change: &|_| {} }
    }
}

/// Paths begin with one of so many numbers.
const ROUTES: usize = 4;

fn plan(directory: &std::path::Path, socket: &Arc<OwnedFd>, layout: &Layout<'_>) -> Plan {
    let mut apps = (0..).map(|app| format!("app{app}"));
    let backend = |(number, endpoints): (usize, &usize)| {
        let found = apps.by_ref().take(*endpoints).map(|name| Found::new(Address::Unix(directory.join(&name)), &name));
        let found: Vec<Found> = found.collect();
        Arc::new(Backend::new(&format!("backend{number}"), &found, layout.settings.clone(), 1, String::new()))
    };
    let backends: Vec<Arc<Backend>> = layout.backends.iter().enumerate().map(backend).collect();
    let route = |number: usize| {
        let mut route = Route {
            name: format!("route{number}"),
            filters: Vec::new(),
            targets: crate::route::Targets::plain([(number % backends.len(), 1)]),
            request_timeout: 0,
            backend_timeout: 60 * SECOND,
            retry: crate::retry::Retry { times: 2, ..crate::retry::Retry::default() },
            session: None,
            body_most: u64::MAX,
            connect: false,
            always_timing: false,
            counters: Arc::new([RouteCounters::default()]),
        };
        (layout.change)(&mut route);
        Arc::new(route)
    };
    let path = |number: usize| Some(Path::Prefix(format!("/{number}").into_bytes()));
    let table = (0..ROUTES).map(|number| (Match { path: path(number), ..Match::default() }, number));
    let listener = Listener {
        name: "in".to_owned(),
        address: String::new(),
        socket: Arc::downgrade(socket),
        outbound: false,
        tls: None,
        serves: Serves::Http(Table::new(table.collect())),
        http1: true,
        http2: true,
        announced: false,
        transparent: false,
    };
    Plan {
        room: None,
        listeners: vec![Arc::new(listener)],
        routes: (0..ROUTES).map(route).collect(),
        backends,
        settings: Settings {
            bounds: BOUNDS,
            connections_most: 0,
            head_timeout: 15 * SECOND,
            body_timeout: 60 * SECOND,
            idle_timeout: 75 * SECOND,
            tunnel_timeout: 3600 * SECOND,
            forwarded: Forwarded::Append,
            upgrade: true,
            refuse_dots: true,
            refuse_ambiguous: true,
        },
        log: None,
        tracing: None,
        crowd: None,
        personal: false,
        trusted: crate::filter::network::Networks::default(),
    }
}

/// One request of a script: its kind says how it is sent and answered.
#[derive(Clone, Copy, Debug)]
struct Ask {
    post: bool,
    chunked: bool,
    body: usize,
    answer: u8,
}

fn body_of(client: usize, number: usize, length: usize) -> Vec<u8> {
    (0..length).map(|n| b'a' + ((client * 7 + number * 3 + n) % 26) as u8).collect()
}

fn answer_to(path: &str, body: &[u8]) -> Vec<u8> {
    format!("{path} {} {}", body.len(), body.iter().map(|byte| u64::from(*byte)).sum::<u64>()).into_bytes()
}

#[derive(Debug, Default)]
struct Came {
    status: u16,
    body: Vec<u8>,
    whole: bool,
}

struct Client {
    stream: UnixStream,
    h2: Option<Session>,
    /// What is still to be sent.
    out: Vec<u8>,
    got: Vec<u8>,
    asks: Vec<Ask>,
    /// Of HTTP/2, by stream; the numbers are those of the asks.
    came: BTreeMap<usize, Came>,
    ended: bool,
}

impl Client {
    fn new(path: &std::path::Path, index: usize, asks: &[Ask], http2: bool) -> Client {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut session = Session::new(Role::Client, 8192, false);
        let mut out = Vec::new();
        for (number, ask) in asks.iter().enumerate() {
            let method = if ask.post { "POST" } else { "GET" };
            let body = if ask.post { body_of(index, number, ask.body) } else { Vec::new() };
            let framing = match (ask.post, ask.chunked) {
                (false, _) => String::new(),
                (true, false) => format!("Content-Length: {}\r\n", body.len()),
                (true, true) => "Transfer-Encoding: chunked\r\n".to_owned(),
            };
            let head = format!("{method} /{index}/{number}/{} HTTP/1.1\r\nHost: h\r\n{framing}\r\n", ask.answer);
            if http2 {
                let id = session.request(number as u32, head.as_bytes(), false, !ask.post);
                if ask.post {
                    session.send(id, [&body, b""], true);
                }
                continue;
            }
            out.extend_from_slice(head.as_bytes());
            if ask.post && ask.chunked {
                body.chunks(700).for_each(|piece| crate::body::chunk(piece, &mut out));
                out.extend_from_slice(b"0\r\nX-T: 1\r\n\r\n");
            } else {
                out.extend_from_slice(&body);
            }
        }
        let h2 = http2.then_some(session);
        Client { stream, h2, out, got: Vec::new(), asks: asks.to_vec(), came: BTreeMap::new(), ended: false }
    }

    /// Sends up to `most` bytes; whether anything went.
    fn write(&mut self, most: usize) -> bool {
        if let Some(session) = &mut self.h2 {
            self.out.append(&mut session.out);
        }
        let length = self.out.len().min(most);
        match self.stream.write(&self.out[..length]) {
            Ok(sent) => {
                self.out.drain(..sent);
                sent > 0
            }
            Err(_) => false,
        }
    }

    fn read(&mut self, most: usize) -> bool {
        let mut bytes = vec![0; most.max(1)];
        match self.stream.read(&mut bytes) {
            Ok(0) => !std::mem::replace(&mut self.ended, true),
            Ok(length) => {
                self.got.extend_from_slice(&bytes[..length]);
                self.take();
                true
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(_) => !std::mem::replace(&mut self.ended, true),
        }
    }

    /// Events of HTTP/2.
    fn take(&mut self) {
        let Some(session) = &mut self.h2 else { return };
        let mut at = 0;
        while at < self.got.len() {
            let Some((used, event)) = session.feed(&self.got[at..]).expect("the worker speaks HTTP/2") else { break };
            let frame = &self.got[at..at + used];
            at += used;
            let number = |stream: u32| stream as usize / 2;
            match event {
                Some(Event::Head { stream, end, status, .. }) => {
                    let came = Came { status, body: Vec::new(), whole: end };
                    assert!(self.came.insert(number(stream), came).is_none(), "one answer for each stream");
                }
                Some(Event::Data { stream, range, end }) => {
                    let came = self.came.get_mut(&number(stream)).expect("a head first");
                    assert!(!came.whole);
                    came.body.extend_from_slice(&frame[range.clone()]);
                    came.whole = end;
                    session.give_back(stream);
                }
                Some(Event::Trailers { stream }) => {
                    self.came.get_mut(&number(stream)).expect("a head first").whole = true
                }
                _ => {}
            }
        }
        self.got.drain(..at);
    }

    /// Answers in the order of the requests.
    fn answers(&self) -> BTreeMap<usize, Came> {
        if self.h2.is_some() {
            return self.came.iter().map(|(n, came)| (*n, Came { body: came.body.clone(), ..*came })).collect();
        }
        let (mut rest, mut found) = (&self.got[..], BTreeMap::new());
        while let Ok(Some(response)) = head::response(rest, &mut Vec::new(), BOUNDS, false) {
            let mut body = Body::new(response.length);
            let mut out = Vec::new();
            let input = &rest[response.size..];
            let passed = body.pass(input, false, &mut out).expect("a good answer");
            out.extend_from_slice(&input[passed.raw]);
            let whole = body.is_done() || matches!(body, Body::Close) && self.ended;
            found.insert(found.len(), Came { status: response.status, body: out, whole });
            rest = &input[passed.used..];
        }
        found
    }
}

/// What applications do besides what they should.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trouble {
    None,
    /// Connections are cut in the middle.
    Cut,
    /// The same, and over HTTP/2 streams are reset and refused, answers are short or none, and connections hang.
    Rough,
}

/// An application's side of a connection.
struct Server {
    stream: UnixStream,
    /// Whose application it is, of so many.
    backend: (usize, usize),
    /// Whole requests of HTTP/2 wait for a step that says what becomes of them.
    rough: bool,
    due: Vec<(u32, String, Vec<u8>)>,
    hangs: bool,
    got: Vec<u8>,
    out: Vec<u8>,
    /// It closes when everything has been written.
    closes: bool,
    /// It has ended its direction: no request may come any more.
    finished: bool,
    over: bool,
    h2: Option<Session>,
    /// Of HTTP/2: path and body so far.
    streams: BTreeMap<u32, (String, Vec<u8>)>,
}

impl Server {
    fn read(&mut self, seen: &mut Vec<String>, strict: bool) -> bool {
        let mut bytes = [0; 65_536];
        if self.hangs {
            return false;
        }
        match self.stream.read(&mut bytes) {
            Ok(0) => !std::mem::replace(&mut self.over, true),
            Ok(length) => {
                self.got.extend_from_slice(&bytes[..length]);
                let begun = self.streams.len() + seen.len();
                self.serve_streams(seen);
                let asked = self.h2.is_none() || self.streams.len() + seen.len() > begun;
                assert!(
                    !self.finished || !strict || !asked,
                    "a request on a connection that its application had ended"
                );
                while self.h2.is_none() && self.serve(seen) {}
                true
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(_) => !std::mem::replace(&mut self.over, true),
        }
    }

    /// The same over HTTP/2.
    fn serve_streams(&mut self, seen: &mut Vec<String>) {
        let Some(session) = &mut self.h2 else { return };
        let mut at = 0;
        while at < self.got.len() {
            let Some((used, event)) = session.feed(&self.got[at..]).expect("the worker speaks HTTP/2") else { break };
            let frame = &self.got[at..at + used];
            at += used;
            let done = match event {
                Some(Event::Head { stream, end, .. }) => {
                    let text = String::from_utf8(session.text.clone()).unwrap();
                    let path = text.split(' ').nth(1).unwrap().to_owned();
                    assert!(is_for(&path, self.backend), "{path} has come to another backend");
                    assert!(self.streams.insert(stream, (path, Vec::new())).is_none());
                    end.then_some(stream)
                }
                Some(Event::Data { stream, range, end }) => {
                    session.give_back(stream);
                    let (_, body) = self.streams.get_mut(&stream).expect("a head first");
                    body.extend_from_slice(&frame[range]);
                    end.then_some(stream)
                }
                Some(Event::Trailers { stream }) => Some(stream),
                Some(Event::Reset { stream, .. }) => {
                    self.streams.remove(&stream);
                    self.due.retain(|due| due.0 != stream);
                    None
                }
                _ => None,
            };
            let Some((stream, (path, body))) = done.and_then(|stream| self.streams.remove_entry(&stream)) else {
                continue;
            };
            seen.push(path.clone());
            if self.rough {
                self.due.push((stream, path, body));
            } else {
                answer_stream(session, stream, &path, &body, 0);
            }
        }
        self.got.drain(..at);
    }

    /// The next of the requests that wait, as a step says.
    fn serve_roughly(&mut self, what: u8, which: usize, seen: &mut Vec<String>) {
        let Some(session) = &mut self.h2 else { return };
        if self.due.is_empty() {
            return;
        }
        let (stream, path, body) = self.due.remove(which % self.due.len());
        match what {
            16 => session.close(stream, Code::Internal),
            17 => {
                // As if it had not been seen.
                let last = seen.iter().rposition(|one| *one == path).unwrap();
                seen.remove(last);
                session.close(stream, Code::Refused);
            }
            18 => answer_stream(session, stream, &path, &body, 1),
            19 => {
                // A head without a status.
                frame::begin(4, frame::HEADERS, frame::END_HEADERS | frame::END_STREAM, stream, &mut session.out);
                session.out.extend_from_slice(&[0, 1, b'a', 0]);
            }
            _ => answer_stream(session, stream, &path, &body, 0),
        }
    }

    fn is_idle(&self) -> bool {
        self.got.is_empty()
            && self.due.is_empty()
            && !self.hangs
            && self.out.is_empty()
            && self.streams.is_empty()
            && !self.over
            && !self.closes
    }

    /// Answers one request, if it is whole.
    fn serve(&mut self, seen: &mut Vec<String>) -> bool {
        if self.closes {
            return false;
        }
        let mut fields = Vec::new();
        let Some(request) = head::request(&self.got, &mut fields, BOUNDS).expect("the worker speaks HTTP/1.1") else {
            return false;
        };
        let mut body = Body::new(request.length);
        let mut payload = Vec::new();
        let input = &self.got[request.size..];
        let passed = body.pass(input, false, &mut payload).expect("a good body");
        if !body.is_done() {
            return false;
        }
        payload.extend_from_slice(&input[passed.raw]);
        let path = String::from_utf8(request.path.of(&self.got).to_vec()).unwrap();
        assert!(is_for(&path, self.backend), "{path} has come to another backend");
        let answer = answer_to(&path, &payload);
        let size = answer.len();
        let put = |head: String, out: &mut Vec<u8>| out.extend_from_slice(head.as_bytes());
        match path.rsplit('/').next().unwrap() {
            "0" => put(format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n"), &mut self.out),
            "1" => {
                put("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(), &mut self.out);
                answer.chunks(3).for_each(|piece| crate::body::chunk(piece, &mut self.out));
            }
            "2" => {
                put("HTTP/1.1 200 OK\r\n\r\n".to_owned(), &mut self.out);
                self.closes = true;
            }
            _ => {
                put(format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n"), &mut self.out);
                self.closes = true;
            }
        }
        if path.ends_with("/1") {
            self.out.extend_from_slice(b"0\r\nX-T: 1\r\n\r\n");
        } else {
            self.out.extend_from_slice(&answer);
        }
        self.got.drain(..request.size + passed.used);
        seen.push(path);
        true
    }

    fn write(&mut self, most: usize) -> bool {
        if self.hangs {
            return false;
        }
        if let Some(session) = &mut self.h2 {
            self.out.append(&mut session.out);
        }
        let length = self.out.len().min(most);
        let sent = self.stream.write(&self.out[..length]).unwrap_or(0);
        self.out.drain(..sent);
        if self.out.is_empty() && self.closes && !self.over {
            self.over = true;
            let _ = self.stream.shutdown(Shutdown::Both);
            return true;
        }
        sent > 0
    }
}

/// An answer on a stream, that declares some bytes more than there are.
fn answer_stream(session: &mut Session, stream: u32, path: &str, body: &[u8], more: usize) {
    let answer = answer_to(path, body);
    let declares = path.ends_with("/0") || more > 0;
    let length = if declares { format!("Content-Length: {}\r\n", answer.len() + more) } else { String::new() };
    session.respond(stream, format!("HTTP/1.1 200 OK\r\n{length}\r\n").as_bytes(), false);
    session.send(stream, [&answer, b""], !path.ends_with("/1"));
    if path.ends_with("/1") {
        session.send_trailers(stream, b"x-t: 1\r\n");
    }
    session.close(stream, Code::None);
    if path.ends_with("/3") {
        session.leave();
    }
}

/// Whether a request is routed to this backend, of so many.
fn is_for(path: &str, (backend, count): (usize, usize)) -> bool {
    path.split('/').nth(1).unwrap().parse::<usize>().unwrap() % count == backend
}

struct World {
    worker: Worker,
    events: Vec<epoll::Event>,
    directory: PathBuf,
    apps: Vec<UnixListener>,
    /// Endpoints of each backend, in the order of the applications.
    backends: Vec<usize>,
    rough: bool,
    clients: Vec<Client>,
    servers: Vec<Server>,
    seen: Vec<String>,
    http2: bool,
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

impl World {
    fn new(scripts: &[(bool, Vec<Ask>)], http2: bool) -> World {
        World::with(scripts, &Layout::simple(http2))
    }

    fn with(scripts: &[(bool, Vec<Ask>)], layout: &Layout<'_>) -> World {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("dataplane-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        clock::hold(1000 * SECOND);
        let listen = |app: usize| {
            let app = UnixListener::bind(directory.join(format!("app{app}"))).unwrap();
            app.set_nonblocking(true).unwrap();
            app
        };
        let apps = (0..layout.backends.iter().sum()).map(listen).collect();
        let socket = Arc::new(sock::listen(&Address::Unix(directory.join("in")), false).unwrap());
        let plan = Arc::new(plan(&directory, &socket, layout));
        let worker = Worker::new(Arc::new(Shared::new(0).unwrap()), plan).unwrap();
        let path = directory.join("in");
        let clients =
            scripts.iter().enumerate().map(|(n, (http2, asks))| Client::new(&path, n, asks, *http2)).collect();
        let events = Vec::with_capacity(64);
        let http2 = layout.settings.http2;
        let (backends, servers, seen) = (layout.backends.to_vec(), Vec::new(), Vec::new());
        World { worker, events, directory, apps, backends, rough: false, clients, servers, seen, http2 }
    }

    fn turn(&mut self) {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        assert!(self.worker.turn(&mut self.events, Some(&now)).unwrap());
    }

    /// As many rounds as one thing needs to come through.
    fn turns(&mut self) {
        (0..6).for_each(|_| self.turn());
    }

    /// What happens because so much time has passed.
    fn wait(&mut self, nanos: u64) {
        clock::hold(clock::now() + nanos);
        self.turns();
    }

    fn accept(&mut self) -> bool {
        let mut owners = self.backends.iter().enumerate().flat_map(|(backend, count)| vec![backend; *count]);
        let accepted = self.apps.iter().find_map(|app| {
            let backend = owners.next()?;
            Some((app.accept().ok()?.0, backend))
        });
        let Some((stream, backend)) = accepted else { return false };
        stream.set_nonblocking(true).unwrap();
        let h2 = self.http2.then(|| Session::new(Role::Server, 8192, false));
        let (got, out, streams) = (Vec::new(), Vec::new(), BTreeMap::new());
        self.servers.push(Server {
            stream,
            backend: (backend, self.backends.len()),
            rough: self.rough,
            due: Vec::new(),
            hangs: false,
            got,
            out,
            closes: false,
            finished: false,
            over: false,
            h2,
            streams,
        });
        true
    }

    /// One step of a script. `kill`: connections may be cut in the middle.
    fn step(&mut self, (what, which, size): (u8, usize, usize), kill: bool) {
        let client = which % self.clients.len();
        let server = which % self.servers.len().max(1);
        match what {
            0..=2 => drop(self.clients[client].write(size)),
            3 => drop(self.clients[client].read(size)),
            4..=6 => self.turn(),
            7 => drop(self.accept()),
            8 | 9 if !self.servers.is_empty() => drop(self.servers[server].read(&mut self.seen, !kill)),
            10 | 11 if !self.servers.is_empty() => drop(self.servers[server].write(size)),
            12 if !self.servers.is_empty() => {
                // An idle connection ends; one on which something has come meanwhile is not idle.
                let one = &mut self.servers[server];
                let waits =
                    !one.read(&mut self.seen, !kill) && one.h2.as_ref().is_none_or(|session| session.out.is_empty());
                if waits && one.is_idle() {
                    one.finished = true;
                    let _ = one.stream.shutdown(Shutdown::Write);
                }
            }
            13 if kill && !self.servers.is_empty() => {
                let one = &mut self.servers[server];
                one.over = true;
                let _ = one.stream.shutdown(Shutdown::Both);
            }
            // Not as much as would run into timeouts, which are another test's.
            14 => clock::hold(self.worker.tick + (size % 50) as u64 * MILLISECOND),
            15..=19 if !self.servers.is_empty() => self.servers[server].serve_roughly(what, size, &mut self.seen),
            20 if !self.servers.is_empty() => self.servers[server].hangs = true,
            21 => {
                // It is the applications that are waited for.
                self.clients.iter_mut().for_each(|client| while client.write(usize::MAX) {});
                self.turn();
                clock::hold(self.worker.tick + 61 * SECOND);
            }
            _ => {}
        }
    }

    /// Everybody does what there is to do, until nothing is.
    fn settle(&mut self) {
        let mut quiet = 0;
        self.servers.iter_mut().for_each(|server| server.hangs = false);
        while quiet < 4 {
            let mut moved = false;
            for client in &mut self.clients {
                moved |= client.write(usize::MAX) | client.read(65_536);
            }
            moved |= self.accept();
            for server in &mut self.servers {
                while server.rough && !server.over && !server.due.is_empty() {
                    server.serve_roughly(15, 0, &mut self.seen);
                }
                moved |= !server.over && (server.read(&mut self.seen, false) | server.write(usize::MAX));
            }
            self.turn();
            quiet = if moved { 0 } else { quiet + 1 };
        }
    }
}

fn asks() -> impl Strategy<Value = Vec<Ask>> {
    let size = prop_oneof![4 => 0usize..200, 1 => 0usize..40_000];
    let ask = (any::<bool>(), any::<bool>(), size, 0u8..4);
    vec(ask.prop_map(|(post, chunked, body, answer)| Ask { post, chunked, body, answer }), 1..5)
}

fn script(kinds: u8) -> impl Strategy<Value = Vec<(u8, usize, usize)>> {
    let size = prop_oneof![3 => 1usize..30, 3 => 1usize..2000, 1 => 1usize..70_000];
    vec((0..kinds, 0usize..6, size), 0..150)
}

fn check(
    scripts: &[(bool, Vec<Ask>)],
    steps: &[(u8, usize, usize)],
    http2: bool,
    trouble: Trouble,
    change: &dyn Fn(&mut Route),
) -> Result<(), TestCaseError> {
    let (kill, rough) = (trouble != Trouble::None, trouble == Trouble::Rough);
    let backends: &[usize] = if rough { &[2, 1] } else { &[1] };
    let mut world = World::with(scripts, &Layout { backends, change, ..Layout::simple(http2) });
    world.rough = rough;
    for step in steps {
        world.step(*step, kill);
    }
    world.settle();
    for (index, client) in world.clients.iter().enumerate() {
        let answers = client.answers();
        prop_assert!(answers.len() <= client.asks.len(), "no more answers than requests");
        // A long body is gone when HTTP/2 says that nobody has looked at it.
        let long = http2 && client.asks.iter().any(|ask| ask.post && ask.body > 5000);
        for (number, ask) in client.asks.iter().enumerate() {
            let Some(came) = answers.get(&number) else {
                prop_assert!((kill || long) && (client.ended || client.h2.is_some()), "{index}/{number} has no answer");
                continue;
            };
            let body = if ask.post { body_of(index, number, ask.body) } else { Vec::new() };
            let wanted = answer_to(&format!("/{index}/{number}/{}", ask.answer), &body);
            match came.status {
                200 if came.whole => {
                    let cut = kill && !http2 && ask.answer == 2;
                    prop_assert!(came.body == wanted || cut, "{}", came.body.escape_ascii())
                }
                200 => prop_assert!(kill && wanted.starts_with(&came.body)),
                502..=504 => prop_assert!(kill || long, "{index}/{number} failed"),
                // The backend took nothing more of its body.
                408 => prop_assert!(rough),
                other => prop_assert!(false, "{index}/{number} was answered with {other}"),
            }
        }
    }
    for (index, (_, asks)) in scripts.iter().enumerate() {
        for (number, ask) in asks.iter().enumerate().filter(|(_, ask)| ask.post) {
            let path = format!("/{index}/{number}/{}", ask.answer);
            let times = world.seen.iter().filter(|one| **one == path).count();
            prop_assert!(times <= 1, "{path} happened {times} times");
        }
    }
    // The clients go; nothing may be left of them.
    for client in &mut world.clients {
        if let Some(session) = &mut client.h2 {
            (0..client.asks.len()).for_each(|number| session.close(2 * number as u32 + 1, Code::None));
        }
        let _ = client.stream.shutdown(Shutdown::Both);
    }
    (0..8).for_each(|_| world.turn());
    let worker = &world.worker;
    prop_assert!(worker.downs.is_empty());
    prop_assert!(worker.exchanges.is_empty());
    let members = || worker.local.pools.iter().flat_map(|pool| &pool.members);
    let kept: usize = members().map(|member| member.idle.borrow().len() + member.shared.borrow().len()).sum();
    prop_assert_eq!(worker.ups.len(), kept, "connections belong to exchanges or to the pool");
    prop_assert!(members().all(|member| member.active.get() == 0));
    let counters = || worker.local.plan.routes.iter().map(|route| &route.counters[0]);
    prop_assert!(counters().all(|counters| counters.active.value() == 0));
    let endpoints = || worker.local.pools.iter().flat_map(|pool| &pool.backend.endpoints);
    prop_assert!(endpoints().all(|endpoint| endpoint.counters[0].active.value() == 0));
    // Phases follow one another without gaps.
    let phases: u64 = worker.shared.phases.histograms.iter().map(|one| one.read().1).sum();
    prop_assert_eq!(phases, counters().map(|counters| counters.latency.read().1).sum::<u64>());
    Ok(())
}

/// A client of HTTP/1.1 by hand.
struct Hand(UnixStream);

impl Hand {
    fn new(world: &World) -> Hand {
        let stream = UnixStream::connect(world.directory.join("in")).unwrap();
        stream.set_nonblocking(true).unwrap();
        Hand(stream)
    }

    /// Sends the bytes at once; the statuses of what is answered, and whether the connection has ended.
    fn say(&mut self, world: &mut World, bytes: &[u8]) -> (Vec<u16>, bool) {
        self.0.write_all(bytes).unwrap();
        self.hear(world)
    }

    fn hear(&mut self, world: &mut World) -> (Vec<u16>, bool) {
        world.settle();
        let mut got = Vec::new();
        let end = self.0.read_to_end(&mut got);
        let text = String::from_utf8(got).unwrap();
        let statuses = text.match_indices("HTTP/1.1 ").map(|(at, name)| text[at + name.len()..][..3].parse().unwrap());
        (statuses.collect(), end.is_ok())
    }
}

#[test]
fn empty_lines_before_a_request_are_let_pass() {
    const POST: &str = "POST /0 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc";
    const GET: &[u8] = b"GET /0 HTTP/1.1\r\nHost: h\r\n\r\n";
    let mut world = World::new(&[], false);
    let mut hand = Hand::new(&world);
    // A body with an end that it should not have begins no request that would have to come to its end.
    assert_eq!(hand.say(&mut world, format!("{POST}\r\n").as_bytes()), (vec![200], false));
    clock::hold(clock::now() + 60 * SECOND);
    assert_eq!(hand.hear(&mut world), (vec![], false));
    // The next has its whole time, and pieces are no matter.
    assert_eq!(hand.say(&mut world, &GET[..9]), (vec![], false));
    assert_eq!(hand.say(&mut world, &GET[9..]), (vec![200], false));
    assert_eq!(hand.say(&mut world, format!("{POST}\r").as_bytes()), (vec![200], false));
    assert_eq!(hand.say(&mut world, b"\n"), (vec![], false));
    clock::hold(clock::now() + 60 * SECOND);
    assert_eq!(hand.say(&mut world, &GET[..9]), (vec![], false));
    clock::hold(clock::now() + 14 * SECOND);
    assert_eq!(hand.say(&mut world, &GET[9..]), (vec![200], false));
    // A read that ends with the empty line and has left something in the socket.
    let head = format!("POST /0 HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", ROOM - 2);
    assert_eq!(hand.say(&mut world, head.as_bytes()), (vec![], false));
    assert_eq!(hand.say(&mut world, &[&vec![b'x'; ROOM - 2], &b"\r\n"[..], GET].concat()), (vec![200, 200], false));
    // Some, but no stream of them.
    assert_eq!(hand.say(&mut world, &[&b"\r\n\r\n"[..], GET].concat()), (vec![200], false));
    assert_eq!(hand.say(&mut world, &b"\r\n".repeat(100)), (vec![400], true));
    let mut hand = Hand::new(&world);
    for n in 0..100 {
        match hand.say(&mut world, b"\r\n") {
            (statuses, false) if statuses.is_empty() => {}
            (statuses, true) => {
                assert!((2..10).contains(&n));
                assert_eq!(statuses, [400]);
                return;
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("any number of empty lines is let pass");
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_time: 20_000, ..ProptestConfig::default() })]

    /// Applications end idle connections at any moment, and answer in every way: no request fails.
    #[test]
    fn every_request_is_answered_once(scripts in vec((any::<bool>(), asks()), 1..4), http2 in any::<bool>(), steps in script(15)) {
        check(&scripts, &steps, http2, Trouble::None, &|_| {})?;
    }

    /// Connections to applications are cut at any moment: what fails is said, and nothing happens twice.
    #[test]
    fn cut_connections_do_no_harm(scripts in vec((any::<bool>(), asks()), 1..4), http2 in any::<bool>(), steps in script(15)) {
        check(&scripts, &steps, http2, Trouble::Cut, &|_| {})?;
    }

    /// Several applications of HTTP/2, of several backends, that do everything they should not: no request comes to a backend
    /// it was not routed to, no answer to another request, and nothing happens twice.
    #[test]
    fn rough_backends_harm_only_their_own(scripts in vec((any::<bool>(), asks()), 1..4), steps in script(22)) {
        check(&scripts, &steps, true, Trouble::Rough, &|_| {})?;
    }
}
