//! One container on the kernel: namespaces, mounts, cgroup, identity, process.

pub mod spec;
