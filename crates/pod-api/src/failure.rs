//! What an API server says when it does not do what was asked: the Kubernetes `Status` of a failure, with upstream's words.
//!
//! Source: `apimachinery/pkg/api/errors`. The HTTP code equals `code` in the body.

use serde_json::{Value, json};

use crate::validate::FieldError;

/// A refused request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub code: u16,
    pub reason: &'static str,
    pub message: String,
    /// `details` of the Status; `null` for none.
    pub details: Value,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl Failure {
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: Value::Null }
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub fn internal(message: impl std::fmt::Display) -> Self {
        let text = format!("Internal error occurred: {message}");
        let details = json!({"causes": [{"message": message.to_string()}]});
        Self { details, ..Self::new(500, "InternalError", text) }
    }

    /// `resource` is the plural with its group: `pods`, `leases.coordination.k8s.io`.
    pub fn not_found(resource: &str, name: &str) -> Self {
        Self::about(404, "NotFound", resource, name, format!("{resource} \"{name}\" not found"))
    }

    /// A path nobody serves.
    pub fn unknown_path() -> Self {
        let message = "the server could not find the requested resource";
        Self { details: json!({}), ..Self::new(404, "NotFound", message) }
    }

    pub fn already_exists(resource: &str, name: &str) -> Self {
        Self::about(409, "AlreadyExists", resource, name, format!("{resource} \"{name}\" already exists"))
    }

    pub fn conflict(resource: &str, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {resource} \"{name}\": {why}");
        Self::about(409, "Conflict", resource, name, message)
    }

    /// A stale resourceVersion.
    pub fn modified(resource: &str, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(resource, name, why)
    }

    pub fn forbidden(resource: &str, name: &str, why: &str) -> Self {
        Self::about(403, "Forbidden", resource, name, format!("{resource} \"{name}\" is forbidden: {why}"))
    }

    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    pub fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self { details: json!({}), ..Self::new(405, "MethodNotAllowed", message) }
    }

    /// `accepted`: the media types that could be written, for the client's `Accept`.
    pub fn not_acceptable(accepted: &[&str]) -> Self {
        let message = format!("only the following media types are accepted: {}", accepted.join(", "));
        Self::new(406, "NotAcceptable", message)
    }

    /// `accepted`: the media types that could be read.
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Self::new(415, "UnsupportedMediaType", message)
    }

    pub fn too_large(limit_bytes: usize) -> Self {
        let message = format!("Request entity too large: limit is {limit_bytes}");
        Self::new(413, "RequestEntityTooLarge", message)
    }

    /// An eviction that a disruption budget does not allow now, or a server that is too busy.
    pub fn too_many_requests(message: impl Into<String>) -> Self {
        Self::new(429, "TooManyRequests", message)
    }

    /// Server-side apply met fields that others own: `fields` are pairs of what is said and the field's path.
    pub fn apply_conflict(message: impl Into<String>, fields: &[(String, String)]) -> Self {
        let causes: Vec<Value> = fields
            .iter()
            .map(|(message, field)| json!({"reason": "FieldManagerConflict", "message": message, "field": field}))
            .collect();
        Self { details: json!({"causes": causes}), ..Self::new(409, "Conflict", message) }
    }

    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// `kind` with its group if it has one: `Pod`, `Lease.coordination.k8s.io`.
    pub fn invalid(kind: &str, group: &str, name: &str, errors: &[FieldError]) -> Self {
        let full = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let mut texts: Vec<String> = Vec::new();
        for text in errors.iter().map(|error| format!("{}: {}", error.path, error.message)) {
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let text = match texts.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let causes: Vec<Value> = errors
            .iter()
            .map(|error| json!({"reason": cause_reason(&error.message), "message": error.message, "field": error.path}))
            .collect();
        let mut details = json!({"name": name, "kind": kind, "causes": causes});
        if !group.is_empty() {
            details["group"] = group.into();
        }
        Self { details, ..Self::new(422, "Invalid", format!("{full} \"{name}\" is invalid: {text}")) }
    }

    fn about(code: u16, reason: &'static str, resource: &str, name: &str, message: String) -> Self {
        let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
        let mut details = json!({"name": name, "kind": plural});
        if !group.is_empty() {
            details["group"] = group.into();
        }
        Self { details, ..Self::new(code, reason, message) }
    }

    /// The body.
    pub fn to_json(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if !self.details.is_null() {
            status["details"] = self.details.clone();
        }
        status
    }
}

/// The machine-readable reason of a field error, by the words its message begins with.
fn cause_reason(message: &str) -> &'static str {
    match message {
        text if text.starts_with("Required value") => "FieldValueRequired",
        text if text.starts_with("Duplicate value") => "FieldValueDuplicate",
        text if text.starts_with("Unsupported") => "FieldValueNotSupported",
        text if text.starts_with("Forbidden") => "FieldValueForbidden",
        text if text.starts_with("Too long") => "FieldValueTooLong",
        text if text.starts_with("Too many") => "FieldValueTooMany",
        text if text.starts_with("Not found") => "FieldValueNotFound",
        text if text.starts_with("Internal error") => "InternalError",
        _ => "FieldValueInvalid",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_and_details_are_upstreams() {
        let missing = Failure::not_found("leases.coordination.k8s.io", "x");
        assert_eq!(missing.message, "leases.coordination.k8s.io \"x\" not found");
        assert_eq!(missing.details, json!({"name": "x", "kind": "leases", "group": "coordination.k8s.io"}));
        let error = FieldError { path: "spec.containers[0].name".into(), message: "Required value".into() };
        let invalid = Failure::invalid("Pod", "", "web", &[error]);
        assert_eq!(invalid.message, "Pod \"web\" is invalid: spec.containers[0].name: Required value");
        assert_eq!(invalid.to_json()["details"]["causes"][0]["reason"], "FieldValueRequired");
    }
}
