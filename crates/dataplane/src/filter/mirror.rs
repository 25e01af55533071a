//! Copies of requests for a second backend. Which requests are copied is decided here, as a step of their route; the worker
//! gathers the copy while the request goes by and sends it when it is whole (`worker/mirror.rs`). Whatever stands in the way,
//! it is the copy that is given up: too long a body, too many copies in flight, a backend that does not answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Asked, Flow, Gate, Notes, NotesSlot};
use crate::count::Tally;

/// All requests.
const WHOLE: f64 = 4_294_967_296.0;

/// Where copies go, and within which bounds.
#[derive(Debug)]
pub struct Target {
    /// The backend's number in the plan.
    pub backend: usize,
    /// Bytes of a body. A request with a longer one is not copied.
    pub body_most: usize,
    /// Copies in flight. A request that finds so many is not copied.
    pub flights_most: u64,
    /// Nanoseconds for a copy's whole life.
    pub timeout: u64,
    flights: AtomicU64,
    answered: Tally,
    failed: Tally,
    skipped: Tally,
}

#[derive(Debug)]
pub struct Mirror {
    target: Arc<Target>,
    /// Of 2³² requests.
    share: u64,
    sum: AtomicU64,
}

impl Mirror {
    /// Copies `percent` of the requests, evenly spread.
    pub fn new(percent: f64, (backend, body_most, flights_most, timeout): (usize, usize, u64, u64)) -> Mirror {
        let counts = (AtomicU64::default(), Tally::default(), Tally::default(), Tally::default());
        let (flights, answered, failed, skipped) = counts;
        let target = Target { backend, body_most, flights_most, timeout, flights, answered, failed, skipped };
        let share = (percent.clamp(0.0, 100.0) / 100.0 * WHOLE).round() as u64;
        Mirror { target: Arc::new(target), share, sum: AtomicU64::default() }
    }

    /// Whether the shares of all requests up to this one have come to another whole.
    fn is_drawn(&self) -> bool {
        let before = self.sum.fetch_add(self.share, Ordering::Relaxed);
        before >> 32 != before.wrapping_add(self.share) >> 32
    }
}

impl Gate for Mirror {
    fn ask(&self, _asked: &Asked<'_>, notes: &mut NotesSlot) -> Flow {
        if self.is_drawn() {
            Notes::of(notes).mirrors.push(Arc::clone(&self.target));
        }
        Flow::Continue
    }

    fn count(&self, tell: &mut dyn FnMut(&str, &str, u64)) {
        tell("mirror", "answered", self.target.answered.value());
        tell("mirror", "failed", self.target.failed.value());
        tell("mirror", "skipped", self.target.skipped.value());
    }
}

impl Target {
    /// A request was not copied after all.
    pub fn skip(&self) {
        self.skipped.add();
    }

    /// Room for one more copy, if there is.
    pub fn take_off(self: &Arc<Target>) -> Option<Flight> {
        let more = |flights: u64| (flights < self.flights_most).then_some(flights + 1);
        self.flights.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Flight { target: Arc::clone(self), answered: false })
    }
}

/// A copy on its way; gives its room back when it is dropped.
#[derive(Debug)]
pub struct Flight {
    target: Arc<Target>,
    /// The backend has answered.
    pub answered: bool,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.target.flights.fetch_sub(1, Ordering::Relaxed);
        if self.answered { self.target.answered.add() } else { self.target.failed.add() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::example::Example;

    fn drawn(percent: f64, of: usize) -> usize {
        let mirror = Mirror::new(percent, (0, 0, 1, 0));
        let asked = |_: &usize| {
            let mut notes = None;
            mirror.ask(&Example::new(&["GET /"]).asked(), &mut notes);
            notes.is_some_and(|notes| notes.mirrors.len() == 1)
        };
        (0..of).filter(asked).count()
    }

    #[test]
    fn a_share_is_exact() {
        for (percent, of, expected) in [(100.0, 7, 7), (0.0, 7, 0), (50.0, 8, 4), (25.0, 8, 2), (0.1, 1000, 1)] {
            let found = drawn(percent, of);
            assert!(found.abs_diff(expected) <= usize::from(percent == 0.1), "{percent} {found}");
        }
    }

    #[test]
    fn so_many_and_no_more() {
        let Mirror { target, .. } = Mirror::new(100.0, (0, 0, 1, 0));
        let mut flight = target.take_off().unwrap();
        assert!(target.take_off().is_none());
        flight.answered = true;
        drop(flight);
        assert!(target.take_off().is_some());
        assert_eq!((target.answered.value(), target.failed.value()), (1, 1));
    }
}
