//! How many clients the memory and the descriptors there are have room for.
//!
//! What a client costs was measured (release build): a connection with TLS that waits for its next request holds 8 KiB, one
//! without below 1 KiB. As much again, and more, is for requests that are being answered.

use dataplane::plan::Room;

use crate::config::{self, Spec};

/// Bytes of the program without clients.
const PROGRAM: u64 = 6 << 20;
/// Bytes of each worker: stack, room to read, the allocator's beginnings.
const WORKER: u64 = 256 << 10;
/// Bytes of a client.
const CLIENT: u64 = 4 << 10;
const CLIENT_TLS: u64 = 16 << 10;
/// Bytes of a client that waits, with the kernel's part; what it asks for is counted besides.
const COUNTED: u64 = 4 << 10;
const COUNTED_TLS: u64 = 12 << 10;
/// What the kernel holds for one connection, between these: the 512th part of all memory.
const SOCKETS: u64 = 512;
const SOCKET_LEAST: u64 = 32 << 10;
const SOCKET_MOST: u64 = 1 << 20;
/// Descriptors of the program, among them those of health, metrics and commands; and of each worker. A client may need as
/// many as itself for backends.
const OWN: u64 = 48;
const OWN_WORKER: u64 = 4;
/// However little memory there is, somebody is let in.
const LEAST: u64 = 16;

/// Clients' connections of all workers together, as far as there are memory (if that is limited) and descriptors.
pub(super) fn clients(spec: &Spec, workers: usize, (memory, descriptors): (Option<u64>, u64)) -> usize {
    let client = if secured(spec) { CLIENT_TLS } else { CLIENT };
    let memory = memory.filter(|_| spec.limits.connections == 0);
    let bytes = memory.map_or(u64::MAX, |memory| fit(memory, workers as u64, client));
    let own = OWN + workers as u64 * OWN_WORKER + spec.listeners.len() as u64;
    let open = (descriptors.saturating_sub(own) / 2).max(LEAST);
    usize::try_from(bytes.min(open)).unwrap_or(usize::MAX)
}

fn secured(spec: &Spec) -> bool {
    // A client's TLS that is only looked at may be as long as a handshake.
    let by_name = |listener: &config::Listener| listener.tcp_routes.iter().any(|route| !route.hosts.is_empty());
    spec.listeners.iter().any(|listener| listener.tls.is_some() || by_name(listener))
}

/// What each worker may hold for others.
pub(super) fn buffers(spec: &Spec, workers: usize, memory: Option<u64>) -> Option<Room> {
    let memory = memory?;
    let all = memory.saturating_sub(PROGRAM + workers as u64 * WORKER) / workers.max(1) as u64;
    let client = if secured(spec) { COUNTED_TLS } else { COUNTED };
    let number = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    Some(Room {
        all: number(all),
        client: number(client),
        socket: number((memory / SOCKETS).clamp(SOCKET_LEAST, SOCKET_MOST)),
    })
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
        let text = "apiVersion: outrigger.dev/v1alpha1
kind: Proxy
spec:
  listeners: [{name: a, address: ':1', tcp: a}]
  backends: [{name: a, endpoints: ['h:1']}]
";
        let mut spec = daemon::config::load::<Spec>(text, "Proxy", crate::config::check).unwrap().spec;
        assert_eq!(clients(&spec, 2, (Some(16 << 20), u64::MAX)), 2432);
        assert_eq!(clients(&spec, 2, (Some(16 << 20), 1024)), 483);
        assert_eq!(clients(&spec, 2, (None, 64)), 16);
        spec.limits.connections = 5000;
        assert_eq!(clients(&spec, 2, (Some(16 << 20), 1 << 20)), 524_259);
    }
}
