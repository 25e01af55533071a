//! Promises, end to end: the real binary on the real kernel. One module a promise. Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod cleanup;
mod crash;
mod images;
mod lifecycle;
mod load;
mod network;
mod resources;
mod security;
mod sidecar_logs;
mod sidecar_proxy;
mod start;
mod volumes;
mod walkthrough;
mod world;
