//! Room made when a worker holds more than it should: whoever has taken nothing for a while goes, the longest first. Only the
//! bytes of those who read slowly stay, so that a crowd that reads nothing does not end everybody's service.

use super::Worker;
use super::client::Down;
use crate::clock::MILLISECOND;
use crate::exchange::Failure;

/// Who has taken nothing for so long while others lack room may go: longer than packets need to come and go.
const PATIENCE: u64 = 500 * MILLISECOND;
/// Until the next look at all connections when nobody is left who stands still.
const BETWEEN: u64 = 20 * MILLISECOND;

impl Worker {
    /// Ends connections that stand still until there is room again.
    pub(super) fn make_way(&mut self) {
        if self.tick < self.looked + BETWEEN {
            return;
        }
        let before = self.tick.saturating_sub(PATIENCE);
        let clients =
            self.downs.indices().into_iter().filter_map(|d| Some((self.downs.get(d)?.stands_since(), d, true)));
        let backends = self.ups.indices().into_iter().filter_map(|u| Some((self.ups.get(u)?.sock.since(), u, false)));
        let mut still: Vec<_> = clients.chain(backends).filter(|(since, ..)| *since <= before).collect();
        still.sort_unstable();
        for (_, index, is_client) in still {
            if !self.local.purse.is_overdrawn() {
                return;
            }
            self.shared.given_up.add(1);
            if is_client {
                self.give_up(index);
            } else if let Some(x) = self.ups.get(index).and_then(|up| up.exchange) {
                self.fail_with(x, Failure::Limit, 503, "the backend takes nothing, and there is no room to wait");
            }
        }
        if self.local.purse.is_overdrawn() {
            self.looked = self.tick;
        }
    }

    fn give_up(&mut self, d: u32) {
        match self.downs.get(d).map(|down| (down.exchange, down.h2.is_some())) {
            Some((_, true)) => self.drop_multiplex(d),
            Some((Some(x), _)) => self.abandon(x, Failure::ClientTimeout),
            _ => self.drop_down(d),
        }
    }
}

impl Down {
    /// Since when it has taken nothing of what is held for it.
    fn stands_since(&self) -> u64 {
        self.sock.since().min(self.share.since())
    }
}
