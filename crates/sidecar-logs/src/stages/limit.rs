//! Too many, and the same again.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::edit::add;
use super::{Check, Working};
use crate::checkpoint::hash;
use crate::config::{Deduplicate, RateLimit};

/// Values of a field that have a limit of their own; beyond, the longest unused begin anew.
const BUCKETS: usize = 4096;

/// A token bucket, or one for each value of a field.
#[derive(Debug)]
pub(super) struct Limiter {
    size: f64,
    per_second: f64,
    by: Option<String>,
    when: Option<Check>,
    buckets: HashMap<u64, (f64, Instant)>,
}

impl Limiter {
    pub(super) fn new(config: &RateLimit) -> Result<Limiter, regex::Error> {
        let size = f64::from(config.records.max(1));
        let per = config.per.0.max(Duration::from_millis(1));
        Ok(Limiter {
            size,
            per_second: size / per.as_secs_f64(),
            by: config.by.clone(),
            when: Check::optional(config.when.as_ref())?,
            buckets: HashMap::new(),
        })
    }

    pub(super) fn lets(&mut self, record: &Working<'_>, now: Instant) -> bool {
        if self.when.as_ref().is_some_and(|check| !check.holds(record)) {
            return true;
        }
        let key = self.by.as_ref().and_then(|name| record.field(name)).map_or(0, hash);
        if self.buckets.len() >= BUCKETS && !self.buckets.contains_key(&key) {
            // Full buckets say nothing; if none is full, the one used least recently goes.
            let (size, rate) = (self.size, self.per_second);
            self.buckets.retain(|_, (left, at)| *left + (now - *at).as_secs_f64() * rate < size);
            if self.buckets.len() >= BUCKETS {
                let oldest = self.buckets.iter().min_by_key(|(_, (_, at))| *at).map(|(key, _)| *key);
                oldest.and_then(|key| self.buckets.remove(&key));
            }
        }
        let (left, at) = self.buckets.entry(key).or_insert((self.size, now));
        *left = (*left + (now - *at).as_secs_f64() * self.per_second).min(self.size);
        *at = now;
        let passes = *left >= 1.0;
        if passes {
            *left -= 1.0;
        }
        passes
    }
}

#[derive(Debug)]
pub(super) struct Repeats {
    within: Duration,
    by: Vec<String>,
    remember: usize,
    seen: HashMap<u64, Seen>,
    /// In the order they came; entries may be stale.
    order: VecDeque<u64>,
}

#[derive(Debug)]
struct Seen {
    since: Instant,
    dropped: u64,
}

impl Repeats {
    pub(super) fn new(config: &Deduplicate) -> Repeats {
        Repeats {
            within: config.within.0,
            by: config.by.clone(),
            remember: config.remember.clamp(1, 1 << 20) as usize,
            seen: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    pub(super) fn lets(&mut self, record: &mut Working<'_>, now: Instant) -> bool {
        let key = if self.by.is_empty() {
            hash(&record.body)
        } else {
            let part = |sum: u64, name: &String| sum.rotate_left(7) ^ record.field(name).map_or(0, hash);
            self.by.iter().fold(1, part)
        };
        if let Some(seen) = self.seen.get_mut(&key) {
            if now - seen.since < self.within {
                seen.dropped += 1;
                return false;
            }
            let dropped = std::mem::take(&mut seen.dropped);
            seen.since = now;
            if dropped > 0 {
                let mut fields = record.fields.to_vec();
                add(&mut fields, b"repeated", |out| out.extend_from_slice(dropped.to_string().as_bytes()));
                record.fields = Cow::Owned(fields);
            }
            return true;
        }
        while self.seen.len() >= self.remember {
            let Some(oldest) = self.order.pop_front() else { break };
            self.seen.remove(&oldest);
        }
        self.seen.insert(key, Seen { since: now, dropped: 0 });
        self.order.push_back(key);
        true
    }
}
