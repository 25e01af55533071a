//! How many requests of a route may be in flight. The limit is fixed, or found: by the ratio of the latency without a queue
//! to the present one, as TCP Vegas finds its window (Brakmo and Peterson, "TCP Vegas", 1995) and Netflix's
//! concurrency-limits its gradient ("Performance Under Load", 2018). A failure halves it, which is the decrease of AIMD
//! (Chiu and Jain, 1989).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Asked, Flow, Gate, Notes, NotesSlot, Response};
use crate::clock::{MILLISECOND, SECOND};
use crate::count::Tally;
use crate::exchange::Failure;

/// How the limit is found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adaptive {
    pub least: u32,
    pub most: u32,
    /// The latency may be so many times what it is without a queue before the limit falls.
    pub tolerance: f64,
}

#[derive(Debug)]
pub struct Concurrency {
    state: Arc<State>,
    refused: Tally,
}

#[derive(Debug)]
struct State {
    active: AtomicU64,
    limit: AtomicU64,
    adaptive: Option<Adaptive>,
    window: Mutex<Window>,
}

/// What was seen since the limit was last looked at.
#[derive(Debug)]
struct Window {
    began: u64,
    count: u64,
    sum: u64,
    failed: bool,
    /// Most requests in flight.
    peak: u64,
    /// The limit with its fraction.
    limit: f64,
    /// The least average in this epoch and in the one before: the latency without a queue.
    least: [u64; 2],
    epoch: u64,
}

/// Samples that make an average worth looking at…
const SAMPLES: u64 = 20;
/// …and the time they are gathered for at least.
const WINDOW: u64 = 100 * MILLISECOND;
/// The least latency is forgotten after one to two of these, since what is behind may have changed.
const EPOCH: u64 = 30 * SECOND;
/// How much of the way to a new limit is gone at once.
const STEP: f64 = 0.2;

impl Concurrency {
    /// `limit` is where an adaptive one begins.
    pub fn new(limit: u32, adaptive: Option<Adaptive>) -> Concurrency {
        let window = Window {
            began: 0,
            count: 0,
            sum: 0,
            failed: false,
            peak: 0,
            limit: f64::from(limit),
            least: [u64::MAX; 2],
            epoch: 0,
        };
        let state = State {
            active: AtomicU64::new(0),
            limit: AtomicU64::new(u64::from(limit)),
            adaptive,
            window: Mutex::new(window),
        };
        Concurrency { state: Arc::new(state), refused: Tally::default() }
    }
}

/// One of the requests in flight; gives its place back when it is dropped.
#[derive(Debug)]
pub struct Permit {
    state: Arc<State>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.state.active.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Permit {
    /// How the request went: nanoseconds the backend took, or that it failed.
    pub fn learn(&self, took: u64, failed: bool, now: u64) {
        let Some(adaptive) = self.state.adaptive else { return };
        if took == 0 && !failed {
            return;
        }
        let active = self.state.active.load(Ordering::Relaxed);
        let mut window = self.state.window.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(limit) = window.add(adaptive, took, failed, active, now) {
            self.state.limit.store(limit, Ordering::Release);
        }
    }
}

impl Window {
    /// The new limit, if it is time for one.
    fn add(&mut self, adaptive: Adaptive, took: u64, failed: bool, active: u64, now: u64) -> Option<u64> {
        if self.began == 0 {
            self.began = now;
        }
        self.peak = self.peak.max(active);
        if failed {
            self.failed = true;
        } else {
            self.count += 1;
            self.sum += took;
        }
        if (self.count < SAMPLES && !self.failed) || now.saturating_sub(self.began) < WINDOW {
            return None;
        }
        let limit = self.limit;
        let next = if self.failed {
            limit / 2.0
        } else {
            let average = self.sum / self.count;
            let epoch = now / EPOCH;
            if epoch != self.epoch {
                self.least = [average, if epoch == self.epoch + 1 { self.least[0] } else { u64::MAX }];
                self.epoch = epoch;
            }
            self.least[0] = self.least[0].min(average);
            let least = self.least[0].min(self.least[1]);
            let gradient = (adaptive.tolerance * least as f64 / average as f64).clamp(0.5, 1.0);
            // Room for a short queue lets the limit grow while there is none.
            let wanted = limit * gradient + limit.sqrt();
            // Whoever does not use what is allowed learns nothing about more.
            if wanted > limit && (self.peak as f64) < limit / 2.0 { limit } else { limit + STEP * (wanted - limit) }
        };
        self.limit = next.clamp(f64::from(adaptive.least), f64::from(adaptive.most));
        (self.began, self.count, self.sum, self.failed, self.peak) = (now, 0, 0, false, 0);
        Some(self.limit as u64)
    }
}

impl Gate for Concurrency {
    fn ask(&self, _: &Asked<'_>, notes: &mut NotesSlot) -> Flow {
        let limit = self.state.limit.load(Ordering::Acquire);
        let before = self.state.active.fetch_add(1, Ordering::AcqRel);
        let permit = Permit { state: Arc::clone(&self.state) };
        if before < limit {
            Notes::of(notes).permits.push(permit);
            return Flow::Continue;
        }
        drop(permit);
        self.refused.add();
        let mut response = Response::refuse(503, Failure::Limit, "the route has too many requests");
        response.lines.extend_from_slice(b"Retry-After: 1\r\n");
        Flow::Respond(response)
    }

    fn count(&self, tell: &mut dyn FnMut(&str, &str, u64)) {
        tell("concurrency", "deny", self.refused.value());
    }

    fn gauge(&self, tell: &mut dyn FnMut(&str, u64)) {
        tell("limit", self.state.limit.load(Ordering::Relaxed));
        tell("active", self.state.active.load(Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::example::Example;

    #[test]
    fn places_are_given_back() {
        let gate = Concurrency::new(2, None);
        let example = Example::new(&["GET /"]);
        let (mut first, mut second) = (None, None);
        assert!(matches!(gate.ask(&example.asked(), &mut first), Flow::Continue));
        assert!(matches!(gate.ask(&example.asked(), &mut second), Flow::Continue));
        assert_eq!(example.status(&gate), 503);
        drop(first);
        assert_eq!(example.status(&gate), 0);
        drop(second);
        assert_eq!(gate.state.active.load(Ordering::Relaxed), 0);
    }

    /// A backend that serves `servers` requests at once, each in 10 ms; the rest queue. As many clients ask as may.
    fn settle(servers: u64, start: f64, rounds: u64) -> f64 {
        let adaptive = Adaptive { least: 1, most: 1000, tolerance: 1.5 };
        let mut window =
            Window { began: 0, count: 0, sum: 0, failed: false, peak: 0, limit: start, least: [u64::MAX; 2], epoch: 0 };
        let mut now = SECOND;
        for _ in 0..rounds {
            let active = window.limit as u64;
            let took = 10 * MILLISECOND * active.div_ceil(servers).max(1);
            now += 5 * MILLISECOND;
            window.add(adaptive, took, false, active, now);
        }
        window.limit
    }

    #[test]
    fn the_limit_finds_what_the_backend_bears() {
        // Without a queue at first, from below: it ends where the latency has about grown to the tolerance.
        let found = settle(50, 20.0, 20_000);
        assert!((40.0..160.0).contains(&found), "{found}");
        let small = settle(5, 4.0, 20_000);
        assert!((3.0..25.0).contains(&small), "{small}");
        assert!(settle(1000, 20.0, 20_000) > 500.0, "room that is there is used");
    }

    #[test]
    fn failures_halve_it_and_idle_clients_do_not_raise_it() {
        let adaptive = Adaptive { least: 5, most: 100, tolerance: 2.0 };
        let gate = Concurrency::new(80, Some(adaptive));
        let permit = Permit { state: Arc::clone(&gate.state) };
        gate.state.active.store(1, Ordering::Relaxed);
        let limit = || gate.state.limit.load(Ordering::Relaxed);
        permit.learn(0, true, SECOND);
        permit.learn(0, true, 2 * SECOND);
        assert_eq!(limit(), 40);
        for tick in 0..1000 {
            permit.learn(MILLISECOND, false, 3 * SECOND + tick * 10 * MILLISECOND);
        }
        assert_eq!(limit(), 40, "one at a time proves nothing");
        for second in 20..40 {
            permit.learn(0, true, second * SECOND);
        }
        assert_eq!(limit(), 5);
    }

    /// What a limit of 100 is after so many samples of so many milliseconds with all places taken, a second apart.
    fn after(samples: &[(u64, u64)]) -> u64 {
        let gate = Concurrency::new(100, Some(Adaptive { least: 1, most: 1000, tolerance: 1.0 }));
        let permit = Permit { state: Arc::clone(&gate.state) };
        gate.state.active.store(100, Ordering::Relaxed);
        let mut now = SECOND;
        for (count, took) in samples {
            for _ in 0..*count {
                permit.learn(took * MILLISECOND, false, now);
            }
            now += SECOND;
            permit.learn(took * MILLISECOND, false, now);
        }
        gate.state.active.store(1, Ordering::Relaxed);
        gate.state.limit.load(Ordering::Relaxed)
    }

    #[test]
    fn a_limit_moves_by_averages() {
        assert_eq!(after(&[(5, 10)]), 100, "so few say nothing");
        assert_eq!(after(&[(30, 10)]), 102);
        // An answer that needed no backend says nothing of it.
        assert_eq!(after(&[(30, 0)]), 100);
        // However slow it has become, it falls by a tenth at most: half the way to half.
        let slow = after(&[(30, 10), (30, 10_000)]);
        assert!((90..=94).contains(&slow), "{slow}");
    }

    #[test]
    fn what_was_quick_long_ago_is_forgotten() {
        let gate = Concurrency::new(100, Some(Adaptive { least: 1, most: 1000, tolerance: 1.0 }));
        let permit = Permit { state: Arc::clone(&gate.state) };
        gate.state.active.store(100, Ordering::Relaxed);
        let limit = || gate.state.limit.load(Ordering::Relaxed);
        let learn = |took: u64, seconds: std::ops::Range<u64>| {
            for second in seconds {
                (0..30).for_each(|_| permit.learn(took * MILLISECOND, false, second * SECOND));
            }
        };
        learn(10, 30..40);
        let before = limit();
        learn(40, 40..59);
        let slow = limit();
        assert!(slow < before / 2, "{before} {slow}");
        // Its epoch and the next have passed: so it is now, and the limit grows again.
        learn(40, 59..130);
        assert!(limit() > slow, "{slow} {}", limit());
    }
}
