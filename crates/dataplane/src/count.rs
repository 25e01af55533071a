//! Counters that one worker writes and anybody reads: a load and a store, no locked instruction.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Only the one worker that owns it may call this.
    pub fn add(&self, more: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
    }
    /// As [`Counter::add`], downwards: for gauges.
    pub fn sub(&self, less: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(less), Ordering::Relaxed);
    }
    /// As [`Counter::add`], for what is counted elsewhere.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A counter that everybody adds to: for what happens seldom.
#[derive(Debug, Default)]
pub struct Tally(AtomicU64);

impl Tally {
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Lets so many through a period; for log lines that clients can cause.
#[derive(Debug, Default)]
pub struct Throttle {
    period: AtomicU64,
    count: AtomicU64,
}

impl Throttle {
    /// Whether this is one of the first `most` in this `period` (nanoseconds).
    pub fn allows(&self, most: u64, period: u64, now: u64) -> bool {
        let number = now / period + 1;
        // Two threads may both begin a period: a few lines more are no harm.
        if self.period.swap(number, Ordering::Relaxed) != number {
            self.count.store(0, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed) < most
    }
}

/// Buckets double from 16 µs; the last has no bound.
pub const BUCKETS: usize = 22;

/// Upper bounds in nanoseconds of all buckets but the last.
pub const fn bound(bucket: usize) -> u64 {
    16_000 << bucket
}

/// How long something took, how often.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; BUCKETS],
    sum: Counter,
}

impl Histogram {
    pub fn add(&self, nanos: u64) {
        self.buckets[Histogram::bucket(nanos)].add(1);
        self.sum.add(nanos);
    }

    fn bucket(nanos: u64) -> usize {
        (nanos / 16_000).checked_ilog2().map_or(0, |log| log as usize + 1).min(BUCKETS - 1)
    }

    /// How many fell into each bucket (not cumulative), and the sum in nanoseconds.
    pub fn read(&self) -> ([u64; BUCKETS], u64) {
        (std::array::from_fn(|bucket| self.buckets[bucket].value()), self.sum.value())
    }
}

/// Of each bucket the last traced request: what an exemplar is made of. Only sampled requests take the lock.
#[derive(Debug, Default)]
pub struct Exemplars(Mutex<Option<Box<[Option<Seen>; BUCKETS]>>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub trace: [u8; 16],
    pub nanos: u64,
    /// Nanoseconds since 1970.
    pub wall: u64,
}

impl Exemplars {
    pub fn note(&self, nanos: u64, trace: [u8; 16], wall: u64) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = seen.get_or_insert_with(|| Box::new([None; BUCKETS]));
        seen[Histogram::bucket(nanos)] = Some(Seen { trace, nanos, wall });
    }

    pub fn read(&self) -> Option<[Option<Seen>; BUCKETS]> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_deref().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_below_their_bound() {
        for nanos in [0, 1, 15_999, 16_000, 31_999, 32_000, 1_000_000, u64::MAX] {
            let histogram = Histogram::default();
            histogram.add(nanos);
            let bucket = histogram.read().0.iter().position(|count| *count == 1).unwrap();
            assert!(bucket == BUCKETS - 1 || nanos < bound(bucket), "{nanos}");
            assert!(bucket == 0 || nanos >= bound(bucket - 1), "{nanos}");
        }
    }
}
