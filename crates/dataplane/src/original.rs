//! Where a connection wanted to go before a rule of the kernel's redirected it here.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::net::sockopt;

use crate::backend::Address;
use crate::sock;

/// Our own connections to original destinations, by the address they come from. One of them that is accepted here has been
/// redirected like everybody else's, and would go round for ever.
static OWN: Mutex<Option<HashSet<SocketAddr>>> = Mutex::new(None);

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

fn own() -> MutexGuard<'static, Option<HashSet<SocketAddr>>> {
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
    let from = from.map(canonical);
    if from.is_some_and(|from| own().as_ref().is_some_and(|own| own.contains(&from))) {
        return Err(Refused::Own);
    }
    Ok(original)
}

/// One of our own connections, for as long as it is open.
#[derive(Debug)]
pub struct Remembered(SocketAddr);

impl Drop for Remembered {
    fn drop(&mut self) {
        if let Some(own) = own().as_mut() {
            own.remove(&self.0);
        }
    }
}

/// Begins to connect, so that nobody sees the connection before it is known as our own.
pub fn connect(to: SocketAddr) -> io::Result<(OwnedFd, bool, Option<Remembered>)> {
    let mut own = own();
    let (fd, done) = sock::connect(&Address::Tcp(to))?;
    let from = sock::local_address(&fd).map(canonical);
    if let Some(from) = from {
        own.get_or_insert_default().insert(from);
    }
    Ok((fd, done, from.map(Remembered)))
}
