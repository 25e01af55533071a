//! The binary against real files, a receiver that can be taken away, and signals. What must hold every time: each line
//! written arrives.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod config;
mod crash;
mod harness;
mod loss;
mod operate;
mod receivers;
mod routes;
mod streams;
