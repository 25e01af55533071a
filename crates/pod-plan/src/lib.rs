//! The pod lifecycle, pure: events in, steps and status out. No clock, file, process or async in this crate.
//!
//! ```text
//! events ──apply──▶ facts ──plan──▶ steps        Lifecycle::apply, ::plan, ::begin
//!                     └───status──▶ PodStatus    Lifecycle::status, ::take_notices
//! ```
//!
//! A [`Lifecycle`] is one pod's facts: what ran, what runs, how far things are. What to do now and what the status says
//! are worked out from them, never stored. Behaviour is that of Kubernetes 1.35; the doc comments name the upstream file
//! a rule was read from.

#![forbid(unsafe_code)]

mod admission;
mod agenda;
mod backoff;
mod condition;
mod describe;
mod duration;
mod event;
mod facts;
mod fold;
mod lifecycle;
mod notice;
mod passage;
mod phase;
mod probe;
mod resize;
mod restart;
mod restore;
mod shape;
mod start;
mod status;
mod step;
mod stop;
mod update;

pub use describe::describe;
pub use event::{Event, Exit, Hook, Identity, ProbeKind, ProbeOutcome, Pulled, ResizeOutcome};
pub use lifecycle::{AttemptView, ContainerView, Lifecycle};
pub use phase::Phase;
pub use shape::{RestartPolicy, Role, as_container};
pub use step::{Notice, Plan, Step};

/// Wall-clock time; the engine hands it in.
pub type Time = jiff::Timestamp;
