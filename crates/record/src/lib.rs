//! Log records on their way: framing, batches, a queue that spills to a checksummed spool on disk, acknowledged
//! delivery, sinks.
//!
//! ```text
//! source ──batch──▶ queue (memory, then spool) ──▶ sink A ──ack──▶ per origin: how far every sink has come
//!                                             └──▶ sink B ──ack──▶
//! ```
//! A batch is a stretch of one source, so an acknowledged batch moves that source's saved position, and nothing else
//! does. No sidecar is known here.

#![forbid(unsafe_code)]

pub mod backoff;
pub mod batch;
pub mod deliver;
pub mod encode;
pub mod json;
pub mod msgpack;
pub mod queue;
pub mod sink;
pub mod spool;

pub use batch::{Batch, Flags, Layout, Origin, Record, Severity};
pub use queue::{Consumer, Queue};
