//! Filters that want to see the beginning of a body: whatever comes of it in whatever pieces, they see it as it is, and the
//! application gets it as if nobody had looked.

use super::*;
use crate::filter::{Asked, Filter, Flow, Gate, NotesSlot, Response};

/// Wants so many bytes, checks those of a script, and denies what says so.
#[derive(Debug)]
struct Reads(usize);

impl Gate for Reads {
    fn ask(&self, asked: &Asked<'_>, _: &mut NotesSlot) -> Flow {
        let Some(seen) = asked.body.filter(|seen| seen.is_enough(self.0)) else { return Flow::Body(self.0) };
        let mut numbers = asked.view.path.split(|byte| *byte == b'/').skip(1);
        let mut number = || std::str::from_utf8(numbers.next()?).ok()?.parse().ok();
        if let (Some(client), Some(number)) = (number(), number()) {
            assert_eq!(
                seen.bytes.escape_ascii().to_string(),
                body_of(client, number, seen.bytes.len()).escape_ascii().to_string()
            );
        }
        match seen.bytes.starts_with(b"bad") {
            true => Flow::Respond(Response { status: 418, ..Response::default() }),
            false => Flow::Continue,
        }
    }
}

fn gates(wants: &[usize]) -> impl Fn(&mut Route) {
    move |route| route.filters.extend(wants.iter().map(|wants| Filter::Gate(Arc::new(Reads(*wants)))))
}

fn world(wants: &[usize], change: &dyn Fn(&mut Route)) -> World {
    let gates = gates(wants);
    let both = |route: &mut Route| {
        gates(route);
        change(route);
    };
    World::with(&[], &Layout { change: &both, ..Layout::simple(false) })
}

fn post(fields: &str, body: &str) -> Vec<u8> {
    format!("POST /0/x HTTP/1.1\r\nHost: h\r\n{fields}\r\n{body}").into_bytes()
}

fn pass(world: &mut World, nanos: u64) {
    clock::hold(clock::now() + nanos);
    (0..6).for_each(|_| world.turn());
}

#[test]
fn a_denied_body_ends_nothing_else() {
    let mut world = world(&[10], &|_| {});
    let mut hand = Hand::new(&world);
    let get = b"GET /0/x HTTP/1.1\r\nHost: h\r\n\r\n";
    for bad in [
        post("Content-Length: 4\r\n", "bad!"),
        post("Transfer-Encoding: chunked\r\n", "1\r\nb\r\n3\r\nad!\r\n0\r\n\r\n"),
    ] {
        // What follows it is served, in one piece with it and in many.
        assert_eq!(hand.say(&mut world, &[&bad[..], get].concat()), (vec![418, 200], false));
        for byte in &bad[..bad.len() - 1] {
            assert_eq!(hand.say(&mut world, &[*byte]), (vec![], false));
        }
        assert_eq!(hand.say(&mut world, &[&bad[bad.len() - 1..], get].concat()), (vec![418, 200], false));
    }
    // Nobody knows where one ends that is still coming.
    assert_eq!(hand.say(&mut world, &post("Content-Length: 40\r\n", "bad and more")), (vec![418], true));
    // Only what was let go on came to the application.
    assert_eq!(world.seen.len(), 4);
}

#[test]
fn a_client_that_waits_for_its_invitation_gets_it() {
    let mut world = world(&[10], &|_| {});
    let mut hand = Hand::new(&world);
    assert_eq!(hand.say(&mut world, &post("Content-Length: 3\r\nExpect: 100-continue\r\n", "")), (vec![100], false));
    assert_eq!(hand.say(&mut world, b"bad"), (vec![418], false));
    assert_eq!(hand.say(&mut world, &post("Content-Length: 3\r\nExpect: 100-continue\r\n", "")), (vec![100], false));
    assert_eq!(hand.say(&mut world, b"abc"), (vec![200], false));
}

#[test]
fn a_body_that_does_not_come_is_not_waited_for() {
    let mut world = world(&[10], &|route| route.request_timeout = 300 * SECOND);
    let mut hand = Hand::new(&world);
    assert_eq!(hand.say(&mut world, &post("Content-Length: 9\r\n", "abc")), (vec![], false));
    // Each piece has the whole time again.
    pass(&mut world, 59 * SECOND);
    assert_eq!(hand.say(&mut world, b"d"), (vec![], false));
    pass(&mut world, 59 * SECOND);
    assert_eq!(hand.hear(&mut world), (vec![], false));
    pass(&mut world, 2 * SECOND);
    assert_eq!(hand.hear(&mut world).0, [408]);
    // It is the client's fault, also when the request's own time is over first.
    let mut slow = Hand::new(&world);
    assert_eq!(slow.say(&mut world, &post("Content-Length: 9\r\n", "")), (vec![], false));
    for _ in 0..6 {
        pass(&mut world, 49 * SECOND);
        let _ = slow.say(&mut world, b"e");
    }
    pass(&mut world, 7 * SECOND);
    assert_eq!(slow.hear(&mut world).0, [408]);
    drop(Hand::new(&world).say(&mut world, &post("Content-Length: 9\r\n", "abc")));
    (0..6).for_each(|_| world.turn());
    assert!(world.worker.exchanges.is_empty(), "who is gone is forgotten");
}

#[test]
fn bounds_hold_while_it_comes() {
    let mut world = world(&[1000], &|route| route.body_most = 20);
    let chunk = |length: usize| format!("{length:x}\r\n{}\r\n", "x".repeat(length));
    let mut hand = Hand::new(&world);
    assert_eq!(hand.say(&mut world, &post("Transfer-Encoding: chunked\r\n", &chunk(20))), (vec![], false));
    assert_eq!(hand.say(&mut world, chunk(1).as_bytes()).0, [413]);
    let mut hand = Hand::new(&world);
    assert_eq!(hand.say(&mut world, &post("Transfer-Encoding: chunked\r\n", &chunk(3))), (vec![], false));
    assert_eq!(hand.say(&mut world, b"nonsense\r\n").0, [400]);
    // More framing than body: it must not hide the body, nor fill the memory.
    let mut world = self::world(&[2000], &|_| {});
    let mut hand = Hand::new(&world);
    let padded = format!("1;{}\r\nx\r\n", "e".repeat(100));
    let (mut statuses, mut said) = (Vec::new(), 0);
    let _ = hand.say(&mut world, &post("Transfer-Encoding: chunked\r\n", ""));
    while statuses.is_empty() && said < 1000 {
        statuses = hand.say(&mut world, padded.as_bytes()).0;
        said += 1;
    }
    assert_eq!((statuses, said < 200), (vec![400], true), "{said}");
}

#[test]
fn later_filters_may_want_more() {
    let mut world = world(&[2, 2000, 6], &|_| {});
    let mut hand = Hand::new(&world);
    assert_eq!(hand.say(&mut world, &post("Content-Length: 3000\r\n", "0123")), (vec![], false));
    assert_eq!(hand.say(&mut world, &[b'x'; 1995]), (vec![], false));
    assert_eq!(world.servers.len(), 0);
    assert_eq!(hand.say(&mut world, &[b'x'; 1]), (vec![], false));
    assert_eq!(world.servers.len(), 1, "the application is asked");
    assert_eq!(hand.say(&mut world, &[b'x'; 1000]), (vec![200], false));
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_time: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn nobody_knows_that_a_filter_has_read_it(
        scripts in vec((any::<bool>(), asks()), 1..4), http2 in any::<bool>(), steps in script(15),
        wants in vec(prop_oneof![1usize..300, 1usize..60_000], 1..3), cut in any::<bool>(),
    ) {
        let trouble = if cut { Trouble::Cut } else { Trouble::None };
        check(&scripts, &steps, http2, trouble, &gates(&wants))?;
    }
}
