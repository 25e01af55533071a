//! Exchanges that wait for something other than a socket: for their next try, for room at a backend, for the moment at which
//! a second endpoint is asked, or at which a filter is not waited for any more.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Worker;
use crate::clock::MILLISECOND;
use crate::exchange::{Answer, Failure};
use crate::pool::Pool;
use crate::slab::Token;

/// Room that another worker has made is seen after this time at the latest.
const LOOK: u64 = 2 * MILLISECOND;

/// What is to be done then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    Retry,
    Hedge,
    /// What a filter has waited for.
    Filter,
}

#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// When, for which exchange, what.
    due: BinaryHeap<Reverse<(u64, Token, Due)>>,
    /// Those who wait for room, the longest first.
    queue: VecDeque<u32>,
    /// With more due than this it is time to forget those whose exchange has ended.
    most: usize,
}

/// As many may be due without anybody looking at whether they still matter.
const FEW: usize = 1024;

impl Waiting {
    /// When somebody should look.
    pub(super) fn next(&self, now: u64) -> u64 {
        let due = self.due.peek().map_or(u64::MAX, |entry| entry.0.0);
        if self.queue.is_empty() { due } else { due.min(now + LOOK) }
    }

    /// Most exchanges end long before their second endpoint would be asked: what is due is not kept for longer than it takes
    /// to become twice as many as those that live.
    fn add(&mut self, entry: (u64, Token, Due), lives: impl Fn(Token) -> bool) {
        if self.due.len() >= self.most.max(FEW) {
            self.due.retain(|Reverse((_, exchange, _))| lives(*exchange));
            self.most = 2 * self.due.len();
            self.due.shrink_to(self.most.max(FEW));
        }
        self.due.push(Reverse(entry));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.due.is_empty() && self.queue.is_empty()
    }
}

impl Worker {
    pub(super) fn wait_until(&mut self, x: u32, at: u64, due: Due) {
        if self.exchanges.get(x).is_some() {
            let exchanges = &self.exchanges;
            self.waiting.add((at, exchanges.token(x), due), |token| exchanges.find(token).is_some());
        }
    }

    /// Whose time has come, and who has room now.
    pub(super) fn serve_waiting(&mut self) {
        while let Some(Reverse((at, token, due))) = self.waiting.due.peek().copied() {
            if at > self.tick {
                break;
            }
            self.waiting.due.pop();
            let Some(x) = self.exchanges.find(token) else { continue };
            match due {
                Due::Retry => self.retry(x),
                Due::Hedge => self.hedge(x),
                Due::Filter => self.wait_no_longer(x),
            }
        }
        if !self.waiting.queue.is_empty() {
            self.serve_queue();
        }
    }

    fn retry(&mut self, x: u32) {
        let now = self.tick;
        let Some(exchange) = self.exchange(x) else { return };
        // It may have been answered meanwhile, and last until its client has read that.
        if exchange.answer != Answer::Waiting {
            return;
        }
        if exchange.expires <= now {
            return self.fail_with(x, Failure::RequestTimeout, 504, "the request took too long");
        }
        self.send_out(x);
    }

    /// The exchange waits for room, if it may.
    pub(super) fn hold_back(&mut self, x: u32, pool: &Rc<Pool>) {
        let now = self.tick;
        let common = &pool.backend.common;
        let limits = &pool.backend.settings.limits;
        let Some(exchange) = self.exchange(x) else { return };
        if exchange.twin_of.is_some() {
            return self.drop_twin(x);
        }
        if exchange.shadow.is_some() {
            return self.end_shadow(x, false);
        }
        if exchange.queued_until == 0 {
            let room = |now: u64| (now < limits.pending).then_some(now + 1);
            if common.pending.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_err() {
                common.overflows.fetch_add(1, Ordering::Relaxed);
                return self.fail_with(x, Failure::Overflow, 503, "the backend has too many requests");
            }
            exchange.queued_until = now.saturating_add(limits.pending_timeout).min(exchange.expires);
        }
        self.waiting.queue.push_back(x);
    }

    /// Whether others of this worker have been waiting for the same backend.
    pub(super) fn is_queued_for(&self, pool: &Pool) -> bool {
        self.waiting.queue.iter().any(|x| {
            let exchange = self.exchanges.get(*x);
            let other = exchange.and_then(|exchange| exchange.pool.as_ref());
            other.is_some_and(|other| Arc::ptr_eq(&other.backend.common, &pool.backend.common))
        })
    }

    /// The longest waiting first. Whoever finds no room queues up again behind those that have not been asked, so the order
    /// stays; whoever comes after one of the same backend that found none is not asked.
    fn serve_queue(&mut self) {
        let queue = std::mem::take(&mut self.waiting.queue);
        let mut full: Vec<Rc<Pool>> = Vec::new();
        for x in queue {
            let now = self.tick;
            let Some(exchange) = self.exchange(x) else { continue };
            let Some(pool) = exchange.pool.as_ref().map(Rc::clone) else { continue };
            if exchange.queued_until == 0 {
                continue;
            }
            if exchange.queued_until <= now {
                let whole = exchange.expires <= now;
                self.unqueue(x);
                if whole {
                    self.fail_with(x, Failure::RequestTimeout, 504, "the request took too long");
                } else {
                    pool.backend.common.pending_timeouts.fetch_add(1, Ordering::Relaxed);
                    self.fail_with(x, Failure::PendingTimeout, 503, "the backend had no room in time");
                }
                continue;
            }
            if full.iter().any(|other| Arc::ptr_eq(&other.backend.common, &pool.backend.common)) {
                self.waiting.queue.push_back(x);
                continue;
            }
            let before = self.waiting.queue.len();
            self.send_out(x);
            if self.waiting.queue.len() > before {
                full.push(pool);
            }
        }
    }

    /// The exchange does not wait for room any more.
    pub(super) fn unqueue(&mut self, x: u32) {
        let Some(exchange) = self.exchange(x) else { return };
        if std::mem::take(&mut exchange.queued_until) == 0 {
            return;
        }
        if let Some(pool) = exchange.pool.as_ref() {
            pool.backend.common.pending.fetch_sub(1, Ordering::Relaxed);
        }
        self.waiting.queue.retain(|other| *other != x);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slab::Kind;

    #[test]
    fn what_is_due_for_the_dead_is_forgotten() {
        let mut waiting = Waiting::default();
        // Every hundredth lives.
        let token = |generation: u32| Token::new(Kind::Exchange, generation, 7);
        let lives = |token: Token| token.generation().is_multiple_of(100);
        for generation in 0..200_000 {
            waiting.add((1_000_000 - u64::from(generation), token(generation), Due::Hedge), lives);
        }
        assert!(waiting.due.len() < 2 * 2000 + FEW && waiting.due.capacity() < 4 * 2000 + FEW, "{}", waiting.due.len());
        let mut living = 0;
        let mut last = 0;
        while let Some(Reverse((at, token, _))) = waiting.due.pop() {
            assert!(last <= at);
            last = at;
            living += u32::from(lives(token));
        }
        assert_eq!(living, 2000);
    }
}
