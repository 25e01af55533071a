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
pub mod config;
pub mod enrich;
pub mod follow;
pub mod frame;
pub mod glob;
pub mod multiline;
pub mod receipt;
pub mod stages;
pub mod watch;
mod wiring;

pub use agent::Logs;
