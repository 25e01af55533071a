//! Memory given back when a crowd has left.
//!
//! What a connection held goes back to the allocator, which keeps it for the next: without this a worker would hold the
//! memory of its busiest moment for as long as it runs. Giving back takes the allocator's lock for milliseconds, so it is
//! done once a crowd, a moment after most of it has left.

use super::Worker;
use crate::clock::MILLISECOND;

/// Connections; fewer that left are not worth the trouble.
const WORTH: usize = 32;
/// From when half have left; most of the others follow soon.
const DELAY: u64 = 100 * MILLISECOND;

#[derive(Debug)]
pub(super) struct Ebb {
    /// The most connections since memory was last given back.
    high: usize,
    /// When it is to be given back; `u64::MAX`: nothing is.
    pub(super) due: u64,
}

impl Default for Ebb {
    fn default() -> Ebb {
        Ebb { high: 0, due: u64::MAX }
    }
}

impl Ebb {
    /// Whether it is time to give back, now that there are so many connections.
    fn has_come(&mut self, connections: usize, now: u64) -> bool {
        let ebbs = connections < self.high && self.high - connections >= WORTH.max(connections);
        if !ebbs {
            self.high = self.high.max(connections);
            self.due = u64::MAX;
        } else if self.due == u64::MAX {
            self.due = now + DELAY;
        } else if now >= self.due {
            *self = Ebb { high: connections, due: u64::MAX };
            return true;
        }
        false
    }
}

impl Worker {
    /// Before the worker waits.
    pub(super) fn give_back(&mut self) {
        if self.ebb.has_come(self.downs.len() + self.ups.len(), self.tick) {
            self.spare = Vec::new();
            footprint::trim();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When memory is given back, if these connections are there at these milliseconds.
    fn given(steps: &[(u64, usize)]) -> Vec<u64> {
        let mut ebb = Ebb::default();
        let given = steps.iter().filter(|(at, connections)| ebb.has_come(*connections, at * MILLISECOND));
        given.map(|(at, _)| *at).collect()
    }

    #[test]
    fn once_a_crowd() {
        assert_eq!(given(&[(0, 500), (10, 300), (20, 250), (30, 0), (119, 0), (120, 0), (500, 0)]), [120]);
        // What is left may be a crowd, too.
        assert_eq!(given(&[(0, 500), (10, 200), (200, 200), (210, 100), (400, 90), (600, 90)]), [200, 400]);
    }

    #[test]
    fn not_if_few_left_or_others_came() {
        assert!(given(&[(0, 31), (10, 0), (500, 0)]).is_empty());
        assert!(given(&[(0, 500), (10, 251), (500, 251)]).is_empty());
        assert!(given(&[(0, 500), (10, 100), (50, 400), (500, 400)]).is_empty());
    }
}
