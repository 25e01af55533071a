//! Applications that speak HTTP/2 and do what they should not: each test says what is sent and read, frame by frame.

use std::sync::Mutex;

use super::*;
use crate::backend::Limits;
use crate::filter::mirror::Mirror;
use crate::filter::wait::Waiter;
use crate::filter::{Asked, Filter, Flow, Gate, NotesSlot};
use crate::retry::Retry;

/// An application's side of one connection.
pub(super) struct Peer {
    stream: UnixStream,
    pub(super) session: Session,
    got: Vec<u8>,
    /// What came on each stream: path, body, trailers.
    came: BTreeMap<u32, (String, Vec<u8>, String)>,
}

impl Peer {
    /// The next connection to an application, if there is one.
    pub(super) fn accept(world: &mut World, app: usize) -> Option<Peer> {
        world.turns();
        let (stream, _) = world.apps[app].accept().ok()?;
        stream.set_nonblocking(true).unwrap();
        let session = Session::new(Role::Server, 65_536, false);
        Some(Peer { stream, session, got: Vec::new(), came: BTreeMap::new() })
    }

    /// Writes what there is, and reads; new streams with their paths.
    pub(super) fn hear(&mut self, world: &mut World) -> Vec<(u32, String)> {
        self.say(world);
        let _ = self.stream.read_to_end(&mut self.got);
        let (mut at, mut new) = (0, Vec::new());
        while at < self.got.len() {
            let Some((used, event)) = self.session.feed(&self.got[at..]).expect("the worker speaks HTTP/2") else {
                break;
            };
            match event {
                Some(Event::Head { stream, .. }) => {
                    let text = String::from_utf8(self.session.text.clone()).unwrap();
                    let path = text.split(' ').nth(1).unwrap().to_owned();
                    self.came.insert(stream, (path.clone(), Vec::new(), String::new()));
                    new.push((stream, path));
                }
                Some(Event::Data { stream, range, .. }) => {
                    let came = self.came.get_mut(&stream).expect("a head first");
                    came.1.extend_from_slice(&self.got[at..at + used][range]);
                }
                Some(Event::Trailers { stream }) => {
                    let came = self.came.get_mut(&stream).expect("a head first");
                    came.2 = String::from_utf8(self.session.text.clone()).unwrap();
                }
                _ => {}
            }
            at += used;
        }
        self.got.drain(..at);
        self.say(world);
        new
    }

    fn say(&mut self, world: &mut World) {
        // One that has been ended shows in what is not read.
        let _ = self.stream.write_all(&std::mem::take(&mut self.session.out));
        world.turns();
    }

    /// An answer without a body.
    fn answer(&mut self, world: &mut World, stream: u32, status: u16) {
        self.session.respond(stream, format!("HTTP/1.1 {status} X\r\n\r\n").as_bytes(), true);
        self.session.close(stream, Code::None);
        self.say(world);
    }

    fn reset(&mut self, world: &mut World, stream: u32, code: Code) {
        self.session.close(stream, code);
        self.say(world);
    }
}

impl Hand {
    /// Sends, while nobody else does anything.
    fn ask(&mut self, world: &mut World, bytes: &str) {
        self.0.write_all(bytes.as_bytes()).unwrap();
        world.turns();
    }

    fn get(&mut self, world: &mut World, path: &str) {
        self.ask(world, &format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n"));
    }

    /// What has come, and whether the connection has ended.
    fn heard(&mut self, world: &mut World) -> (String, bool) {
        world.turns();
        let mut got = Vec::new();
        let end = self.0.read_to_end(&mut got);
        (String::from_utf8(got).unwrap(), end.is_ok())
    }

    /// The one status that has come.
    fn status(&mut self, world: &mut World) -> u16 {
        let (text, _) = self.heard(world);
        assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{text}");
        text[9..12].parse().unwrap()
    }
}

/// Backends with these endpoints, over HTTP/2.
fn world(backends: &[usize], change: &dyn Fn(&mut Route)) -> World {
    World::with(&[], &Layout { backends, change, ..Layout::simple(true) })
}

fn streams(new: &[(u32, String)]) -> Vec<u32> {
    new.iter().map(|(stream, _)| *stream).collect()
}

#[test]
fn a_stream_that_is_reset_ends_nobody_else() {
    let mut world = world(&[1, 1], &|route| route.retry.times = 0);
    let mut hands: Vec<Hand> = (0..3).map(|_| Hand::new(&world)).collect();
    for (hand, path) in hands.iter_mut().zip(["/0/a", "/0/reset", "/0/b"]) {
        hand.get(&mut world, path);
    }
    let mut one = Peer::accept(&mut world, 0).unwrap();
    assert_eq!(streams(&one.hear(&mut world)), [1, 3, 5]);
    one.reset(&mut world, 3, Code::Internal);
    assert_eq!(hands[1].status(&mut world), 502);
    // Nobody asks again: the backend has seen it, and the route does not want it.
    assert_eq!(one.hear(&mut world), []);
    // A connection to another backend may have the number that would be free.
    hands[1].get(&mut world, "/1/x");
    let mut two = Peer::accept(&mut world, 1).unwrap();
    assert_eq!(two.hear(&mut world), [(1, "/1/x".to_owned())]);
    two.answer(&mut world, 1, 201);
    assert_eq!(hands[1].status(&mut world), 201);
    hands[1].get(&mut world, "/0/secret");
    assert_eq!(two.hear(&mut world), [], "a request for another backend");
    assert_eq!(one.hear(&mut world), [(7, "/0/secret".to_owned())]);
    for (hand, stream) in [(0, 1), (2, 5), (1, 7)] {
        one.answer(&mut world, stream, 204);
        assert_eq!(hands[hand].status(&mut world), 204);
    }
}

#[test]
fn a_stream_that_is_reset_is_retried_as_the_route_says() {
    let mut world = world(&[1], &|route| route.retry.times = 2);
    let mut hand = Hand::new(&world);
    hand.get(&mut world, "/0/x");
    let mut peer = Peer::accept(&mut world, 0).unwrap();
    for stream in [1, 3, 5] {
        assert_eq!(streams(&peer.hear(&mut world)), [stream]);
        peer.reset(&mut world, stream, Code::Internal);
    }
    assert_eq!(hand.status(&mut world), 502);
    assert_eq!(peer.hear(&mut world), []);
    // Not seen.
    hand.ask(&mut world, "POST /0/x HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(streams(&peer.hear(&mut world)), [7]);
    peer.reset(&mut world, 7, Code::Refused);
    assert_eq!(streams(&peer.hear(&mut world)), [9]);
    peer.answer(&mut world, 9, 200);
    assert_eq!(hand.status(&mut world), 200);
}

#[test]
fn what_follows_a_reset_is_read_as_the_same_connections() {
    let mut world = world(&[1], &|route| route.retry.times = 1);
    let mut hand = Hand::new(&world);
    hand.get(&mut world, "/0/x");
    let mut peer = Peer::accept(&mut world, 0).unwrap();
    assert_eq!(streams(&peer.hear(&mut world)), [1]);
    // In one piece: the reset, and an answer to the stream that a second connection would begin with.
    peer.session.close(1, Code::Internal);
    frame::begin(1, frame::HEADERS, 5, 1, &mut peer.session.out);
    peer.session.out.push(0x88);
    peer.say(&mut world);
    let (text, _) = hand.heard(&mut world);
    assert!(!text.starts_with("HTTP/1.1 200"), "an answer that nobody gave: {text}");
}

#[test]
fn a_malformed_answer_ends_its_stream_alone() {
    let mut world = world(&[1], &|_| {});
    let mut hands = [Hand::new(&world), Hand::new(&world)];
    hands[0].get(&mut world, "/0/bad");
    hands[1].get(&mut world, "/0/good");
    let mut peer = Peer::accept(&mut world, 0).unwrap();
    assert_eq!(streams(&peer.hear(&mut world)), [1, 3]);
    // Without a status.
    frame::begin(4, frame::HEADERS, 5, 1, &mut peer.session.out);
    peer.session.out.extend_from_slice(&[0, 1, b'a', 0]);
    peer.say(&mut world);
    assert_eq!(hands[0].status(&mut world), 502);
    assert_eq!(peer.hear(&mut world), [], "nothing is sent again");
    peer.answer(&mut world, 3, 204);
    assert_eq!(hands[1].status(&mut world), 204);
}

/// A copy for backend 1.
fn mirror(route: &mut Route) {
    route.filters.push(Filter::Gate(Arc::new(Mirror::new(100.0, (1, 1 << 20, 10, SECOND)))));
}

#[test]
fn a_copy_that_is_reset_ends_nobody_else() {
    let mut world = world(&[1, 1], &|route| {
        if route.name == "route0" {
            mirror(route);
        }
    });
    let (mut hand, mut live) = (Hand::new(&world), Hand::new(&world));
    live.get(&mut world, "/1/live");
    let mut shadow = Peer::accept(&mut world, 1).unwrap();
    assert_eq!(streams(&shadow.hear(&mut world)), [1]);
    hand.get(&mut world, "/0/x");
    let mut app = Peer::accept(&mut world, 0).unwrap();
    assert_eq!(streams(&app.hear(&mut world)), [1]);
    app.answer(&mut world, 1, 200);
    assert_eq!(hand.status(&mut world), 200);
    assert_eq!(shadow.hear(&mut world), [(3, "/0/x".to_owned())]);
    shadow.reset(&mut world, 3, Code::Internal);
    shadow.answer(&mut world, 1, 201);
    assert_eq!(live.status(&mut world), 201);
    live.get(&mut world, "/1/more");
    assert_eq!(shadow.hear(&mut world), [(5, "/1/more".to_owned())]);
}

#[test]
fn an_answer_is_as_long_as_it_says() {
    let mut world = world(&[1], &|_| {});
    let mut hand = Hand::new(&world);
    hand.get(&mut world, "/0/warm");
    let mut peer = Peer::accept(&mut world, 0).unwrap();
    peer.hear(&mut world);
    peer.answer(&mut world, 1, 200);
    hand.heard(&mut world);
    // No length counts where there is no body.
    let mut stream = 3;
    for (method, status) in [("HEAD", 200), ("GET", 304)] {
        hand.ask(&mut world, &format!("{method} /0/x HTTP/1.1\r\nHost: h\r\n\r\n"));
        peer.hear(&mut world);
        peer.session.respond(stream, format!("HTTP/1.1 {status} X\r\nContent-Length: 300\r\n\r\n").as_bytes(), true);
        peer.session.close(stream, Code::None);
        peer.say(&mut world);
        assert_eq!(hand.status(&mut world), status, "{method}");
        stream += 2;
    }
    for (body, trailers) in [("abc", true), ("abc", false), ("", true)] {
        let mut hand = Hand::new(&world);
        hand.get(&mut world, "/0/short");
        peer.hear(&mut world);
        peer.session.respond(stream, b"HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\n", false);
        peer.session.send(stream, [body.as_bytes(), b""], !trailers);
        if trailers {
            peer.session.send_trailers(stream, b"x-t: 1\r\n");
        }
        peer.session.close(stream, Code::None);
        peer.say(&mut world);
        let (text, ended) = hand.heard(&mut world);
        assert!(ended, "the next answer would be taken for the rest of {text}");
        stream += 2;
    }
    // With the head alone nothing has been passed on yet.
    hand.get(&mut world, "/0/none");
    peer.hear(&mut world);
    peer.session.respond(stream, b"HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\n", true);
    peer.session.close(stream, Code::None);
    peer.say(&mut world);
    assert_eq!(hand.status(&mut world), 502);
}

#[test]
fn interim_answers_go_to_whoever_knows_them_and_have_an_end() {
    let mut world = world(&[1], &|_| {});
    let mut old = Hand::new(&world);
    old.ask(&mut world, "GET /0/x HTTP/1.0\r\nHost: h\r\n\r\n");
    let mut peer = Peer::accept(&mut world, 0).unwrap();
    peer.hear(&mut world);
    peer.session.respond(1, b"HTTP/1.1 103 X\r\nLink: x\r\n\r\n", false);
    peer.answer(&mut world, 1, 204);
    let (text, _) = old.heard(&mut world);
    assert!(text.starts_with("HTTP/1.1 204"), "{text}");
    let mut hand = Hand::new(&world);
    for (stream, count) in [(3, 3), (5, 1000)] {
        hand.get(&mut world, "/0/x");
        peer.hear(&mut world);
        for _ in 0..count {
            peer.session.respond(stream, b"HTTP/1.1 103 X\r\nLink: x\r\n\r\n", false);
        }
        peer.say(&mut world);
        let (text, _) = hand.heard(&mut world);
        let passed = text.matches("HTTP/1.1 103").count();
        if count == 3 {
            assert_eq!(passed, 3);
            peer.answer(&mut world, stream, 204);
            assert_eq!(hand.status(&mut world), 204);
        } else {
            assert!(passed < 100 && text.contains("HTTP/1.1 502"), "{passed}");
        }
    }
}

#[test]
fn interim_answers_of_http1_have_an_end() {
    let mut world = World::with(&[], &Layout::simple(false));
    let mut hand = Hand::new(&world);
    hand.get(&mut world, "/0/x");
    let (mut app, _) = world.apps[0].accept().unwrap();
    app.write_all(&b"HTTP/1.1 103 X\r\n\r\n".repeat(1000)).unwrap();
    let (text, _) = hand.heard(&mut world);
    assert!(text.matches("HTTP/1.1 103").count() < 100 && text.contains("HTTP/1.1 502"), "{text}");
}

#[test]
fn a_connection_that_says_nothing_takes_no_more_streams() {
    let mut world = world(&[1], &|route| route.retry.times = 0);
    let mut hand = Hand::new(&world);
    hand.get(&mut world, "/0/warm");
    let mut one = Peer::accept(&mut world, 0).unwrap();
    one.hear(&mut world);
    one.answer(&mut world, 1, 200);
    assert_eq!(hand.status(&mut world), 200);
    hand.get(&mut world, "/0/slow");
    one.hear(&mut world);
    // It is slow, but there.
    world.wait(30 * SECOND);
    frame::begin(8, frame::PING, 0, 0, &mut one.session.out);
    one.session.out.extend_from_slice(b"are you?");
    one.say(&mut world);
    world.wait(31 * SECOND);
    assert_eq!(hand.status(&mut world), 504);
    hand.get(&mut world, "/0/hangs");
    assert_eq!(streams(&one.hear(&mut world)), [5]);
    world.wait(61 * SECOND);
    assert_eq!(hand.status(&mut world), 504);
    hand.get(&mut world, "/0/next");
    let mut two = Peer::accept(&mut world, 0).expect("another connection");
    assert_eq!(two.hear(&mut world), [(1, "/0/next".to_owned())]);
    two.answer(&mut world, 1, 200);
    assert_eq!(hand.status(&mut world), 200);
}

#[test]
fn a_connection_that_clients_have_given_up_takes_no_more_streams() {
    let mut world = world(&[1], &|_| {});
    let mut one = None;
    for n in 0..16 {
        let mut hand = Hand::new(&world);
        world.wait(SECOND);
        hand.get(&mut world, "/0/hangs");
        let peer = one.get_or_insert_with(|| Peer::accept(&mut world, 0).unwrap());
        assert_eq!(peer.hear(&mut world).len(), 1, "{n}");
        world.wait(SECOND);
        if n == 7 {
            // It is slow, but there.
            frame::begin(8, frame::PING, 0, 0, &mut peer.session.out);
            peer.session.out.extend_from_slice(b"are you?");
            peer.say(&mut world);
        }
        drop(hand);
        world.turns();
    }
    let mut hand = Hand::new(&world);
    hand.get(&mut world, "/0/next");
    let mut two = Peer::accept(&mut world, 0).expect("another connection");
    assert_eq!(two.hear(&mut world), [(1, "/0/next".to_owned())]);
    two.answer(&mut world, 1, 200);
    assert_eq!(hand.status(&mut world), 200);
}

#[test]
fn clients_that_withhold_their_bodies_end_no_connection() {
    let mut world = world(&[1], &|_| {});
    let mut one = None;
    for n in 0..12 {
        let mut hand = Hand::new(&world);
        world.wait(SECOND);
        hand.ask(&mut world, "POST /0/x HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\na");
        let peer = one.get_or_insert_with(|| Peer::accept(&mut world, 0).unwrap());
        assert_eq!(peer.hear(&mut world).len(), 1, "{n}");
        world.wait(SECOND);
        drop(hand);
        world.turns();
    }
    let mut hand = Hand::new(&world);
    hand.get(&mut world, "/0/next");
    let mut peer = one.unwrap();
    assert_eq!(peer.hear(&mut world).len(), 1);
    assert!(Peer::accept(&mut world, 0).is_none());
}

#[test]
fn little_waits_for_a_connection_that_takes_nothing() {
    let mut world = world(&[1], &|_| {});
    let mut hand = Hand::new(&world);
    hand.get(&mut world, "/0/warm");
    let mut one = Peer::accept(&mut world, 0).unwrap();
    one.hear(&mut world);
    one.answer(&mut world, 1, 200);
    let filler = "x".repeat(7000);
    let mut hands = Vec::new();
    // From now on nobody reads.
    for _ in 0..95 {
        let mut hand = Hand::new(&world);
        hand.ask(&mut world, &format!("GET /0/x HTTP/1.1\r\nHost: h\r\nX: {filler}\r\n\r\n"));
        hands.push(hand);
    }
    assert!(Peer::accept(&mut world, 0).is_some(), "everything waits for one connection");
}

#[test]
fn a_status_is_retried_at_once_and_answered_once() {
    let retry = Retry { times: 2, statuses: Retry::bit(503), ..Retry::default() };
    let mut world = world(&[1], &|route| route.retry = retry);
    let mut hand = Hand::new(&world);
    hand.get(&mut world, "/0/x");
    let mut peer = Peer::accept(&mut world, 0).unwrap();
    assert_eq!(streams(&peer.hear(&mut world)), [1]);
    peer.answer(&mut world, 1, 503);
    assert_eq!(streams(&peer.hear(&mut world)), [3]);
    peer.answer(&mut world, 3, 204);
    assert_eq!(hand.status(&mut world), 204);
    assert_eq!(peer.hear(&mut world), []);
}

#[test]
fn a_shared_connection_that_nobody_uses_makes_room() {
    let limits = Limits { connections: 1, ..Limits::default() };
    let settings = backend::Settings { limits, ..Layout::simple(true).settings };
    let mut world = World::with(&[], &Layout { backends: &[2], settings, change: &|_| {} });
    let mut hand = Hand::new(&world);
    for turn in 0..6 {
        hand.get(&mut world, "/0/x");
        let mut peer = Peer::accept(&mut world, turn % 2).expect("a connection");
        assert_eq!(streams(&peer.hear(&mut world)), [1]);
        peer.answer(&mut world, 1, 204);
        assert_eq!(hand.status(&mut world), 204);
    }
}

#[test]
fn a_second_try_has_the_same_trailers() {
    let mut world = world(&[2], &|route| route.retry.hedge = SECOND);
    let mut hand = Hand::new(&world);
    let body = "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n";
    hand.ask(&mut world, &format!("PUT /0/x HTTP/1.1\r\nHost: h\r\n{body}"));
    let mut first = Peer::accept(&mut world, 0).unwrap();
    first.hear(&mut world);
    world.wait(2 * SECOND);
    let mut second = Peer::accept(&mut world, 1).unwrap();
    second.hear(&mut world);
    assert_eq!(first.came[&1], ("/0/x".to_owned(), b"abc".to_vec(), "x-sum: 1\r\n".to_owned()));
    assert_eq!(second.came[&1], first.came[&1]);
}

#[test]
fn who_takes_no_streams_is_not_asked_over_new_connections() {
    let mut world = world(&[1], &|_| {});
    let mut hand = Hand::new(&world);
    let mut peers = Vec::new();
    for _ in 0..5 {
        hand.get(&mut world, "/0/x");
        while let Some(mut peer) = Peer::accept(&mut world, 0) {
            // SETTINGS_MAX_CONCURRENT_STREAMS: 0
            frame::begin(6, frame::SETTINGS, 0, 0, &mut peer.session.out);
            peer.session.out.extend_from_slice(&[0, 3, 0, 0, 0, 0]);
            for stream in streams(&peer.hear(&mut world)) {
                peer.reset(&mut world, stream, Code::Refused);
            }
            peers.push(peer);
        }
        assert_eq!(hand.status(&mut world), 503);
    }
    assert_eq!(peers.len(), 1);
    // It does again.
    frame::begin(6, frame::SETTINGS, 0, 0, &mut peers[0].session.out);
    peers[0].session.out.extend_from_slice(&[0, 3, 0, 0, 0, 9]);
    peers[0].say(&mut world);
    hand.get(&mut world, "/0/y");
    let new = peers[0].hear(&mut world);
    assert_eq!(new.len(), 1);
    peers[0].answer(&mut world, new[0].0, 204);
    assert_eq!(hand.status(&mut world), 204);
}

// === a filter that waits ===

#[derive(Debug, Default)]
struct Park(Mutex<Vec<Waiter>>);

impl Gate for Park {
    fn ask(&self, asked: &Asked<'_>, _: &mut NotesSlot) -> Flow {
        self.0.lock().unwrap().extend(asked.waiting.map(|waiting| waiting.waiter()));
        Flow::Wait
    }
}

/// A client of HTTP/2 whose whole request comes while a filter waits; then the filter lets it go on.
fn parked(world: &mut World, park: &Park, head: &str, body: &[u8], trailers: &[u8]) -> Client {
    let mut client = Client::new(&world.directory.join("in"), 0, &[], true);
    let session = client.h2.as_mut().unwrap();
    let id = session.request(0, head.as_bytes(), false, false);
    session.send(id, [body, b""], trailers.is_empty());
    if !trailers.is_empty() {
        session.send_trailers(id, trailers);
    }
    client.write(usize::MAX);
    world.turns();
    let waiters = std::mem::take(&mut *park.0.lock().unwrap());
    waiters.into_iter().for_each(|waiter| waiter.tell(Flow::Continue, Vec::new()));
    world.turns();
    client
}

/// All that has come on the next connection to an application of HTTP/1.1.
fn arrived(world: &mut World, app: usize) -> String {
    world.turns();
    let (mut stream, _) = world.apps[app].accept().expect("a connection");
    stream.set_nonblocking(true).unwrap();
    let mut got = Vec::new();
    let _ = stream.read_to_end(&mut got);
    let text = String::from_utf8(got).unwrap();
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    world.turns();
    text
}

#[test]
fn a_body_that_comes_while_a_filter_waits_is_in_the_copy() {
    let park = Arc::new(Park::default());
    let change = |route: &mut Route| {
        route.filters.push(Filter::Gate(Arc::<Park>::clone(&park)));
        mirror(route);
    };
    let mut world = World::with(&[], &Layout { backends: &[1, 1], change: &change, ..Layout::simple(false) });
    for framing in ["Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"] {
        let head = format!("POST /0/x HTTP/1.1\r\nHost: h\r\n{framing}\r\n");
        let _client = parked(&mut world, &park, &head, b"hello", b"");
        let (own, copy) = (arrived(&mut world, 0), arrived(&mut world, 1));
        assert!(own.ends_with("\r\n\r\nhello") || own.ends_with("\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), "{own}");
        let head = copy.strip_suffix("\r\n\r\nhello").unwrap_or_else(|| panic!("{copy}"));
        let length = head.to_ascii_lowercase().split("content-length:").nth(1).unwrap().trim_start().to_owned();
        assert_eq!(length.lines().next().unwrap().trim(), "5");
    }
}

#[test]
fn a_body_that_comes_while_a_filter_waits_is_written_as_the_backend_reads() {
    for http2 in [true, false] {
        let park = Arc::new(Park::default());
        let change = |route: &mut Route| route.filters.push(Filter::Gate(Arc::<Park>::clone(&park)));
        let mut world = World::with(&[], &Layout { change: &change, ..Layout::simple(http2) });
        let head = "POST /0/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
        let _client = parked(&mut world, &park, head, b"hello", b"x-t: 1\r\n");
        if http2 {
            let mut peer = Peer::accept(&mut world, 0).unwrap();
            peer.hear(&mut world);
            assert_eq!(peer.came[&1], ("/0/x".to_owned(), b"hello".to_vec(), "x-t: 1\r\n".to_owned()));
        } else {
            let got = arrived(&mut world, 0);
            assert!(got.ends_with("\r\n\r\n5\r\nhello\r\n0\r\nx-t: 1\r\n\r\n"), "{got}");
        }
    }
}
