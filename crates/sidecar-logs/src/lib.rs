//! The log sidecar: takes the main container's logs from a shared volume, or from a pipe, and delivers every line.
//!
//! ```text
//! files ─follow▶ bytes ─frame▶ records ─stages▶ batches ─▶ queue, spool ─▶ sinks ─ack▶ positions ─save▶ checkpoint
//! ```
//! A position is saved only when every sink has acknowledged everything before it. At the end stands a receipt: bytes
//! written = read = acknowledged, per file.

#![forbid(unsafe_code)]

pub mod agent;
pub mod checkpoint;
mod command;
pub mod config;
pub mod encoding;
pub mod enrich;
pub mod follow;
pub mod frame;
#[cfg(test)]
mod fuzz;
pub mod glob;
pub mod multiline;
pub mod parse;
pub mod receipt;
pub mod stages;
pub mod tap;
pub mod watch;
mod wiring;

pub use agent::Logs;
