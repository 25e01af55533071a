//! A pod's network: link, address, egress, host ports.
//!
//! ```text
//!   pod                              host
//!  ┌──────────────────────────┐     ┌─────────────────────────────────────────────────────────┐
//!  │ eth0 10.89.0.2/32 ═══════╪═════╪═ or3f2a9c01 10.89.0.1/32     route 10.89.0.2 dev or3f2… │
//!  │ default via 10.89.0.1    │     │ table ip outrigger: masquerade what leaves 10.89.0.0/16,│
//!  └──────────────────────────┘     │ translate host ports          net.ipv4.ip_forward = 1   │
//!                                   └─────────────────────────────────────────────────────────┘
//! ```
//!
//! Every pod has a veth pair of its own; there is no bridge. Pods reach the host and each other by routing: the host end
//! of every pair carries the same gateway address, a host route leads to the pod. So nothing is shared that could be
//! left half configured, and a pod's link and routes vanish with its network namespace.
//!
//! What does not vanish by itself is written down before the kernel is changed: the addresses in use and a record per
//! pod, in one directory that all engines of the machine share under a lock. Whatever instruction a crash hits,
//! [`Network::sweep`] finds what it left.
//!
//! All calls block, for about a millisecond, and act on the network namespace of the calling thread. IPv4 only.

#![forbid(unsafe_code)]

mod attachment;
mod checkpoint;
mod forward_filter;
mod forwarding;
mod host;
mod host_port;
mod kept_socket;
mod link;
mod network;
mod pool;
mod record;
mod register;
mod route_socket;
mod translation;
mod undo;

#[cfg(test)]
mod tests;

pub use attachment::{AttachError, Attachment, Config, DetachError, HostPort, OpenError, Protocol, SweepError, Swept};
pub use host::host_ips;
pub use host_port::PortError;
pub use link::LinkError;
pub use network::Network;
