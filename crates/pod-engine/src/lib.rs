//! One task per pod: observe, plan, execute, publish.
//!
//! The engine lives on one thread: [`Engine::open`] inside a [`tokio::task::LocalSet`] on a current-thread runtime. What
//! blocks (mounts, netlink, unpacking) goes to blocking threads; containers are forked by shims, never here.

#![forbid(unsafe_code)]

mod attempts;
mod check;
pub mod cleanup;
mod clock;
pub mod control;
mod engine;
mod events;
mod eviction;
mod feed;
mod hold;
pub mod hook;
mod image;
mod launch;
mod node;

mod paths;
pub mod probe;
pub mod record;
mod resize;
mod running;
mod sandbox;
pub mod session;
mod shim_binary;
mod task;
mod teardown;
mod termination;
mod update;
mod usage;
mod volumes;

pub use clock::Clock;
pub use engine::{Config, Engine, OpenError, PodRequest, RunError};
pub use feed::{Feed, Message, News};
pub use hold::Hold;
pub use node::host_name;
pub use paths::{PodPaths, Roots};

/// An error with all its causes, as people read it: `a: b: c`.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Runs a blocking mechanism on a blocking thread. A panic there is an error here, not the end of the engine.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| Err(format!("the work panicked: {panic}")))
}
