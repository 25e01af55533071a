//! The real kernel, in private network namespaces. Needs root, `unshare`, `ip` and `nft`.
//!
//! ```text
//! pod ══ or… ┐
//! pod ══ or… ┤ host 203.0.113.1 ═══ 203.0.113.2 outside
//! ```

mod cleanup;
mod crash;
mod refusal;
mod traffic;
mod world;
