//! A real store and a real engine under a root of their own: pods are really run.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod cleaning;
mod pods;
mod restart;
mod world;
