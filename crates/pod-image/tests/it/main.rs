//! Against a real registry (Debian's `docker-registry`) on the loopback, with skopeo as an independent second opinion.
//! Needs root, for owners, devices and overlay mounts.

#![allow(clippy::unwrap_used, reason = "all of this is test code, also what is outside of test functions")]

mod host;
mod interop;
mod layers;
mod pull;
mod registry;
mod world;
