//! The four ways to change a JSON object by sending only a part: JSON Patch (RFC 6902), merge patch (RFC 7386), Kubernetes'
//! strategic merge patch, and server-side apply with its ownership of fields.
//!
//! Everything here is a pure function of values: no clock, no files. Types come from `pod-schema`, the time from the caller.
//!
//! Ownership (KEP-555) in one picture. A set of paths (`field_set`) says who owns what; each entry of
//! `metadata.managedFields` is one of them with a manager's name:
//!
//! ```text
//! apply:  live + wanted ──merge──▶ merged ──prune what the applier gave up──▶ new ──compare with live──▶ conflicts | owners
//! track:  before, new ───────────────────────────────────────────────────────────compare──────────────▶ owners
//! ```

#![forbid(unsafe_code)]

mod apply;
mod bound;
mod conflict;
mod field_set;
mod json;
mod last_applied;
mod managed;
mod merge;
mod strategic;
mod track;
mod tree;
mod wording;

pub use apply::{ApplyError, apply};
pub use conflict::{Conflict, conflict_causes, conflict_message};
pub use json::json;
pub use managed::Manager;
pub use merge::merge;
pub use strategic::strategic;
pub use track::track;

/// Why a patch cannot be applied; the message is the API server's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// 400 `BadRequest`: the patch itself is malformed.
    #[error("{0}")]
    Malformed(String),
    /// 422 `Invalid`: it does not fit this object (a `test` that fails, a path that is not there). The API server says only
    /// the first half and keeps the reason to itself.
    #[error("the server rejected our request due to an error in our request: {0}")]
    Inapplicable(String),
    /// 413 `RequestEntityTooLarge`: too many operations.
    #[error("{0}")]
    TooLarge(String),
}

impl PatchError {
    /// The HTTP status code that goes with it.
    pub fn code(&self) -> u16 {
        match self {
            PatchError::Malformed(_) => 400,
            PatchError::Inapplicable(_) => 422,
            PatchError::TooLarge(_) => 413,
        }
    }
}

#[cfg(test)]
mod properties;
