//! What every long-running program here shares, in the order a program meets it: arguments, configuration with places
//! for every problem, logging, health and metrics, reload, drain, exit.
//!
//! ```text
//! bytes ▶ tree with places ▶ typed document or every problem ▶ running parts ▶ (reload) new parts swapped in
//! ```
//! A program implements [`Program`] and its `main` is `daemon::run::<Logs>()`.

#![forbid(unsafe_code)]

pub mod admin;
pub mod args;
pub mod budget;
pub mod config;
pub mod drain;
pub mod exit;
pub mod hand_over;
pub mod health;
pub mod log;
pub mod metrics;
mod otlp;
pub mod program;
pub mod reload;
mod rest;
mod run;
pub mod sandbox;
pub mod span;

pub use drain::Drain;
pub use exit::Exit;
pub use program::{BuildError, Context, Program};
pub use run::run;
pub use sandbox::Sandbox;
