//! How many clients the memory there is has room for.
//!
//! What a client costs was measured (release build): a connection with TLS that waits for its next request holds 8 KiB, one
//! without below 1 KiB. As much again, and more, is for requests that are being answered.

use crate::config::{self, Spec};

/// Bytes of the program without clients.
const PROGRAM: u64 = 6 << 20;
/// Bytes of each worker: stack, room to read, the allocator's beginnings.
const WORKER: u64 = 256 << 10;
/// Bytes of a client.
const CLIENT: u64 = 4 << 10;
const CLIENT_TLS: u64 = 16 << 10;
/// However little memory there is, somebody is let in.
const LEAST: u64 = 16;

/// Clients' connections of all workers together; `None`: as many as come.
pub(super) fn clients(spec: &Spec, workers: usize, memory: Option<u64>) -> Option<usize> {
    let memory = memory.filter(|_| spec.limits.connections == 0)?;
    // A client's TLS that is only looked at may be as long as a handshake.
    let by_name = |listener: &config::Listener| listener.tcp_routes.iter().any(|route| !route.hosts.is_empty());
    let secured = spec.listeners.iter().any(|listener| listener.tls.is_some() || by_name(listener));
    usize::try_from(fit(memory, workers as u64, if secured { CLIENT_TLS } else { CLIENT })).ok()
}

fn fit(memory: u64, workers: u64, client: u64) -> u64 {
    (memory.saturating_sub(PROGRAM + workers * WORKER) / client).max(LEAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_fit() {
        assert_eq!(fit(16 << 20, 1, CLIENT_TLS), 624);
        assert_eq!(fit(16 << 20, 4, CLIENT), 2304);
        assert_eq!(fit(64 << 20, 2, CLIENT_TLS), 3680);
        assert_eq!(fit(4 << 20, 2, CLIENT_TLS), LEAST);
    }
}
