//! The API server over a real socket: a small client for what the wire says, and the real kubectl for what people do.

// Helpers outside of `#[test]` functions may stop a test as well.
#![allow(clippy::unwrap_used)]

mod bounds;
mod crud;
mod discovery;
mod failures;
mod kubectl;
mod races;
mod reading;
mod watching;
mod world;
