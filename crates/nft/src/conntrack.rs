//! Forgetting tracked connections.
//!
//! A translation is decided by the first packet of a connection and then kept in the connection's entry. For UDP, where
//! any packet keeps the entry alive, a sender that never pauses would go on reaching the old target (or none) after a
//! map has changed, so whoever changes the map makes the kernel forget the flows concerned.

use std::{io, net::Ipv4Addr};

use crate::{Netfilter, Protocol, attribute::Writer};

/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE`.
const DELETE: u16 = 1 << 8 | 2;
const IPV4: u8 = 2;

/// `CTA_FILTER_F_CTA_*` of the kernel.
const BY_SOURCE: u32 = 1 << 0;
const BY_PROTOCOL: u32 = 1 << 3;
const BY_DESTINATION_PORT: u32 = 1 << 5;

/// Which IPv4 connections to forget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flows {
    /// Of this protocol, asked for at this port (of any address), before translation.
    ToPort(Protocol, u16),
    /// Of this protocol, answered by this address, after translation.
    AnsweredBy(Protocol, Ipv4Addr),
}

impl Netfilter {
    /// Makes the kernel forget these connections; that there are none is fine. The kernel walks its whole table for it,
    /// about a millisecond. Older kernels, which cannot delete selectively, refuse and forget nothing.
    pub fn forget(&self, flows: Flows) -> io::Result<()> {
        let forgotten = self.request(DELETE, IPV4, |out| match flows {
            Flows::ToPort(protocol, port) => {
                write_tuple(out, 1, None, protocol, Some(port));
                write_filter(out, 1, BY_PROTOCOL | BY_DESTINATION_PORT);
            }
            Flows::AnsweredBy(protocol, address) => {
                write_tuple(out, 2, Some(address), protocol, None);
                write_filter(out, 2, BY_SOURCE | BY_PROTOCOL);
            }
        });
        match forgotten {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

/// `CTA_TUPLE_ORIG` (1) or `CTA_TUPLE_REPLY` (2).
fn write_tuple(out: &mut Writer, kind: u16, source: Option<Ipv4Addr>, protocol: Protocol, port: Option<u16>) {
    out.nest(kind, |tuple| {
        tuple.nest(1, |address| {
            if let Some(source) = source {
                address.raw(1, &source.octets());
            }
        });
        tuple.nest(2, |transport| {
            transport.u8(1, protocol.0);
            if let Some(port) = port {
                transport.u16(3, port);
            }
        });
    });
}

/// Which parts of the tuple count; the other direction has none.
fn write_filter(out: &mut Writer, direction: u16, parts: u32) {
    out.nest(25, |filter| {
        // Flags are in host order here, alone among netfilter's integers.
        filter.raw(direction, &parts.to_ne_bytes());
        filter.raw(3 - direction, &0u32.to_ne_bytes());
    });
}
