//! Whole manifests in, objects or problems out; and nothing, however broken, makes the loader panic.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

mod fixtures;
mod hostile;
mod reference;
