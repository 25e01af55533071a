//! The Kubernetes HTTP API of one node: discovery, CRUD, patch, watch, tables, logs, exec, attach, port-forward.
//!
//! It knows the store and nothing of the engine; what only the machine can do it asks of a [`Machine`]. What is special
//! about a kind is written in `pod_api::resource`; everything here is derived from that registry.
//!
//! ```text
//! accept ─TLS▶ identity ▶ route ▶ { discovery, read, watch, create, update, patch, delete, special, stream } ▶ body
//! ```

#![forbid(unsafe_code)]

pub mod body;
pub mod identity;
pub mod machine;

mod accept;
mod create;
mod delete;
mod discovery;
mod input;
mod list;
mod metrics;
mod negotiate;
mod object;
mod openapi;
mod patch;
mod protobuf;
mod query;
mod render;
mod route;
mod selector;
mod server;
mod special;
mod stream;
mod table;
mod update;
mod watch;
mod write;

pub use body::Body;
pub use identity::{Issued, TokenRequest, Tokens, User};
pub use machine::Machine;
pub use server::{ClusterAddress, Config, Server, Version};
