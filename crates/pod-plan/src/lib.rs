//! The pod lifecycle, pure: events in, steps and status out. No clock, file, process or async in this crate.

mod event;
mod step;

pub use event::{Event, Exit, Hook, Identity, ProbeKind, ProbeOutcome, Pulled};
pub use step::{Notice, Plan, Step};

/// Wall-clock time; the engine hands it in.
pub type Time = jiff::Timestamp;
