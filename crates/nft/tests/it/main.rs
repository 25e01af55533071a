//! What is committed reads in `nft list` as meant, and what exists lists back. In private network namespaces; needs root
//! and the `nft` program.

mod conntrack;
mod listing;
mod ruleset;
mod world;
