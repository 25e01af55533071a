//! The slowest requests of the last half minute or two, with their ledgers: what `outrigger-proxy trace` shows.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock::SECOND;
use crate::ledger::Ledger;

/// Requests kept of each period.
const KEPT: usize = 16;
const PERIOD: u64 = 30 * SECOND;

#[derive(Clone, Debug)]
pub struct Slow {
    /// Nanoseconds since 1970, at the end.
    pub wall: u64,
    pub method: String,
    pub host: String,
    pub path: String,
    pub status: u16,
    pub route: String,
    pub endpoint: String,
    pub tries: u32,
    pub failure: Option<&'static str>,
    /// If one has failed: each try's endpoint, outcome and nanoseconds.
    pub attempts: Vec<(String, String, u64)>,
    pub trace: Option<[u8; 16]>,
    pub ledger: Ledger,
}

#[derive(Debug, Default)]
pub struct Slowest {
    /// Only a request that took longer is worth the lock,
    threshold: AtomicU64,
    /// or one that ends later: it begins the next period.
    until: AtomicU64,
    periods: Mutex<Periods>,
}

#[derive(Debug, Default)]
struct Periods {
    began: u64,
    now: Vec<Slow>,
    before: Vec<Slow>,
}

impl Slowest {
    /// Whether a request of this length that ends now would be kept.
    pub fn wants(&self, total: u64, now: u64) -> bool {
        total > self.threshold.load(Ordering::Relaxed) || now >= self.until.load(Ordering::Relaxed)
    }

    pub fn add(&self, slow: Slow, now: u64) {
        let mut periods = self.turned(now);
        periods.now.push(slow);
        periods.now.sort_by_key(|slow| std::cmp::Reverse(slow.ledger.total()));
        periods.now.truncate(KEPT);
        if periods.now.len() == KEPT {
            let least = periods.now.last().map_or(0, |slow| slow.ledger.total());
            self.threshold.store(least, Ordering::Relaxed);
        }
    }

    /// All that are kept, the slowest first.
    pub fn list(&self, now: u64) -> Vec<Slow> {
        let periods = self.turned(now);
        let mut all: Vec<Slow> = periods.now.iter().chain(&periods.before).cloned().collect();
        all.sort_by_key(|slow| std::cmp::Reverse(slow.ledger.total()));
        all
    }

    /// The periods, with a new one if it is time.
    fn turned(&self, now: u64) -> MutexGuard<'_, Periods> {
        let mut periods = self.periods.lock().unwrap_or_else(PoisonError::into_inner);
        let age = now.saturating_sub(periods.began);
        if age >= PERIOD {
            let last = std::mem::take(&mut periods.now);
            periods.before = if age < 2 * PERIOD { last } else { Vec::new() };
            periods.began = now;
            self.threshold.store(0, Ordering::Relaxed);
            self.until.store(now + PERIOD, Ordering::Relaxed);
        }
        periods
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Phase;

    #[test]
    fn the_slowest_stay_for_a_while() {
        let slowest = Slowest::default();
        let add = |millis: u64, at: u64| {
            let mut ledger = Ledger::begin(0);
            ledger.note(Phase::App, millis * 1_000_000);
            if slowest.wants(ledger.total(), at) {
                let text = String::new;
                let slow = Slow {
                    wall: 0,
                    method: text(),
                    host: text(),
                    path: text(),
                    status: 200,
                    route: text(),
                    endpoint: text(),
                    tries: 1,
                    failure: None,
                    attempts: Vec::new(),
                    trace: None,
                    ledger,
                };
                slowest.add(slow, at);
            }
        };
        (0..100).for_each(|millis| add(millis, 40 * SECOND));
        let totals = |at| slowest.list(at).iter().map(|slow| slow.ledger.total() / 1_000_000).collect::<Vec<_>>();
        assert_eq!(totals(41 * SECOND), (84..100).rev().collect::<Vec<_>>());
        assert!(!slowest.wants(1_000_000, 69 * SECOND));
        // The next period's are slow enough by themselves, whatever the ones before were.
        add(5, 75 * SECOND);
        assert_eq!((totals(75 * SECOND).len(), totals(200 * SECOND).len()), (17, 0));
    }
}
