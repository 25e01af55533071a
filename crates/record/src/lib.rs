//! Log records: framing, batch, spool on disk, acknowledged delivery, sinks.
#![forbid(unsafe_code)]
