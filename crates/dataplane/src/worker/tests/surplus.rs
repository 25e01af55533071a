//! Bytes of an application that nobody asked for: they are never taken for the answer to somebody's request.

use super::*;

const GET: &[u8] = b"GET /0 HTTP/1.1\r\nHost: h\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// As good an answer as the others, but to nothing.
const SURPLUS: &[u8] = b"HTTP/1.1 418 Surplus\r\nContent-Length: 0\r\n\r\n";

/// An application that reads and writes when it is told to.
struct App(UnixStream);

impl App {
    fn accept(world: &mut World) -> App {
        (0..4).for_each(|_| world.turn());
        let (stream, _) = world.apps[0].accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        App(stream)
    }

    fn read(&mut self) -> Vec<u8> {
        let mut got = Vec::new();
        let _ = self.0.read_to_end(&mut got);
        got
    }
}

/// A client whose request has been answered, and the application's connection, which is in the pool.
fn answered(world: &mut World) -> (Hand, App) {
    let mut hand = Hand::new(world);
    hand.0.write_all(GET).unwrap();
    let mut app = App::accept(world);
    assert!(!app.read().is_empty());
    app.0.write_all(ANSWER).unwrap();
    (0..4).for_each(|_| world.turn());
    assert_eq!(statuses(&mut hand), [200]);
    (hand, app)
}

fn statuses(hand: &mut Hand) -> Vec<u16> {
    let mut got = Vec::new();
    let _ = hand.0.read_to_end(&mut got);
    let text = String::from_utf8_lossy(&got);
    text.match_indices("HTTP/1.1 ").map(|(at, name)| text[at + name.len()..][..3].parse().unwrap()).collect()
}

/// The request goes over a new connection, and is answered there.
fn served_elsewhere(world: &mut World, hand: &mut Hand) {
    let mut other = App::accept(world);
    assert!(other.read().starts_with(b"GET /0 "));
    other.0.write_all(ANSWER).unwrap();
    (0..4).for_each(|_| world.turn());
    assert_eq!(statuses(hand), [200]);
}

#[test]
fn what_follows_a_read_of_all_the_room_is_no_answer() {
    let mut world = World::new(&[], false);
    let mut hand = Hand::new(&world);
    hand.0.write_all(&[GET, GET].concat()).unwrap();
    let mut app = App::accept(&mut world);
    assert!(!app.read().is_empty());
    // The answer is just as long as what is read at once.
    let head = |length: usize| format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
    let length = ROOM - head(ROOM).len();
    let answer = [head(length).as_bytes(), &vec![b'x'; length]].concat();
    assert_eq!(answer.len(), ROOM);
    app.0.write_all(&[&answer, SURPLUS].concat()).unwrap();
    (0..4).for_each(|_| world.turn());
    assert_eq!(statuses(&mut hand), [200]);
    served_elsewhere(&mut world, &mut hand);
}

#[test]
fn what_comes_with_the_next_request_is_no_answer() {
    let mut world = World::new(&[], false);
    let (mut hand, mut app) = answered(&mut world);
    // Both are told of in one round, the client first.
    hand.0.write_all(GET).unwrap();
    app.0.write_all(SURPLUS).unwrap();
    served_elsewhere(&mut world, &mut hand);
    assert_eq!(app.read(), b"");
}

#[test]
fn what_a_full_round_does_not_tell_is_no_answer() {
    let mut world = World::new(&[], false);
    let (mut hand, mut app) = answered(&mut world);
    let room = world.events.capacity();
    let others: Vec<Hand> = (1..room).map(|_| Hand::new(&world)).collect();
    (0..4).for_each(|_| world.turn());
    hand.0.write_all(GET).unwrap();
    others.iter().for_each(|other| (&other.0).write_all(b"\r\n").unwrap());
    app.0.write_all(SURPLUS).unwrap();
    world.turn();
    assert_eq!(world.events.len(), room);
    served_elsewhere(&mut world, &mut hand);
}

#[test]
fn only_what_is_known_to_be_silent_is_not_asked() {
    for (method, status, asked) in [("GET", "200", false), ("HEAD", "200", true), ("GET", "304", true)] {
        let mut world = World::new(&[], false);
        let mut hand = Hand::new(&world);
        hand.0.write_all(format!("{method} /0 HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).unwrap();
        let mut app = App::accept(&mut world);
        assert!(!app.read().is_empty());
        app.0.write_all(format!("HTTP/1.1 {status} OK\r\nContent-Length: 0\r\n\r\n").as_bytes()).unwrap();
        world.turn();
        let round = world.worker.round;
        let u = world.worker.ups.indices()[0];
        let silent_after = if asked { u64::MAX } else { round };
        assert_eq!(world.worker.ups.get(u).unwrap().silent_after, silent_after, "{method} {status}");
    }
}

#[test]
fn a_body_that_must_not_come_has_time_to_come() {
    for (declared, waits, same) in [(5, 0, false), (5, 2, true), (0, 0, true)] {
        let mut world = World::new(&[], false);
        let mut hand = Hand::new(&world);
        hand.0.write_all(b"HEAD /0 HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        let mut app = App::accept(&mut world);
        assert!(!app.read().is_empty());
        app.0.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {declared}\r\n\r\n").as_bytes()).unwrap();
        (0..4).for_each(|_| world.turn());
        assert_eq!(statuses(&mut hand), [200]);
        clock::hold(clock::now() + waits * MILLISECOND);
        hand.0.write_all(GET).unwrap();
        (0..4).for_each(|_| world.turn());
        assert_eq!(!app.read().is_empty(), same, "{declared} {waits}");
    }
}

#[test]
fn an_answer_that_may_not_declare_a_body_and_does_is_its_connections_last() {
    for declared in ["Content-Length: 5", "Transfer-Encoding: chunked"] {
        let mut world = World::new(&[], false);
        let mut hand = Hand::new(&world);
        hand.0.write_all(GET).unwrap();
        let mut app = App::accept(&mut world);
        assert!(!app.read().is_empty());
        app.0.write_all(format!("HTTP/1.1 204 No Content\r\n{declared}\r\n\r\n").as_bytes()).unwrap();
        (0..4).for_each(|_| world.turn());
        assert_eq!(statuses(&mut hand), [204]);
        // However long it takes to send it.
        clock::hold(clock::now() + SECOND);
        hand.0.write_all(GET).unwrap();
        served_elsewhere(&mut world, &mut hand);
        assert_eq!(app.read(), b"", "{declared}");
    }
}
