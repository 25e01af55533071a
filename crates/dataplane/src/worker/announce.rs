//! Where clients come from, as somebody in front of us says, and as backends are told (the PROXY protocol).

use std::rc::Rc;

use super::Worker;
use crate::announce::{self, ENOUGH, Ends, Version};
use crate::pool::Pool;
use crate::slab::Token;
use crate::sock::{self, Got};

impl Worker {
    /// Reads what stands before a client's own bytes; true once they begin.
    pub(super) fn listen_to_announcement(&mut self, d: u32) -> bool {
        match self.read_announcement(d) {
            Ok(true) => {
                self.welcome(d);
                true
            }
            Ok(false) => false,
            Err(reason) => {
                if let Some(down) = self.downs.get(d)
                    && let Some(reason) = reason
                {
                    daemon::debug!("cut a connection", listener = down.door.listener.name, reason = reason);
                    self.shared.announcement_failures.add(1);
                }
                self.drop_down(d);
                false
            }
        }
    }

    /// Only as much is taken from the socket as belongs to it: what follows may be TLS, or be passed on by the kernel.
    fn read_announcement(&mut self, d: u32) -> Result<bool, Option<announce::Refused>> {
        let Some(down) = self.downs.get_mut(d) else { return Ok(false) };
        let mut bytes = [0; ENOUGH];
        loop {
            if down.skip > 0 {
                let most = down.skip.min(bytes.len());
                match down.sock.read_raw(&mut bytes[..most]) {
                    Ok(Got::Bytes(length)) => down.skip -= length,
                    Ok(Got::Nothing) => return Ok(false),
                    Ok(Got::End | Got::Cut) | Err(_) => return Err(None),
                }
                if down.skip == 0 {
                    return Ok(true);
                }
                continue;
            }
            let length = match down.sock.peek(&mut bytes) {
                Ok(Got::Bytes(length)) => length,
                Ok(Got::Nothing) => return Ok(false),
                Ok(Got::End | Got::Cut) | Err(_) => return Err(None),
            };
            match announce::parse(&bytes[..length]).map_err(Some)? {
                Some(announcement) => {
                    // It was there a moment ago, and nobody else reads.
                    let taken = down.sock.read_raw(&mut bytes[..announcement.size]);
                    if !matches!(taken, Ok(Got::Bytes(length)) if length == announcement.size) {
                        return Err(None);
                    }
                    if let Some(ends) = announcement.ends {
                        down.set_from(Some(ends.from));
                        down.to = Some(ends.to);
                    }
                    down.skip = announcement.skip;
                    if down.skip == 0 {
                        return Ok(true);
                    }
                }
                // The rest will never come.
                None if down.sock.hangup => return Err(None),
                None => return Ok(false),
            }
        }
    }

    /// Tells a new connection's other side where its client comes from; false if it cannot be told.
    pub(super) fn announce(&mut self, u: u32, version: Version) -> bool {
        let Some(up) = self.ups.get_mut(u) else { return false };
        let down = up.exchange.and_then(|x| self.exchanges.get(x)).map(|exchange| exchange.down);
        let ends = down.and_then(|d| self.downs.get(d)).and_then(|down| {
            let to = down.to.or_else(|| sock::local_address(&down.sock.fd))?;
            Some(Ends { from: down.from?, to })
        });
        let mut header = Vec::new();
        announce::write(version, ends, &mut header);
        // A new connection has room for it; one that has not is none we want.
        up.sock.write(&[&header]).is_ok() && !up.sock.blocked()
    }

    /// An idle connection that serves this client.
    pub(super) fn take_own(&mut self, pool: &Rc<Pool>, endpoint: usize, client: Token) -> Option<Token> {
        let mut idle = pool.members[endpoint].idle.borrow_mut();
        let own = |token: &Token| {
            self.ups.find(*token).and_then(|u| self.ups.get(u)).is_some_and(|up| up.client == Some(client))
        };
        let at = idle.iter().rposition(own)?;
        Some(idle.remove(at))
    }

    /// A client is gone: nobody else may use the connections that were made for it.
    pub(super) fn forget_client(&mut self, client: Token) {
        let local = Rc::clone(&self.local);
        for pool in local.pools.iter().filter(|pool| pool.backend.settings.is_personal()) {
            for endpoint in 0..pool.members.len() {
                while let Some(token) = self.take_own(pool, endpoint, client) {
                    self.ups.find(token).into_iter().for_each(|u| self.drop_up(u));
                }
            }
        }
    }
}
