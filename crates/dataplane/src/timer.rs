//! Deadlines that cost nothing while all is well: a connection keeps its deadline as a number and moves it freely; the
//! heap holds at most about one entry a connection, which looks again when it comes up.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::slab::Token;

/// A deadline as its owner keeps it; nanoseconds of [`crate::clock::now`].
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    at: u64,
    /// When the heap will look.
    armed: u64,
}

impl Default for Deadline {
    fn default() -> Deadline {
        Deadline { at: u64::MAX, armed: u64::MAX }
    }
}

#[derive(Debug, Default)]
pub struct Timers {
    heap: BinaryHeap<Reverse<(u64, Token)>>,
}

impl Timers {
    /// Moves a deadline. Only one earlier than what the heap would see anyway costs a push.
    pub fn set(&mut self, deadline: &mut Deadline, token: Token, at: u64) {
        deadline.at = at;
        if at < deadline.armed {
            deadline.armed = at;
            self.heap.push(Reverse((at, token)));
        }
    }

    /// When somebody should look next.
    pub fn next(&self) -> Option<u64> {
        self.heap.peek().map(|entry| entry.0.0)
    }

    /// A token whose entry has come up.
    pub fn pop(&mut self, now: u64) -> Option<Token> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|entry| entry.0.1)
    }

    /// Whether the deadline has really passed; if not, the heap will look again in time.
    pub fn passed(&mut self, deadline: &mut Deadline, token: Token, now: u64) -> bool {
        if now < deadline.armed {
            // An entry from before: the one that counts is still in the heap.
            return false;
        }
        deadline.armed = u64::MAX;
        if deadline.at <= now {
            deadline.at = u64::MAX;
            return true;
        }
        if deadline.at != u64::MAX {
            self.set(deadline, token, deadline.at);
        }
        false
    }
}

impl Deadline {
    pub fn clear(&mut self) {
        self.at = u64::MAX;
    }
    pub fn at(&self) -> u64 {
        self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slab::Kind;

    #[test]
    fn moving_a_deadline_back_costs_no_entry() {
        let token = Token::new(Kind::Down, 0, 1);
        let (mut timers, mut deadline) = (Timers::default(), Deadline::default());
        timers.set(&mut deadline, token, 100);
        timers.set(&mut deadline, token, 500);
        timers.set(&mut deadline, token, 300);
        assert_eq!(timers.heap.len(), 1);
        assert_eq!(timers.pop(99), None);
        assert_eq!(timers.pop(100), Some(token));
        assert!(!timers.passed(&mut deadline, token, 100));
        assert_eq!(timers.next(), Some(300));
        timers.set(&mut deadline, token, 200);
        assert_eq!(timers.pop(250), Some(token));
        assert!(timers.passed(&mut deadline, token, 250));
        // The later entry comes up for nothing.
        timers.set(&mut deadline, token, 400);
        assert_eq!(timers.pop(300), Some(token));
        assert!(!timers.passed(&mut deadline, token, 300));
        assert_eq!(timers.heap.len(), 1);
    }
}
