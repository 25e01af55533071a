//! Filters that ask somebody who does not answer: the worker waits for as long as the filter has said, not for as long as
//! that takes.

use std::sync::Mutex;

use super::*;
use crate::filter::wait::Waiter;
use crate::filter::{Asked, Filter, Flow, Gate, NotesSlot, Response};

const PATIENCE: u64 = 600 * SECOND;

/// Asks, and is told nothing.
#[derive(Debug, Default)]
struct Silent {
    asked: Mutex<Vec<Waiter>>,
    open: bool,
}

impl Gate for Silent {
    fn ask(&self, asked: &Asked<'_>, _: &mut NotesSlot) -> Flow {
        self.asked.lock().unwrap().extend(asked.waiting.map(|waiting| waiting.waiter()));
        Flow::Wait
    }

    fn patience(&self) -> Duration {
        Duration::from_nanos(PATIENCE)
    }

    fn late(&self) -> Flow {
        match self.open {
            true => Flow::Continue,
            false => Flow::Respond(Response { status: 418, ..Response::default() }),
        }
    }
}

fn world(gates: &[&Arc<Silent>]) -> World {
    let change = |route: &mut Route| {
        route.filters.extend(gates.iter().map(|gate| Filter::Gate(Arc::<Silent>::clone(gate))));
    };
    World::with(&[], &Layout { change: &change, ..Layout::simple(false) })
}

#[test]
fn a_filter_that_is_told_nothing_is_decided_about_in_time() {
    let gate = Arc::new(Silent::default());
    let mut world = world(&[&gate]);
    let mut hand = Hand::new(&world);
    assert_eq!(hand.say(&mut world, b"GET /0/x HTTP/1.1\r\nHost: h\r\n\r\n"), (vec![], false));
    // Longer than any of the client's own deadlines: it has done its part.
    world.wait(PATIENCE - SECOND);
    assert_eq!(hand.hear(&mut world), (vec![], false));
    world.wait(2 * SECOND);
    assert_eq!(hand.hear(&mut world), (vec![418], false));
    // What it is told later is too late, also for the next request.
    let late = std::mem::take(&mut *gate.asked.lock().unwrap());
    assert_eq!(hand.say(&mut world, b"GET /0/x HTTP/1.1\r\nHost: h\r\n\r\n"), (vec![], false));
    late.into_iter().for_each(|waiter| waiter.tell(Flow::Continue, Vec::new()));
    world.wait(SECOND);
    assert_eq!(hand.hear(&mut world), (vec![], false));
    assert!(world.apps[0].accept().is_err(), "nothing has gone on");
    world.wait(PATIENCE);
    assert_eq!(hand.hear(&mut world), (vec![418], false));
}

#[test]
fn each_filter_has_its_own_patience() {
    let (first, second) = (Arc::new(Silent::default()), Arc::new(Silent { open: true, ..Silent::default() }));
    let mut world = world(&[&first, &second]);
    let mut hand = Hand::new(&world);
    hand.say(&mut world, b"GET /0/x HTTP/1.1\r\nHost: h\r\n\r\n");
    world.wait(PATIENCE / 2);
    let told = std::mem::take(&mut *first.asked.lock().unwrap());
    told.into_iter().for_each(|waiter| waiter.tell(Flow::Continue, Vec::new()));
    world.wait(0);
    // The first's time comes while the second is waited for.
    world.wait(PATIENCE / 2 + SECOND);
    assert_eq!(hand.hear(&mut world), (vec![], false));
    assert!(world.apps[0].accept().is_err(), "the second has time left");
    world.wait(PATIENCE / 2);
    assert!(world.apps[0].accept().is_ok(), "it lets go on what it is not told about");
}

#[test]
fn streams_are_decided_about_in_time() {
    let gate = Arc::new(Silent { open: true, ..Silent::default() });
    let mut world = world(&[&gate]);
    let mut client = Client::new(&world.directory.join("in"), 0, &[], true);
    let session = client.h2.as_mut().unwrap();
    session.request(0, b"GET /0/x HTTP/1.1\r\nHost: h\r\n\r\n", true, false);
    client.write(usize::MAX);
    world.wait(0);
    world.wait(PATIENCE - SECOND);
    assert!(world.apps[0].accept().is_err(), "it is still waited for");
    world.wait(2 * SECOND);
    assert!(world.apps[0].accept().is_ok());
}
