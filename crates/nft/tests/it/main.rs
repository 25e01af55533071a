//! What is committed reads in `nft list` as meant, and what exists lists back. In private network namespaces; needs root
//! and the `nft` program.

#![allow(clippy::unwrap_used)] // Test code; clippy.toml excepts only functions marked #[test].

mod conntrack;
mod listing;
mod ruleset;
mod world;
