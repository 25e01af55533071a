//! Real shims and containers on the real kernel. Needs root; without it every test says so and passes.
//!
//! The containers' root is busybox (Debian: `apt-get install busybox-static`), or the host's shell with its libraries.

mod attaches;
mod containers;
mod measure;
mod mounts;
mod neighbours;
mod privileges;
mod shims;
mod terminals;
mod world;
