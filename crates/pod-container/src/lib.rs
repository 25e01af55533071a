//! One container on the kernel: namespaces, mounts, cgroup, identity, process.
//!
//! Two programs use this crate. The **shim** forks and runs [`create`] or [`exec`] in the child; nothing of what they
//! allocate stays in the shim. The **engine** makes cgroups ([`cgroup`]) and compiles seccomp profiles ([`seccomp`],
//! feature `compile`), and hands both over ready in a [`spec::ContainerSpec`].
#![deny(unsafe_code)]

pub mod capability;
pub mod cgroup;
pub mod create;
pub mod exec;
mod failure;
mod inside;
pub mod membership;
mod process;
pub mod report;
#[cfg(feature = "compile")]
pub mod seccomp;
pub mod spec;
mod sys;
mod tree;

pub use failure::{Failure, Stage};
pub use sys::process::{Fork, exit, fork};
