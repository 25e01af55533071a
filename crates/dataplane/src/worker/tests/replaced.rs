//! Connections that served before and end with a request on them: how often such a request is sent again.

use super::sharing::Peer;
use super::*;

/// An application that ends every connection with the first request after `good` answered ones; the requests it has seen.
fn take_all(world: &mut World, kept: &mut Vec<UnixStream>, ends: bool) -> usize {
    let mut seen = 0;
    for _ in 0..40 {
        world.turn();
        while let Ok((stream, _)) = world.apps[0].accept() {
            stream.set_nonblocking(true).unwrap();
            kept.push(stream);
        }
        kept.retain_mut(|stream| {
            let mut got = Vec::new();
            let _ = stream.read_to_end(&mut got);
            let asked = String::from_utf8_lossy(&got).matches("GET ").count();
            seen += asked;
            if asked > 0 && !ends {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
            }
            asked == 0 || !ends
        });
    }
    seen
}

fn statuses(hand: &mut Hand) -> Vec<u16> {
    let mut got = Vec::new();
    let _ = hand.0.read_to_end(&mut got);
    let text = String::from_utf8(got).unwrap();
    text.match_indices("HTTP/1.1 ").map(|(at, name)| text[at + name.len()..][..3].parse().unwrap()).collect()
}

#[test]
fn a_request_that_ends_pooled_connections_is_sent_twice_and_not_through_the_whole_pool() {
    for (times, most) in [(0, 2), (1, 3)] {
        let mut world =
            World::with(&[], &Layout { change: &|route| route.retry.times = times, ..Layout::simple(false) });
        let mut kept = Vec::new();
        let mut hands: Vec<Hand> = (0..6).map(|_| Hand::new(&world)).collect();
        for hand in &mut hands {
            hand.0.write_all(b"GET /0 HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        }
        // All at once, so that there are six connections.
        assert_eq!(take_all(&mut world, &mut kept, false), 6);
        assert_eq!(kept.len(), 6);
        hands.iter_mut().for_each(|hand| assert_eq!(statuses(hand), [200]));
        hands[0].0.write_all(b"GET /0/deadly HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        assert_eq!(take_all(&mut world, &mut kept, true), most);
        assert_eq!(statuses(&mut hands[0]), [502]);
    }
}

#[test]
fn one_connection_that_ended_while_idle_is_replaced_without_retries() {
    let mut world = World::with(&[], &Layout { change: &|route| route.retry.times = 0, ..Layout::simple(false) });
    let (mut kept, mut hand) = (Vec::new(), Hand::new(&world));
    hand.0.write_all(b"GET /0 HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    assert_eq!(take_all(&mut world, &mut kept, false), 1);
    assert_eq!(statuses(&mut hand), [200]);
    // It arrives while the application ends the connection.
    hand.0.write_all(b"GET /0 HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    world.turn();
    kept.clear();
    assert_eq!(take_all(&mut world, &mut kept, false), 1);
    assert_eq!(statuses(&mut hand), [200]);
}

#[test]
fn requests_that_end_shared_connections_are_sent_twice() {
    let mut world = World::with(&[], &Layout { change: &|route| route.retry.times = 0, ..Layout::simple(true) });
    let mut hands: Vec<Hand> = (0..4).map(|_| Hand::new(&world)).collect();
    for hand in &mut hands {
        hand.0.write_all(b"GET /0 HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    }
    let mut seen = 0;
    while let Some(mut peer) = Peer::accept(&mut world, 0) {
        (0..3).for_each(|_| seen += peer.hear(&mut world).len());
        drop(peer);
        assert!(seen < 40);
    }
    hands.iter_mut().for_each(|hand| assert_eq!(statuses(hand), [502]));
    assert!(seen <= 8, "{seen} of four requests");
}

#[test]
fn what_a_backend_has_not_looked_at_is_sent_again_but_not_for_ever() {
    let mut world = World::with(&[], &Layout { change: &|route| route.retry.times = 0, ..Layout::simple(true) });
    let mut hands: Vec<Hand> = (0..4).map(|_| Hand::new(&world)).collect();
    for hand in &mut hands {
        hand.0.write_all(b"POST /0 HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n").unwrap();
    }
    let mut seen = 0;
    while let Some(mut peer) = Peer::accept(&mut world, 0) {
        seen += peer.hear(&mut world).len();
        frame::put_goaway(0, Code::None, &mut peer.session.out);
        peer.hear(&mut world);
        assert!(seen < 100);
    }
    hands.iter_mut().for_each(|hand| assert_eq!(statuses(hand), [502]));
    assert!((20..=36).contains(&seen), "{seen} of four requests");
}
