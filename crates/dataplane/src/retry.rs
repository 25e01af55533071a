//! What is tried again, and when. Whether it may be tried at all is not decided here: nothing is done twice that may not be
//! (RFC 9110 §9.2.2), and every second try is paid for.

use crate::exchange::Failure;
use crate::pool::Dice;

/// Which failures lead to another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// No connection, so that no byte was sent.
    pub connect: bool,
    /// The backend refused the stream unseen.
    pub refused: bool,
    /// The connection ended, or the stream was reset, before the answer's head.
    pub reset: bool,
    /// The try took too long.
    pub timeout: bool,
}

impl Default for Conditions {
    fn default() -> Conditions {
        Conditions { connect: true, refused: true, reset: true, timeout: false }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retry {
    /// Tries after the first.
    pub times: u32,
    pub on: Conditions,
    /// Statuses from 500 to 599 that are tried again, by bits.
    pub statuses: u128,
    /// Nanoseconds before every try after the first at least.
    pub least: u64,
    /// Nanoseconds beyond that before the second try at most; doubles with each. 0: none.
    pub backoff: u64,
    pub backoff_most: u64,
    /// Nanoseconds from the choice of an endpoint to the answer's head; 0: no bound.
    pub per_try: u64,
    /// Nanoseconds after which a second endpoint is tried besides; 0: never.
    pub hedge: u64,
}

impl Retry {
    pub const fn bit(status: u16) -> u128 {
        match status {
            500..=599 => 1 << (status - 500),
            _ => 0,
        }
    }

    pub const fn takes_status(&self, status: u16) -> bool {
        self.statuses & Retry::bit(status) != 0
    }

    pub const fn takes(&self, failure: Failure) -> bool {
        match failure {
            Failure::Connect | Failure::NoSocket | Failure::Tls | Failure::ConnectTimeout => self.on.connect,
            Failure::RefusedStream => self.on.refused,
            Failure::Closed | Failure::Reset | Failure::Truncated => self.on.reset,
            Failure::AnswerTimeout => self.on.timeout || self.takes_status(504),
            _ => false,
        }
    }

    /// Nanoseconds to wait before the `n`-th try after the first: beyond the least anything up to a bound that doubles, so that
    /// those who failed together do not come back together.
    pub fn wait(&self, n: u32, dice: &mut Dice) -> u64 {
        let bound = self.backoff.saturating_mul(1 << n.saturating_sub(1).min(20));
        let more = match bound.min(self.backoff_most.max(self.backoff)) {
            0 => 0,
            bound => dice.up_to(bound),
        };
        self.least.saturating_add(more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_are_scattered() {
        let retry = Retry { backoff: 1000, backoff_most: 5000, ..Retry::default() };
        let mut dice = Dice::new(3);
        for (n, bound) in [(1, 1000), (2, 2000), (3, 4000), (4, 5000), (40, 5000)] {
            let waits: Vec<u64> = (0..2000).map(|_| retry.wait(n, &mut dice)).collect();
            assert!(waits.iter().all(|wait| *wait <= bound), "{n}");
            let mean = waits.iter().sum::<u64>() / 2000;
            assert!((bound * 9 / 20..=bound * 11 / 20).contains(&mean), "{n}: {mean}");
        }
        assert_eq!(Retry::default().wait(3, &mut dice), 0);
        let retry = Retry { least: 700, ..retry };
        assert!((1..50).all(|n| (700..=5700).contains(&retry.wait(n, &mut dice))));
    }

    #[test]
    fn what_is_wanted() {
        let retry = Retry { statuses: Retry::bit(503) | Retry::bit(599) | Retry::bit(404), ..Retry::default() };
        assert!(retry.takes_status(503) && retry.takes_status(599));
        assert!(!retry.takes_status(500) && !retry.takes_status(404));
        assert!(retry.takes(Failure::Closed) && !retry.takes(Failure::Malformed));
        assert!(!retry.takes(Failure::AnswerTimeout));
        let on = Conditions { connect: false, timeout: true, ..Conditions::default() };
        let retry = Retry { on, ..retry };
        assert!(retry.takes(Failure::AnswerTimeout) && !retry.takes(Failure::ConnectTimeout));
    }
}
