//! A small client of the Kubernetes API, for the verbs that kubectl has too: which server (`config`), requests and their
//! failures (`client`, `failure`), what the server serves (`discovery`), changes as they come (`watch`), exec, attach and
//! port-forward (`stream`), the difference that `apply` sends (`three_way`), and how kubectl prints (`print`).
//!
//! Objects stay JSON: the client shows and sends what it does not understand, too.

#![forbid(unsafe_code)]

pub mod client;
pub mod config;
pub mod discovery;
pub mod failure;
pub mod print;
pub mod query;
pub mod stream;
pub mod three_way;
pub mod watch;

pub use client::{Call, Client};
pub use config::{Choice, Config, ConfigError};
pub use discovery::{Discovery, Kind};
pub use failure::{CallError, Status};
