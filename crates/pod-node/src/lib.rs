//! The node: pods of the object store run by the engine, and what becomes of them told to the store.
//!
//! ```text
//!            watch                     run, stop, conditions
//!   store ─────────▶ agent (one task) ──────────────────────▶ engine
//!     ▲                 │    ▲                                   │
//!     └── status, ──────┘    └──────── news (status, events) ────┘
//!         events, deletion
//! ```
//!
//! The agent is scheduler and kubelet in one: it binds what fits, runs what is bound, writes statuses and events, and
//! removes objects when nothing of them is left. Beside it a janitor empties namespaces that are being deleted and collects
//! objects whose owners are gone. Both live on the engine's thread; the API server is only met in the store.

#![forbid(unsafe_code)]

mod agent;
mod condition;
mod fit;
mod janitor;
mod machine;
mod moment;
mod namespace;
mod object;
mod quota;
mod recorder;
pub mod service;
mod source;
mod status;
mod watch;

pub use agent::{Handle, Node, OpenError};

/// What the node cannot find out by itself.
#[derive(Debug, Clone)]
pub struct Config {
    /// `v1.35.0+outrigger…`: what `kubectl get nodes` shows.
    pub version: String,
    /// PEM: the ConfigMap `kube-root-ca.crt` of every namespace.
    pub root_ca: String,
    /// Ask no registry.
    pub offline: bool,
    /// Processes and threads of each pod (a kubelet's podPidsLimit).
    pub pids_limit: Option<u64>,
    /// `spec.podCIDR`.
    pub pod_cidr: String,
    /// The addresses of services; `None`: there are none.
    pub services: Option<service::Network>,
    /// Where the API listens: the kubelet port of the node object.
    pub port: u16,
}

/// Namespace and name.
pub(crate) type PodKey = (String, String);
