//! A bound for what a worker holds for others below a memory limit: its clients, their requests, and bytes that a client or an
//! application does not take, in the kernel too. As it fills, less is read at once; when it is empty everybody still may hold a
//! little, so that nobody stands still for others, and what can be refused is; when it is overdrawn those go who have taken
//! nothing for a while (see `worker/room.rs`).

use std::cell::Cell;
use std::rc::Rc;

/// What everybody may always hold.
pub const LEAST: usize = 4 << 10;
/// What a request is counted as: its exchange, its head, and a connection to its backend with the kernel's part of it.
pub const REQUEST: usize = 8 << 10;
/// With so much room left nobody need be modest.
const EASY: usize = 512 << 10;
/// Nobody takes more than this part of the room that is left, and so much of all is not for everything.
const PART: usize = 8;

/// What one worker holds, and may hold.
#[derive(Debug)]
pub struct Purse {
    most: Cell<usize>,
    held: Cell<usize>,
    /// Of what a socket holds in the kernel, for one that takes no more.
    socket: Cell<usize>,
    /// Now.
    now: Cell<u64>,
    /// Times that somebody got no more than [`LEAST`], or had to do without.
    shortages: Cell<u64>,
}

/// What one connection or request holds of it; given back when dropped.
#[derive(Debug)]
pub struct Share {
    purse: Rc<Purse>,
    held: usize,
    /// When it last became less, or began.
    since: u64,
}

impl Purse {
    /// Without a bound.
    pub fn endless() -> Rc<Purse> {
        Rc::new(Purse {
            most: Cell::new(usize::MAX),
            held: Cell::new(0),
            socket: Cell::new(0),
            now: Cell::new(0),
            shortages: Cell::new(0),
        })
    }

    /// At most so many bytes from now on, and so many for each socket that takes no more; what is held already stays.
    pub fn bound(&self, most: usize, socket: usize) {
        self.most.set(most);
        self.socket.set(socket);
    }

    pub fn set_now(&self, now: u64) {
        self.now.set(now);
    }

    pub fn held(&self) -> usize {
        self.held.get()
    }

    /// What the kernel holds for a socket that takes no more.
    pub fn socket(&self) -> usize {
        self.socket.get()
    }

    pub fn shortages(&self) -> u64 {
        self.shortages.get()
    }

    pub fn is_bounded(&self) -> bool {
        self.most.get() != usize::MAX
    }

    /// Bytes to read at once, of at most so many, by somebody who holds nothing.
    pub fn piece(&self, most: usize) -> usize {
        let room = self.most.get().saturating_sub(self.held.get());
        if room >= EASY {
            return most;
        }
        let piece = (room / PART).max(LEAST);
        if piece == LEAST {
            self.run_short();
        }
        piece.min(most)
    }

    /// Whether somebody who could do without must do so.
    pub fn is_empty(&self) -> bool {
        let most = self.most.get();
        let empty = self.held.get() >= most - most / PART;
        if empty && self.is_bounded() {
            self.run_short();
        }
        empty && self.is_bounded()
    }

    /// More is held than there should be: somebody must go.
    pub fn is_overdrawn(&self) -> bool {
        self.held.get() > self.most.get()
    }

    fn run_short(&self) {
        self.shortages.set(self.shortages.get() + 1);
    }
}

impl Share {
    pub fn of(purse: &Rc<Purse>) -> Share {
        Share { purse: Rc::clone(purse), held: 0, since: 0 }
    }

    /// So many bytes are held now.
    pub fn set(&mut self, held: usize) {
        if held != self.held {
            if held < self.held || self.held == 0 {
                self.since = self.purse.now.get();
            }
            self.purse.held.set(self.purse.held.get() + held - self.held);
            self.held = held;
        }
    }

    pub fn held(&self) -> usize {
        self.held
    }

    /// Since when nothing of it has been taken; `u64::MAX` if nothing is held.
    pub fn since(&self) -> u64 {
        if self.held == 0 { u64::MAX } else { self.since }
    }

    pub fn purse(&self) -> &Purse {
        &self.purse
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fuller_the_smaller() {
        let purse = Purse::endless();
        purse.bound(1 << 20, 0);
        assert_eq!(purse.piece(64 << 10), 64 << 10);
        let (mut one, mut other) = (Share::of(&purse), Share::of(&purse));
        one.set(892 << 10);
        assert_eq!((purse.piece(64 << 10), purse.is_empty()), (16896, false));
        other.set(132 << 10);
        assert_eq!((purse.piece(64 << 10), purse.is_empty(), purse.held()), (LEAST, true, 1 << 20));
        assert_eq!((purse.piece(100), purse.is_overdrawn(), purse.shortages()), (100, false, 3));
        other.set(133 << 10);
        assert!(purse.is_overdrawn());
        one.set(100);
        drop(other);
        assert_eq!((purse.held(), one.held(), purse.piece(64 << 10)), (100, 100, 64 << 10));
        purse.bound(50, 0);
        assert!(purse.is_overdrawn());
        purse.bound(usize::MAX, 0);
        one.set(usize::MAX / 2);
        assert!(!purse.is_bounded() && purse.piece(9) == 9 && !purse.is_empty() && !purse.is_overdrawn());
    }

    #[test]
    fn who_takes_something_does_not_stand_still() {
        let purse = Purse::endless();
        let mut share = Share::of(&purse);
        assert_eq!(share.since(), u64::MAX);
        for (now, held, since) in [(1, 10, 1), (2, 20, 1), (3, 15, 3), (4, 15, 3), (5, 0, u64::MAX), (6, 1, 6)] {
            purse.set_now(now);
            share.set(held);
            assert_eq!(share.since(), since);
        }
    }
}
