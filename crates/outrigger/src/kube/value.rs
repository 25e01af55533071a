//! Reading single fields of objects that stay JSON.

use serde_json::Value;

/// The value at a dotted path; `null` if it or something on the way is absent.
pub(crate) fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(value, |value, name| &value[name])
}

/// Text at a dotted path; empty if there is none.
pub(crate) fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    at(value, path).as_str().unwrap_or_default()
}

pub(crate) fn items<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    at(value, path).as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The members of an object, sorted; none if it is absent.
pub(crate) fn members<'a>(value: &'a Value, path: &str) -> Vec<(&'a str, &'a Value)> {
    let mut members: Vec<_> =
        at(value, path).as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value)).collect();
    members.sort_by_key(|(name, _)| *name);
    members
}

pub(crate) fn is_true(value: &Value, path: &str) -> bool {
    at(value, path) == &Value::Bool(true)
}

pub(crate) fn integer(value: &Value, path: &str) -> Option<i64> {
    at(value, path).as_i64()
}

/// A scalar as Go's `%v` prints it.
pub(crate) fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "<nil>".to_owned(),
        other => other.to_string(),
    }
}

pub(crate) fn name(object: &Value) -> &str {
    text(object, "metadata.name")
}

pub(crate) fn namespace(object: &Value) -> &str {
    text(object, "metadata.namespace")
}
