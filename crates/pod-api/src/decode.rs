//! A JSON value as a Kubernetes type, with every misfit found in one pass: what has the wrong type and what the type
//! does not know.
//!
//! serde stops at the first error and forgets where it was, and the Kubernetes types ignore unknown fields. This
//! deserializer notes a misfit with its path, hands the type an empty value in its place and goes on, so a manifest
//! gets all its errors at once. Unknown fields show themselves because the types skip them with
//! `deserialize_ignored_any`. Every Kubernetes type should be decoded here and nowhere else: each further
//! deserializer costs a second copy of some hundred generated functions.

mod cursor;

use std::cell::RefCell;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::path::{Path, Segment};
use crate::problem::Findings;
use cursor::Cursor;

/// Rounds for values that only their own type can refuse (base64, times); each round finds at least one more.
const ROUNDS: usize = 100;

/// Decodes `value`, adding every misfit to `findings`; where the type did not fit, the result has an empty value.
///
/// `null` is as good as absent (as in Go, a `null` in a map of strings is `""`). `reveal` allows messages to repeat
/// offending values; false for Secrets.
pub(crate) fn decode<T: DeserializeOwned>(value: &Value, reveal: bool, findings: &mut Findings) -> Option<T> {
    let mut refused = Vec::new();
    for _ in 0..ROUNDS {
        let log = RefCell::new(Log { misfits: Findings::default(), refused: std::mem::take(&mut refused), reveal });
        let decoded = T::deserialize(Cursor { value, trail: &Trail::Root, log: &log, siblings: &[] });
        let log = log.into_inner();
        let failed = match decoded {
            Ok(decoded) => {
                findings.0.extend(log.misfits.0);
                for (path, message) in log.refused {
                    findings.add(path, message);
                }
                return Some(decoded);
            }
            Err(failed) => failed,
        };
        refused = log.refused;
        if !failed.placed {
            findings.0.extend(log.misfits.0);
            refused.push((Path::root(), failed.message));
            break;
        }
    }
    for (path, message) in refused {
        findings.add(path, message);
    }
    None
}

/// What one round has found.
struct Log {
    misfits: Findings,
    /// Values their type refused; treated as absent from then on.
    refused: Vec<(Path, String)>,
    reveal: bool,
}

/// The way from the root to a value, borrowed from the call stack.
enum Trail<'a> {
    Root,
    Member(&'a Trail<'a>, &'a str),
    Item(&'a Trail<'a>, usize),
}

impl Trail<'_> {
    fn path(&self) -> Path {
        match self {
            Trail::Root => Path::root(),
            Trail::Member(parent, name) => {
                let plain = name.starts_with(|c: char| c.is_ascii_alphabetic())
                    && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
                let name = (*name).to_owned();
                parent.path().then(if plain { Segment::Field(name.into()) } else { Segment::Key(name) })
            }
            Trail::Item(parent, index) => parent.path().index(*index),
        }
    }
}

#[cfg(test)]
mod tests;
