//! Kubernetes objects as text: load, default, validate, resolve; the only crate that knows Kubernetes JSON.
pub mod role;
pub mod quantity;
pub mod resources;
pub mod qos;
pub mod context;
pub mod downward;
pub mod expansion;
pub mod env;
pub mod content;

mod decode;
pub mod default;
pub mod load;
mod path;
mod problem;
pub mod unsupported;
pub mod validate;
mod yaml;

pub use k8s_openapi;
pub use problem::{Problem, Problems};
