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

use k8s_openapi::api::core::v1::{ConfigMap, Pod, PodSpec, PodStatus, PodTemplate, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::path::{Path, Segment};
use crate::problem::Findings;
use crate::validate::{FieldError, errors};
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

/// A pod as it stands in an object; fields that the type does not know are passed over.
///
/// # Errors
/// Everything in it that does not fit the type.
pub fn pod(value: &Value) -> Result<Pod, Vec<FieldError>> {
    fitting(value, true)
}

/// The spec of a pod alone; paths begin below it.
///
/// # Errors
/// Everything in it that does not fit the type.
pub fn pod_spec(value: &Value) -> Result<PodSpec, Vec<FieldError>> {
    fitting(value, true)
}

/// The status of a pod alone, with empty values for what does not fit.
pub fn pod_status(value: &Value) -> PodStatus {
    lenient(value)
}

/// As [`pod`].
///
/// # Errors
/// Everything in it that does not fit the type.
pub fn config_map(value: &Value) -> Result<ConfigMap, Vec<FieldError>> {
    fitting(value, true)
}

/// As [`pod`]; the messages do not repeat values.
///
/// # Errors
/// Everything in it that does not fit the type.
pub fn secret(value: &Value) -> Result<Secret, Vec<FieldError>> {
    fitting(value, false)
}

/// As [`pod`].
///
/// # Errors
/// Everything in it that does not fit the type.
pub fn service(value: &Value) -> Result<Service, Vec<FieldError>> {
    fitting(value, true)
}

/// As [`pod`].
///
/// # Errors
/// Everything in it that does not fit the type.
pub fn endpoint_slice(value: &Value) -> Result<EndpointSlice, Vec<FieldError>> {
    fitting(value, true)
}

/// As [`pod`].
///
/// # Errors
/// Everything in it that does not fit the type.
pub fn pod_template(value: &Value) -> Result<PodTemplate, Vec<FieldError>> {
    fitting(value, true)
}

fn fitting<T: DeserializeOwned>(value: &Value, reveal: bool) -> Result<T, Vec<FieldError>> {
    let mut findings = Findings::default();
    let decoded = decode(value, reveal, &mut findings);
    findings.0.retain(|finding| !finding.is_about_the_key());
    match decoded {
        Some(decoded) if findings.0.is_empty() => Ok(decoded),
        _ => Err(errors(findings)),
    }
}

/// What of an object fits its type, with empty values for the rest.
pub(crate) fn lenient<T: DeserializeOwned + Default>(value: &Value) -> T {
    decode(value, false, &mut Findings::default()).unwrap_or_default()
}

/// What is wrong with an object: its types, or if they fit, what `check` says.
pub(crate) fn checked<T: DeserializeOwned>(
    value: &Value,
    reveal: bool,
    check: fn(&T) -> Vec<FieldError>,
) -> Vec<FieldError> {
    match fitting(value, reveal) {
        Ok(typed) => check(&typed),
        Err(errors) => errors,
    }
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
