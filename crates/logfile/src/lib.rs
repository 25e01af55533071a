//! CRI log files: write, rotate, follow, parse.
//!
//! One line of a container's output is one line of `NAME/ATTEMPT.log`:
//! `2026-08-15T10:00:00.000000000Z stdout F message`. `F` ends a line, `P` says that it goes on in the next entry of the
//! same stream (Kubernetes' design proposal "CRI: log management for container stdout/stderr streams"). Full files are
//! renamed to `ATTEMPT.log.YYYYMMDD-HHMMSS` and a new one is begun.
//!
//! The writer half is linked into the per-pod shim, whose memory is the price of every pod: std only, no formatting
//! machinery, no copies of the payload.

#![forbid(unsafe_code)]

pub mod files;
pub mod follow;
pub mod parse;
pub mod time;
pub mod write;

/// Most bytes of one entry's message; a longer line becomes several entries (containerd's
/// `max_container_log_line_size`).
pub const MAX_MESSAGE: usize = 16 * 1024;

/// Where a container wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub const fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}
