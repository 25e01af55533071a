//! Real pods on the real kernel, driven in this process. Needs root; without it every test says so and passes. Images are
//! stood in for by this machine's own programs.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod ephemeral;
mod resize;
mod session;
mod world;
