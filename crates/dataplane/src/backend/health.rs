//! What all workers and the checker know together of an endpoint's health, and how failures lead to its being left out.
//!
//! ```text
//!   good ──failures in a row──▶ ejected ──time over, or it answers────────▶ on probation ──an answer──▶ good
//!                                  ▲──────────────────one failure──────────────────┘
//! ```

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::clock::SECOND;

/// When an endpoint is left out because of what it answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Passive {
    /// Failures in a row.
    pub failures: u32,
    /// Nanoseconds of the first ejection; the n-th is n times as long, up to ten.
    pub ejection: u64,
    /// Never are more of the endpoints left out than this many of a hundred.
    pub most_percent: u32,
}

/// The longest ejection is this many times the first.
const LONGEST: u32 = 10;

#[derive(Debug, Default)]
pub struct Health {
    /// Said by active checks.
    down: AtomicBool,
    failures: AtomicU32,
    /// In a row: each is longer than the one before.
    ejections: AtomicU32,
    /// Of all time.
    ejected: AtomicU64,
    ejected_until: AtomicU64,
    /// Back from an ejection, and nothing good has been seen since.
    probation: AtomicBool,
    /// Since when it serves; 0: from the beginning.
    since: AtomicU64,
    /// The shortest time in nanoseconds after which the endpoint closed an idle connection; 0: not seen.
    idle_seen: AtomicU64,
}

/// As people are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Good,
    /// Back after an ejection, not proved yet.
    Probation,
    Ejected,
    Down,
}

impl State {
    pub const fn name(self) -> &'static str {
        match self {
            State::Good => "good",
            State::Probation => "on probation",
            State::Ejected => "left out after failures",
            State::Down => "not well",
        }
    }
}

impl Health {
    pub fn since(at: u64) -> Health {
        Health { since: AtomicU64::new(at), ..Health::default() }
    }

    pub fn is_good(&self, now: u64) -> bool {
        !self.down.load(Ordering::Relaxed) && self.ejected_until.load(Ordering::Relaxed) <= now
    }

    pub fn state(&self, now: u64) -> State {
        match (self.is_down(), self.is_ejected(now), self.probation.load(Ordering::Relaxed)) {
            (true, _, _) => State::Down,
            (_, true, _) => State::Ejected,
            (_, _, true) => State::Probation,
            _ => State::Good,
        }
    }

    /// What an active check has found; whoever comes back serves from `now` on.
    pub fn set_down(&self, down: bool, now: u64) {
        if self.down.swap(down, Ordering::Relaxed) && !down {
            self.since.store(now, Ordering::Relaxed);
        }
    }

    pub fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    pub fn is_ejected(&self, now: u64) -> bool {
        self.ejected_until.load(Ordering::Relaxed) > now
    }

    /// How often it has been ejected.
    pub fn ejected(&self) -> u64 {
        self.ejected.load(Ordering::Relaxed)
    }

    /// A check has succeeded, or a second try that had nowhere else to go: an ejection need not wait for its end.
    pub fn recover(&self, now: u64) {
        if self.is_ejected(now) {
            self.ejected_until.store(now, Ordering::Relaxed);
        }
    }

    /// For how long it has been serving without a break.
    pub fn age(&self, now: u64) -> u64 {
        let since = self.since.load(Ordering::Relaxed).max(self.ejected_until.load(Ordering::Relaxed));
        if since == 0 { u64::MAX } else { now.saturating_sub(since) }
    }

    pub fn note_good(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
        if self.probation.load(Ordering::Relaxed) {
            self.probation.store(false, Ordering::Relaxed);
        }
    }

    /// One more failure; whether it is enough. On probation one is.
    pub fn note_bad(&self, passive: &Passive) -> bool {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        failures >= passive.failures || self.probation.load(Ordering::Relaxed)
    }

    /// Leaves it out, for longer each time; after ten of the first times without any it begins anew. Workers that see it fail
    /// together leave it out once.
    pub fn eject(&self, passive: &Passive, now: u64) {
        let until = self.ejected_until.load(Ordering::Relaxed);
        let quiet = now.saturating_sub(until) > passive.ejection.saturating_mul(u64::from(LONGEST));
        let before = if until == 0 || quiet { 0 } else { self.ejections.load(Ordering::Relaxed) };
        let next = now + passive.ejection * u64::from(before.min(LONGEST - 1) + 1);
        let first = || self.ejected_until.compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if until > now || !first() {
            return;
        }
        self.ejections.store(before + 1, Ordering::Relaxed);
        self.failures.store(0, Ordering::Relaxed);
        self.probation.store(true, Ordering::Relaxed);
        self.ejected.fetch_add(1, Ordering::Relaxed);
    }

    pub fn note_idle_close(&self, idle: u64) {
        // Below a second it is a restart or an overload, not a timeout.
        if idle > SECOND {
            let seen = self.idle_seen.load(Ordering::Relaxed);
            if seen == 0 || idle < seen {
                self.idle_seen.store(idle, Ordering::Relaxed);
            }
        }
    }

    /// How long a connection may be idle and still be used: a little less than what the endpoint was seen to bear.
    pub fn bears_idle(&self) -> u64 {
        match self.idle_seen.load(Ordering::Relaxed) {
            0 => u64::MAX,
            seen => seen - seen / 8,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSIVE: Passive = Passive { failures: 3, ejection: SECOND, most_percent: 100 };

    #[test]
    fn ejections_grow_and_are_forgotten() {
        let health = Health::default();
        assert!(!health.note_bad(&PASSIVE) && !health.note_bad(&PASSIVE) && health.note_bad(&PASSIVE));
        health.eject(&PASSIVE, 10);
        assert_eq!((health.state(11), health.state(SECOND + 11)), (State::Ejected, State::Probation));
        // One failure is enough now, and the second time is twice as long.
        assert!(health.note_bad(&PASSIVE));
        health.eject(&PASSIVE, 2 * SECOND);
        assert!(health.is_ejected(4 * SECOND - 1) && !health.is_ejected(4 * SECOND));
        health.note_good();
        assert_eq!(health.state(4 * SECOND), State::Good);
        assert!(!health.note_bad(&PASSIVE));
        // Long afterwards it is the first time again.
        health.eject(&PASSIVE, 60 * SECOND);
        assert!(!health.is_ejected(61 * SECOND));
        assert_eq!(health.ejected(), 3);
    }

    #[test]
    fn no_ejection_is_longer_than_ten_of_the_first() {
        let health = Health::default();
        for round in 1..30 {
            let now = round * 11 * SECOND;
            health.eject(&PASSIVE, now);
            let longest = round.min(10) * SECOND;
            assert!(health.is_ejected(now + longest - 1) && !health.is_ejected(now + longest), "{round}");
        }
    }

    #[test]
    fn a_little_less_than_the_shortest_that_was_seen() {
        let health = Health::default();
        assert_eq!(health.bears_idle(), u64::MAX);
        for (idle, bears) in
            [(SECOND, u64::MAX), (16 * SECOND, 14 * SECOND), (24 * SECOND, 14 * SECOND), (8 * SECOND, 7 * SECOND)]
        {
            health.note_idle_close(idle);
            assert_eq!(health.bears_idle(), bears);
        }
    }

    #[test]
    fn those_who_see_it_fail_together_leave_it_out_once() {
        let health = Health::default();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| health.eject(&PASSIVE, SECOND));
            }
        });
        assert_eq!(health.ejected(), 1);
        assert!(health.is_ejected(2 * SECOND - 1) && !health.is_ejected(2 * SECOND));
    }

    #[test]
    fn a_check_ends_an_ejection() {
        let health = Health::default();
        health.eject(&PASSIVE, SECOND);
        health.recover(SECOND + 5);
        assert_eq!((health.state(SECOND + 5), health.age(SECOND + 7)), (State::Probation, 2));
    }

    #[test]
    fn whoever_comes_back_is_young() {
        let health = Health::default();
        assert_eq!(health.age(7), u64::MAX);
        health.set_down(true, 10);
        health.set_down(false, 20);
        health.set_down(false, 30);
        assert_eq!(health.age(35), 15);
    }
}
