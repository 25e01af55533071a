//! The proxy sidecar: routes, balances, terminates TLS, and says where the time went. The work is done by `dataplane`; here
//! are its configuration, its life and its face.
//!
//! ```text
//! document ─check▶ spec ─build▶ plan ─▶ workers ─▶ counters, ledger, slowest ─▶ /metrics, /trace, log
//! ```

#![forbid(unsafe_code)]

pub mod build;
mod command;
pub mod config;
pub mod discovery;
mod gateway;
pub mod probe;
pub mod program;
mod redirect;
mod report;

pub use program::Proxy;
