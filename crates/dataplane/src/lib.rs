//! One HTTP data plane: sockets, TLS, exchanges, routes, upstream pools, filters. It knows no sidecar; a sidecar builds a
//! [`plan::Plan`] from its configuration and starts [`server::Server`].
//!
//! ```text
//! accept ▶ head ▶ route ▶ filters ▶ pool ▶ backend ▶ head back ▶ filters ▶ body ▶ ledger
//! ```
//! Below HTTP's semantics everything is here: one thread with one epoll per worker, descriptors registered once, one
//! read and one write each way.

#![forbid(unsafe_code)]

pub mod announce;
pub mod attempt;
pub mod backend;
pub mod balance;
pub mod body;
pub mod chunk;
pub mod clock;
pub mod count;
pub mod crowd;
pub mod edit;
pub mod exchange;
pub mod filter;
pub mod forward;
pub mod h2;
pub mod handshake;
pub mod head;
pub mod hello;
pub mod hex;
pub mod identity;
pub mod ledger;
pub mod log;
#[cfg(test)]
mod nasty;
pub mod original;
pub mod passage;
pub mod pipe;
pub mod plan;
pub mod pool;
pub mod purse;
pub mod retry;
pub mod route;
pub mod server;
pub mod slab;
pub mod slowest;
pub mod sock;
pub mod spelling;
pub mod timed;
pub mod timer;
pub mod tracing;
pub mod websocket;
pub mod worker;
