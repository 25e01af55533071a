//! Where a connection wanted to go before a rule of the kernel's redirected it here.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::net::sockopt;

use crate::backend::Address;
use crate::sock;

/// Our own connections to original destinations, by both ends, since one local port may serve connections to many
/// places at once, not all of them ours. One of them that is accepted here has been redirected like everybody else's, and
/// would go round for ever.
static OWN: Mutex<Option<Known>> = Mutex::new(None);

/// From where and to where.
type Known = HashSet<(SocketAddr, SocketAddr)>;

/// Why it is not known, or of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the connection was not redirected here")]
    Direct,
    #[error("the connection is our own: what the proxy sends is redirected to it, too")]
    Own,
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn own() -> MutexGuard<'static, Option<Known>> {
    OWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The original destination of an accepted connection (`SO_ORIGINAL_DST`, `linux/netfilter_ipv4.h`).
pub fn destination(fd: &OwnedFd, from: Option<SocketAddr>) -> Result<SocketAddr, Refused> {
    let here = sock::local_address(fd).map(canonical).ok_or(Refused::Direct)?;
    let found = if here.is_ipv4() {
        sockopt::ip_original_dst(fd).map(SocketAddr::V4)
    } else {
        sockopt::ipv6_original_dst(fd).map(SocketAddr::V6)
    };
    let original = found.map(canonical).map_err(|_| Refused::Direct)?;
    if original == here {
        return Err(Refused::Direct);
    }
    if from.is_some_and(|from| is_own(from, original)) {
        return Err(Refused::Own);
    }
    Ok(original)
}

fn is_own(from: SocketAddr, to: SocketAddr) -> bool {
    own().as_ref().is_some_and(|own| own.contains(&(canonical(from), canonical(to))))
}

/// One of our own connections, for as long as it is open.
#[derive(Debug)]
pub struct Remembered {
    from: SocketAddr,
    to: SocketAddr,
}

impl Remembered {
    fn insert(own: &mut Option<Known>, from: SocketAddr, to: SocketAddr) -> Remembered {
        let (from, to) = (canonical(from), canonical(to));
        own.get_or_insert_default().insert((from, to));
        Remembered { from, to }
    }
}

impl Drop for Remembered {
    fn drop(&mut self) {
        if let Some(own) = own().as_mut() {
            own.remove(&(self.from, self.to));
        }
    }
}

/// Begins to connect, so that nobody sees the connection before it is known as our own.
pub fn connect(to: SocketAddr) -> io::Result<(OwnedFd, bool, Option<Remembered>)> {
    let mut own = own();
    let (fd, done) = sock::connect(&Address::Tcp(to))?;
    let remembered = sock::local_address(&fd).map(|from| Remembered::insert(&mut own, from, to));
    Ok((fd, done, remembered))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_local_port_serves_connections_to_many_places() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (from, one, other) = (address("192.0.2.1:40000"), address("192.0.2.2:80"), address("192.0.2.3:80"));
        let first = Remembered::insert(&mut own(), from, one);
        assert!(is_own(from, one) && is_own(address("[::ffff:192.0.2.1]:40000"), one));
        assert!(!is_own(from, other), "somebody else's");
        let second = Remembered::insert(&mut own(), from, other);
        drop(first);
        assert!(!is_own(from, one) && is_own(from, other));
        drop(second);
        assert!(!is_own(from, other));
    }
}
