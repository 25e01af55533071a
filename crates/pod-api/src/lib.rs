//! Kubernetes objects as text: load, default, validate, resolve; the only crate that knows Kubernetes JSON.
pub mod content;
pub mod context;
pub mod downward;
pub mod env;
pub mod ephemeral;
pub mod expansion;
pub mod failure;
pub mod qos;
pub mod quantity;
pub mod resource;
pub mod resources;
pub mod role;

pub mod decode;
pub mod default;
pub mod load;
mod path;
mod problem;
pub mod unsupported;
pub mod validate;
mod yaml;

pub use k8s_openapi;
pub use problem::{Problem, Problems};
pub use yaml::{YamlDocument, documents as yaml_documents, to_json as yaml_to_json};
pub mod capability;
pub mod names;
pub mod security;
pub mod status;
