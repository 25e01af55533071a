//! Service addresses and names on the real kernel, between network namespaces; needs root, `unshare`, `ip`.

#![allow(clippy::unwrap_used)] // Test code; clippy.toml excepts only functions marked #[test].

mod balance;
mod names;
mod world;
