//! Windows of connections that many streams share (RFC 9113 §5.2): what one stream leaves behind must not starve the others.
//! The test is both the client and the backend.

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Client, PATIENCE, Upstream, World, eventually, ok, simple_spec};
use crate::wire::{
    Came, DATA, END, HEADERS, PING, PREFACE, RST, WHOLE, WINDOW, Wire, block, frame, get, request, settings,
};

const CANCEL: [u8; 4] = 8u32.to_be_bytes();
/// How long the proxy waits for the end of an answer that is whole.
const ENDING: Duration = Duration::from_secs(1);

/// One side of a connection that keeps count of how much it may send.
pub(crate) struct Side {
    wire: Wire,
    window: i64,
}

impl Side {
    fn new(wire: Wire) -> Side {
        Side { wire, window: 65_535 }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        assert!(self.wire.send(bytes));
    }

    /// The next that fits; windows are counted.
    pub(crate) fn until(&mut self, what: &str, fits: impl Fn(&Came) -> bool) -> Came {
        loop {
            let came = self.wire.next();
            if let Came::Window(0, more) = came {
                self.window += i64::from(more);
            }
            if fits(&came) {
                return came;
            }
            assert!(came != Came::Closed, "closed before {what}");
        }
    }

    /// Everything that was sent before has been looked at.
    pub(crate) fn sync(&mut self) {
        self.send(&frame(PING, 0, 0, b"and then"));
        self.until("the answer to a PING", |came| matches!(came, Came::Pong(_)));
    }

    /// As [`Side::sync`], and no stream has been reset.
    pub(crate) fn unbroken(&mut self) {
        assert!(self.is_unbroken(), "a stream was reset");
    }

    fn is_unbroken(&mut self) -> bool {
        self.send(&frame(PING, 0, 0, b"and then"));
        let mut unbroken = true;
        loop {
            match self.until("the answer to a PING", |came| matches!(came, Came::Pong(_) | Came::Reset(..))) {
                Came::Pong(_) => return unbroken,
                _ => unbroken = false,
            }
        }
    }

    /// The next request's stream.
    pub(crate) fn asked(&mut self) -> u32 {
        match self.until("a request", |came| matches!(came, Came::Head(..))) {
            Came::Head(stream, ..) => stream,
            _ => 0,
        }
    }

    pub(crate) fn answer(&mut self, stream: u32, fields: &[(&str, &str)]) {
        let fields = [&[(":status", "200")], fields].concat();
        self.send(&frame(HEADERS, WHOLE, stream, &block(&fields)));
    }

    pub(crate) fn data(&mut self, stream: u32, length: usize, end: bool) {
        let mut left = length;
        for piece in vec![b'x'; length].chunks(16_384) {
            left -= piece.len();
            self.window -= piece.len() as i64;
            assert!(self.window >= 0, "the connection's window is used up");
            self.send(&frame(DATA, if end && left == 0 { END } else { 0 }, stream, piece));
        }
    }
}

/// A backend of HTTP/2 that says only what the test says.
pub(crate) struct Backend {
    listener: TcpListener,
}

impl Backend {
    pub(crate) fn new() -> Backend {
        Backend { listener: TcpListener::bind("127.0.0.1:0").unwrap() }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// A proxy before it, with `more` in its configuration.
    pub(crate) fn world(&self, more: &str) -> World {
        World::with(&format!("{more}{}", simple_spec(&[self.address()], "  http2: true\n")))
    }

    pub(crate) fn accept(&self) -> Side {
        let mut side = self.accept_silently();
        side.send(&settings(&[]));
        side
    }

    /// As [`Backend::accept`], and nothing is said.
    pub(crate) fn accept_silently(&self) -> Side {
        let mut stream = self.accept_bare();
        let mut preface = [0; PREFACE.len()];
        stream.read_exact(&mut preface).unwrap();
        assert_eq!(preface, PREFACE);
        let mut side = Side::new(Wire::over(Box::new(stream)));
        side.until("settings", |came| matches!(came, Came::Settings(_)));
        side
    }

    /// The next connection, whatever is spoken on it.
    pub(crate) fn accept_bare(&self) -> TcpStream {
        self.listener.set_nonblocking(true).unwrap();
        let mut accepted = None;
        eventually("a connection", || {
            accepted = self.listener.accept().ok();
            accepted.is_some()
        });
        let (stream, _) = accepted.unwrap();
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }
}

#[test]
fn answers_with_a_length_give_back_what_they_took() {
    let backend = Backend::new();
    let world = backend.world("");
    let mut client = Client::connect(world.address());
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    let mut side = backend.accept();
    for _ in 0..60 {
        let stream = side.asked();
        side.sync();
        side.answer(stream, &[("content-length", "8000")]);
        side.data(stream, 8000, true);
        assert_eq!(client.answer().body.len(), 8000);
        client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    }
}

/// A client that takes nothing and goes, again and again.
#[test]
fn what_was_on_its_way_to_clients_that_went_is_given_back() {
    let backend = Backend::new();
    let world = backend.world("");
    let mut client = Wire::connect(world.address(), &[(4, 0)]);
    client.send(&get(1));
    let mut side = backend.accept();
    for number in 0..10 {
        let stream = side.asked();
        side.sync();
        side.answer(stream, &[]);
        side.data(stream, 60_000, false);
        // Of this the proxy knows before it hears of the end.
        client.until("an answer", |came| came.status() == Some(200));
        side.sync();
        client.send(&[frame(RST, 0, 2 * number + 1, &CANCEL), get(2 * number + 3)].concat());
        side.until("the end of the stream", |came| *came == Came::Reset(stream, 8));
    }
}

/// Clients that take nothing hold what they have asked for; others are not to wait for that.
#[test]
fn what_slow_clients_hold_keeps_nobody_waiting() {
    let backend = Backend::new();
    let world = backend.world("workers: 1\n");
    let mut slow = Wire::connect(world.address(), &[(4, 0)]);
    slow.send(&[get(1), get(3), get(5), get(7)].concat());
    let mut side = backend.accept();
    // The first frame of each may be taken and given back before the others come; what is left is most of the window.
    for _ in 0..4 {
        let stream = side.asked();
        side.answer(stream, &[]);
        side.data(stream, 60_000, false);
    }
    side.sync();
    let mut client = Client::connect(world.address());
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    let mut other = backend.accept();
    let stream = other.asked();
    other.answer(stream, &[("content-length", "60000")]);
    other.data(stream, 60_000, true);
    assert_eq!(client.answer().body.len(), 60_000);
}

#[test]
fn bodies_that_are_refused_are_given_back() {
    let upstream = Upstream::start(|_| ok("fine"));
    let spec = simple_spec(&[upstream.address], "");
    let world = World::with(&spec.replace("- name: all\n", "- name: all\n  maxBody: 1000\n"));
    let mut client = Side::new(Wire::connect(world.address(), &[]));
    for number in 0..40 {
        let stream = 2 * number + 1;
        client.send(&frame(HEADERS, WHOLE, stream, &request("POST", "/", &[])));
        client.data(stream, 16_000, false);
        client.until("a refusal", |came| came.status() == Some(413));
        client.sync();
    }
}

/// Many servers end an answer in a frame of its own; nobody is told that it was not wanted.
#[test]
fn answers_may_end_behind_their_last_byte() {
    let backend = Backend::new();
    // Both clients' requests go over the same connection.
    let world = backend.world("workers: 1\n");
    let mut plain = Client::connect(world.address());
    plain.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    let mut side = backend.accept();
    let mut rounds = 0;
    while rounds < 3 {
        let stream = side.asked();
        let began = Instant::now();
        side.answer(stream, &[("content-length", "3")]);
        side.data(stream, 3, false);
        assert_eq!(plain.answer().body, "xxx", "it is whole, and does not wait");
        side.send(&frame(DATA, END, stream, b""));
        // Who dawdles as long as the end is waited for has proved nothing.
        let is_unbroken = side.is_unbroken();
        assert!(is_unbroken || began.elapsed() >= ENDING, "a reset after {:?}", began.elapsed());
        rounds += usize::from(is_unbroken);
        plain.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    let stream = side.asked();
    side.answer(stream, &[("content-length", "0")]);
    assert_eq!(plain.answer().status(), 200);
    side.until("a reset: it never ends", |came| *came == Came::Reset(stream, 8));

    // A stream's client takes the trailers, too.
    let mut client = Wire::connect(world.address(), &[]);
    let mut asked = 1;
    loop {
        client.send(&get(asked));
        let stream = side.asked();
        let began = Instant::now();
        side.answer(stream, &[("content-length", "3")]);
        side.data(stream, 3, false);
        client.until("the body", |came| *came == Came::Data(asked, b"xxx".to_vec(), false));
        side.send(&frame(HEADERS, WHOLE | END, stream, &block(&[("x-sum", "9")])));
        let end = client.until("trailers", |came| matches!(came, Came::Head(..) | Came::Data(_, _, true)));
        if end == Came::Head(asked, "x-sum: 9\n".to_owned(), true) {
            break side.unbroken();
        }
        assert!(began.elapsed() >= ENDING, "{end:?} after {:?}", began.elapsed());
        asked += 2;
    }

    // Without an end its answer ends nevertheless, after a while, or with the connection.
    asked += 2;
    client.send(&get(asked));
    let stream = side.asked();
    side.answer(stream, &[("content-length", "3")]);
    side.data(stream, 3, false);
    client.until("the end", |came| *came == Came::Data(asked, Vec::new(), true));
    side.until("a reset", |came| *came == Came::Reset(stream, 8));
    asked += 2;
    client.send(&get(asked));
    let stream = side.asked();
    side.answer(stream, &[("content-length", "3")]);
    side.data(stream, 3, false);
    client.until("the body", |came| *came == Came::Data(asked, b"xxx".to_vec(), false));
    drop(side);
    client.until("the end", |came| *came == Came::Data(asked, Vec::new(), true));
}

#[test]
fn a_little_at_a_time_is_not_nothing() {
    let more = |bytes: u32, stream| frame(WINDOW, 0, stream, &bytes.to_be_bytes());
    // A client that takes an answer by small windows, longer than it might take nothing.
    let upstream = Upstream::start(|_| ok(&"x".repeat(40_000)));
    let world = World::with(&simple_spec(&[upstream.address], "timeouts: {body: 1s}\n"));
    let mut wire = Wire::connect(world.address(), &[(4, 1000)]);
    wire.send(&get(1));
    for _ in 0..39 {
        thread::sleep(Duration::from_millis(100));
        wire.send(&more(1000, 1));
    }
    assert_eq!(wire.answer(1).1.len(), 40_000);
    // A backend that takes a body in the same way.
    let backend = Backend::new();
    let world = backend.world("timeouts: {body: 1s}\n");
    let mut client = world.client();
    client.send(format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 300000\r\n\r\n{}", "x".repeat(300_000)));
    let mut app = backend.accept();
    let stream = app.asked();
    app.send(&more(300_000, 0));
    for _ in 0..40 {
        thread::sleep(Duration::from_millis(60));
        app.send(&more(1000, stream));
    }
    app.send(&more(300_000, stream));
    app.until("the end", |came| matches!(came, Came::Data(_, _, true)));
    app.send(&frame(HEADERS, WHOLE | END, stream, &block(&[(":status", "204")])));
    assert_eq!(client.answer().status(), 204);
}
