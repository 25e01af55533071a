//! What one worker knows of a backend: idle connections, whose turn it is, how long answers take.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use crate::backend::{Backend, Balance};
use crate::balance::{near_share, warmth};
use crate::clock::SECOND;
use crate::slab::Token;

/// Answers older than this hardly count for the expected wait.
const DECAY: f64 = 10.0 * SECOND as f64;
/// Nanoseconds expected of an endpoint that has been asked and not answered yet.
const UNKNOWN: f64 = 1000.0 * SECOND as f64;
/// Retries a second that are always allowed, so that a quiet backend can be retried at all.
const FLOOR: f64 = 10.0;

#[derive(Debug)]
pub struct Pool {
    pub backend: Arc<Backend>,
    /// In the order of the backend's endpoints. Who stays in the list goes over to the next pool.
    pub members: Vec<Rc<Member>>,
    /// There is a newer one, of the same backend with other endpoints.
    pub stale: Cell<bool>,
    turn: Cell<usize>,
    budget: Rc<Cell<Budget>>,
}

#[derive(Debug, Default)]
pub struct Member {
    /// Idle connections; the last used is used first, so that the others can end.
    pub idle: RefCell<Vec<Token>>,
    /// Connections whose streams many exchanges share.
    pub shared: RefCell<Vec<Token>>,
    pub active: Cell<u32>,
    /// No longer in the list: its connections are not kept.
    pub retired: Cell<bool>,
    /// Expected nanoseconds, and when they were computed.
    cost: Cell<(f64, u64)>,
    /// How far its turn is, where weights differ.
    credit: Cell<f64>,
}

#[derive(Clone, Copy, Debug)]
struct Budget {
    tokens: f64,
    refilled: u64,
}

/// What a request asks of the choice.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish {
    /// This one has just failed it.
    pub avoid: Option<usize>,
    /// What hashing goes by.
    pub key: Option<u64>,
    /// Where the client was before.
    pub stuck: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    At(usize),
    /// There are endpoints, but none has room.
    Full,
    /// There is no endpoint.
    Nobody,
}

/// Numbers by chance, good enough for choosing.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed | 1)
    }
    fn draw(&mut self) -> u64 {
        // xorshift64 (Marsaglia 2003)
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.draw()) * bound as u128) >> 64) as usize
    }
    /// From 0 to `most`.
    pub fn up_to(&mut self, most: u64) -> u64 {
        ((u128::from(self.draw()) * (u128::from(most) + 1)) >> 64) as u64
    }
}

impl Pool {
    pub fn new(backend: Arc<Backend>) -> Pool {
        let members = backend.endpoints.iter().map(|_| Rc::default()).collect();
        let budget = Rc::new(Cell::new(Budget { tokens: FLOOR, refilled: 0 }));
        Pool { backend, members, stale: Cell::new(false), turn: Cell::new(0), budget }
    }

    /// For the same backend with other endpoints: who stays keeps connections and what is known of him.
    #[must_use]
    pub fn next(&self, backend: Arc<Backend>) -> Pool {
        let members = backend.endpoints.iter().map(|endpoint| {
            let known = self.backend.endpoints.iter().position(|old| Arc::ptr_eq(old, endpoint));
            known.map_or_else(Rc::default, |index| Rc::clone(&self.members[index]))
        });
        let members = members.collect();
        let (turn, budget) = (self.turn.clone(), Rc::clone(&self.budget));
        Pool { backend, members, stale: Cell::new(false), turn, budget }
    }

    /// The endpoint for the next request. When none is healthy all are tried: an answer that may come is better than none.
    pub fn pick(&self, now: u64, wish: &Wish, dice: &mut Dice) -> Pick {
        let backend = &self.backend;
        let count = self.members.len();
        let room = |index: usize| backend.may_take(index);
        if count <= 1 {
            return match count {
                0 => Pick::Nobody,
                _ if room(0) => Pick::At(0),
                _ => Pick::Full,
            };
        }
        let panics = backend.panics(now);
        let healthy = |index: usize| panics || backend.endpoints[index].health.is_good(now);
        let allowed = |index: usize| Some(index) != wish.avoid && room(index);
        if let Some(stuck) = wish.stuck.filter(|index| *index < count && allowed(*index) && healthy(*index)) {
            return Pick::At(stuck);
        }
        let serves = |index: usize| backend.seats[index].weight > 0 || backend.weightless;
        let good = |index: usize| allowed(index) && healthy(index) && serves(index);
        let mut picked = None;
        if backend.zoned {
            let near = self.goes_near(now, dice);
            picked = self.choose(now, wish, dice, &|index| backend.seats[index].near == near && good(index));
        }
        let picked = picked.or_else(|| self.choose(now, wish, dice, &good));
        // Nobody is well, and all share what comes.
        let picked = picked.or_else(|| self.choose(now, wish, dice, &|index| allowed(index) && serves(index)));
        let in_turn = || (0..count).map(|step| (self.turn.get() + step) % count);
        let picked = picked.or_else(|| in_turn().find(|index| allowed(*index)));
        picked.or_else(|| in_turn().find(|index| room(*index))).map_or(Pick::Full, Pick::At)
    }

    /// Whether this request stays in the own zone.
    fn goes_near(&self, now: u64, dice: &mut Dice) -> bool {
        let near = || self.backend.endpoints.iter().zip(&self.backend.seats).filter(|(_, seat)| seat.near);
        let good = near().filter(|(endpoint, _)| endpoint.health.is_good(now)).count();
        match near_share(good, near().count(), self.backend.settings.near_percent) {
            100 => true,
            share => dice.below(100) < share as usize,
        }
    }

    fn choose(&self, now: u64, wish: &Wish, dice: &mut Dice, good: &dyn Fn(usize) -> bool) -> Option<usize> {
        let count = self.members.len();
        let even = !self.backend.uneven && self.backend.settings.slow_start == 0;
        let turn = self.turn.get();
        let in_turn = || (0..count).map(|step| (turn + step) % count).filter(|index| good(*index));
        // The next begins behind the one that was picked, so that whoever is passed over burdens not his neighbour alone. A
        // second try is nobody's turn.
        let take = |picked: Option<usize>| {
            if let Some(index) = picked.filter(|_| wish.avoid.is_none()) {
                self.turn.set((index + 1) % count);
            }
            picked
        };
        match self.backend.settings.balance {
            Balance::RoundRobin if even => take(in_turn().next()),
            Balance::RoundRobin => self.next_by_weight(now, good),
            Balance::LeastRequest if even => take(in_turn().min_by_key(|index| self.members[*index].active.get())),
            Balance::LeastRequest => {
                let load = |index: usize| f64::from(self.members[index].active.get() + 1) / self.weight(index, now);
                take(in_turn().min_by(|a, b| load(*a).total_cmp(&load(*b))))
            }
            Balance::PeakEwma => self.pick_of_two(now, good, even, dice),
            Balance::Ring | Balance::Maglev => {
                // Without a key it is anybody's turn.
                let key = wish.key.unwrap_or_else(|| dice.up_to(u64::MAX - 1));
                self.backend.table.as_ref()?.walk(key).find(|index| good(*index))
            }
        }
    }

    /// An endpoint's weight now; never 0, so that it can be divided by.
    fn weight(&self, index: usize, now: u64) -> f64 {
        let window = self.backend.settings.slow_start;
        let warm = if window == 0 { 1.0 } else { warmth(self.backend.endpoints[index].health.age(now), window) };
        (f64::from(self.backend.seats[index].weight) * warm).max(0.001)
    }

    /// Smoothly: who has the most credit has his turn and pays for it what all have gained.
    fn next_by_weight(&self, now: u64, good: &dyn Fn(usize) -> bool) -> Option<usize> {
        let mut total = 0.0;
        let mut best: Option<(usize, f64)> = None;
        for index in (0..self.members.len()).filter(|index| good(*index)) {
            let weight = self.weight(index, now);
            total += weight;
            let credit = self.members[index].credit.get() + weight;
            self.members[index].credit.set(credit);
            if best.is_none_or(|(_, most)| credit > most) {
                best = Some((index, credit));
            }
        }
        let (index, credit) = best?;
        self.members[index].credit.set(credit - total);
        Some(index)
    }

    fn pick_of_two(&self, now: u64, good: &dyn Fn(usize) -> bool, even: bool, dice: &mut Dice) -> Option<usize> {
        let all = || (0..self.members.len()).filter(|index| good(*index));
        let count = all().count();
        if count == 0 {
            return None;
        }
        let first = dice.below(count);
        let second = if count == 1 { first } else { (first + 1 + dice.below(count - 1)) % count };
        let load = |index: usize| {
            let member = &self.members[index];
            let ((cost, at), active) = (member.cost.get(), member.active.get());
            let aged = cost * (-((now.saturating_sub(at)) as f64) / DECAY).exp();
            // Who has never answered gets one request, and no more before he has: he may be one who never does.
            let aged = if at == 0 && active > 0 { aged + UNKNOWN } else { aged };
            let weight = if even { 1.0 } else { self.weight(index, now) };
            (aged + 1.0) * f64::from(active + 1) / weight
        };
        let (a, b) = (all().nth(first)?, all().nth(second)?);
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
