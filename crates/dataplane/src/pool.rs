//! What one worker knows of a backend: idle connections, whose turn it is, how long answers take.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use crate::backend::{Backend, Balance};
use crate::clock::SECOND;

/// Answers older than this hardly count for the expected wait.
const DECAY: f64 = 10.0 * SECOND as f64;
/// Retries a second that are always allowed, so that a quiet backend can be retried at all.
const FLOOR: f64 = 10.0;

#[derive(Debug)]
pub struct Pool {
    pub backend: Arc<Backend>,
    pub members: Vec<Member>,
    turn: Cell<usize>,
    budget: Cell<Budget>,
}

#[derive(Debug, Default)]
pub struct Member {
    /// Numbers of idle connections; the last used is used first, so that the others can end.
    pub idle: RefCell<Vec<u32>>,
    /// Connections whose streams many exchanges share.
    pub shared: RefCell<Vec<u32>>,
    pub active: Cell<u32>,
    /// Expected nanoseconds, and when they were computed.
    cost: Cell<(f64, u64)>,
}

#[derive(Clone, Copy, Debug)]
struct Budget {
    tokens: f64,
    refilled: u64,
}

/// Numbers by chance, good enough for choosing.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed | 1)
    }
    pub fn below(&mut self, bound: usize) -> usize {
        // xorshift64 (Marsaglia 2003)
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((u128::from(self.0) * bound as u128) >> 64) as usize
    }
}

impl Pool {
    pub fn new(backend: Arc<Backend>) -> Pool {
        let members = backend.endpoints.iter().map(|_| Member::default()).collect();
        let budget = Cell::new(Budget { tokens: FLOOR, refilled: 0 });
        Pool { backend, members, turn: Cell::new(0), budget }
    }

    /// The endpoint for the next request; `avoid` has just failed it. When none is healthy all are tried: an answer that
    /// may come is better than none.
    pub fn pick(&self, now: u64, avoid: Option<usize>, dice: &mut Dice) -> Option<usize> {
        let count = self.members.len();
        if count <= 1 {
            return (count == 1).then_some(0);
        }
        let good = |index: &usize| Some(*index) != avoid && self.backend.endpoints[*index].health.is_good(now);
        let turn = self.turn.get();
        self.turn.set((turn + 1) % count);
        let in_turn = (0..count).map(|step| (turn + step) % count);
        let picked = match self.backend.settings.balance {
            Balance::RoundRobin => in_turn.clone().find(good),
            Balance::LeastRequest => in_turn.clone().filter(good).min_by_key(|index| self.members[*index].active.get()),
            Balance::PeakEwma => self.pick_of_two(now, &good, dice),
        };
        picked.or_else(|| in_turn.clone().find(|index| Some(*index) != avoid))
    }

    fn pick_of_two(&self, now: u64, good: &dyn Fn(&usize) -> bool, dice: &mut Dice) -> Option<usize> {
        let count = (0..self.members.len()).filter(good).count();
        if count == 0 {
            return None;
        }
        let first = dice.below(count);
        let second = if count == 1 { first } else { (first + 1 + dice.below(count - 1)) % count };
        let nth = |n: usize| (0..self.members.len()).filter(good).nth(n);
        let load = |index: usize| {
            let member = &self.members[index];
            let (cost, at) = member.cost.get();
            let aged = cost * (-((now.saturating_sub(at)) as f64) / DECAY).exp();
            (aged + 1.0) * f64::from(member.active.get() + 1)
        };
        let (a, b) = (nth(first)?, nth(second)?);
        Some(if load(a) <= load(b) { a } else { b })
    }

    /// Takes note of how long an answer took.
    pub fn observe(&self, endpoint: usize, nanos: u64, now: u64) {
        if self.backend.settings.balance != Balance::PeakEwma {
            return;
        }
        let cost = &self.members[endpoint].cost;
        let (before, at) = cost.get();
        let nanos = nanos as f64;
        // A peak is believed at once, a better time only slowly.
        let weight = (-((now.saturating_sub(at)) as f64) / DECAY).exp();
        let after = if nanos > before { nanos } else { before * weight + nanos * (1.0 - weight) };
        cost.set((after, now));
    }

    /// A request that is no retry: it pays for later ones.
    pub fn deposit(&self) {
        let mut budget = self.budget.get();
        budget.tokens = (budget.tokens + f64::from(self.backend.settings.retry_percent) / 100.0).min(1000.0);
        self.budget.set(budget);
    }

    /// Whether a retry may be made now.
    pub fn withdraw(&self, now: u64) -> bool {
        let mut budget = self.budget.get();
        let seconds = now.saturating_sub(budget.refilled) as f64 / SECOND as f64;
        if budget.tokens < FLOOR {
            budget.tokens = (budget.tokens + seconds * FLOOR).min(FLOOR);
        }
        budget.refilled = now;
        // Fifths of a token do not add up exactly.
        let enough = budget.tokens > 0.999;
        if enough {
            budget.tokens -= 1.0;
        }
        self.budget.set(budget);
        enough
    }
}

#[cfg(test)]
mod tests;
