//! The end of a worker: who is told to go, who is waited for, and until when.
//!
//! | | by SIGTERM | by hand-over |
//! |---|---|---|
//! | new connections | taken until the last has ended, or until they are closed to | another process takes them |
//! | idle HTTP/1 | closed, soon if it has just been used | closed with the next answer, or when it has been idle too long |
//! | HTTP/2 | GOAWAY twice (RFC 9113 §6.8) | the same |
//! | exchanges, tunnels | until the deadline | as long as they like |
//! | an outbound listener's | left alone until the deadline | as above |

use std::sync::atomic::Ordering;

use rustix::event::epoll;

use super::Worker;
use super::client::Stage;
use crate::clock::{MILLISECOND, SECOND};

/// A connection that was used a moment ago may be used again in this moment; closing it would lose a request.
const RECENT: u64 = 500 * MILLISECOND;
/// For the answer to a PING, which says that everything sent before the first GOAWAY arrived has arrived here.
const ROUND_TRIP: u64 = SECOND;

impl Worker {
    /// The worker is to end, or to hurry.
    pub(super) fn begin_to_end(&mut self) {
        if self.draining && self.shared.closed.load(Ordering::Acquire) && !self.doors.is_empty() {
            // Whoever is waiting to be let in is served still.
            for index in self.doors.indices() {
                self.knock(self.doors.token(index));
                self.close_door(index);
            }
            for d in self.downs.indices() {
                self.let_go_if_idle(d);
            }
        }
        let retired = self.shared.retired.load(Ordering::Relaxed);
        let leisurely = retired && !self.shared.hurried.load(Ordering::Relaxed);
        if self.draining && leisurely == self.leisurely {
            return;
        }
        self.draining = true;
        self.leisurely = leisurely;
        if retired {
            self.doors.indices().into_iter().for_each(|index| self.close_door(index));
        }
        for d in self.downs.indices() {
            self.let_go_if_idle(d);
        }
    }

    /// The socket's queue is somebody else's, or nobody's.
    pub(super) fn close_door(&mut self, index: u32) {
        if let Some(entrance) = self.doors.remove(index)
            && let Err(error) = epoll::delete(&self.epoll, &*entrance.socket)
        {
            daemon::warn!("failed to leave a listener", listener = entrance.door.listener.name, reason = error);
        }
    }

    /// Whether there is time to wait for each connection's next request.
    pub(super) fn stays(&self) -> bool {
        self.shared.stays.load(Ordering::Relaxed) && !self.shared.closed.load(Ordering::Relaxed)
    }

    /// Whether the client is told that its connection ends.
    pub(super) fn says_goodbye(&self, d: u32) -> bool {
        self.draining && (self.leisurely || self.downs.get(d).is_none_or(|down| !down.door.listener.outbound))
    }

    /// Ends an idle connection when the worker drains.
    pub(super) fn let_go_if_idle(&mut self, d: u32) {
        if !self.says_goodbye(d) {
            return;
        }
        let (now, unhurried) = (self.tick, self.leisurely || self.stays());
        let Some(down) = self.downs.get_mut(d) else { return };
        if let Some(session) = down.h2.as_deref_mut() {
            session.leave_soon();
            let empty = session.is_empty();
            self.soil(d);
            if empty {
                self.down_deadline(d, ROUND_TRIP);
            }
            return;
        }
        if down.exchange.is_some() || down.stage == Stage::Lingering || !down.sock.left.is_empty() || unhurried {
            return;
        }
        // One that has never asked anything may just be about to.
        let since = if down.requests == 0 { now } else { down.idle_since };
        match RECENT.saturating_sub(now.saturating_sub(since)) {
            0 => self.close_down(d),
            left => self.down_deadline(d, left),
        }
    }

    /// Whether nothing is left to wait for.
    pub(super) fn is_over(&mut self) -> bool {
        if self.tick >= self.shared.deadline.load(Ordering::Relaxed) {
            self.shared.cut.add(self.unfinished());
            return true;
        }
        // Without clients only copies of requests are left: others go on counting what they have taken of their backends.
        if !self.downs.is_empty() || self.stays() || self.leisurely && !self.exchanges.is_empty() {
            return false;
        }
        // Whoever is waiting to be let in is served still.
        for index in self.doors.indices() {
            self.knock(self.doors.token(index));
        }
        self.downs.is_empty()
    }

    /// Connections that are in the middle of something.
    fn unfinished(&self) -> u64 {
        let busy = |d: &u32| {
            self.downs.get(*d).is_some_and(|down| {
                down.exchange.is_some() || down.h2.as_deref().is_some_and(|session| !session.is_empty())
            })
        };
        self.downs.indices().iter().filter(|d| busy(d)).count() as u64
    }
}
