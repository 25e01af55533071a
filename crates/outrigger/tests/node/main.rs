//! The node, driven by clients that we did not write: two versions of the real kubectl and two Python libraries. One
//! module a promise. Needs root, and network once (`.ci/kubectl`).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod durability;
mod libraries;
mod machine;
mod node;
#[path = "../e2e/world.rs"]
#[allow(dead_code, reason = "shared with the tests of `run`")]
mod world;

mod pods;
mod proxy;
mod reading;
mod services;
mod streams;
mod verbs;
mod walkthrough;
mod writing;
