//! Reading and writing single fields of an object that stays JSON: a typed view of every kind would cost more code than the
//! few fields are worth.

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::status::human_duration;

pub(super) const NONE: &str = "<none>";
pub(super) const UNKNOWN: &str = "<unknown>";

/// The value at a dotted path; `null` if it or something on the way is absent.
pub(super) fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(value, |value, name| &value[name])
}

/// Text at a dotted path; empty if there is none.
pub(super) fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    at(value, path).as_str().unwrap_or_default()
}

pub(super) fn integer(value: &Value, path: &str) -> Option<i64> {
    at(value, path).as_i64()
}

pub(super) fn is_true(value: &Value, path: &str) -> bool {
    at(value, path) == &Value::Bool(true)
}

pub(super) fn items<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    at(value, path).as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The members of an object; none if it is absent.
pub(super) fn members<'a>(value: &'a Value, path: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    at(value, path).as_object().into_iter().flatten()
}

/// Go's zero values: absent, `null`, `""`, `0`, `false`, `[]`, `{}`.
pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Number(number) => number.as_i64() == Some(0),
        Value::Bool(value) => !value,
    }
}

/// The object at a dotted path, made if it is absent (or something else: the schema says it is an object).
pub(super) fn object<'a>(value: &'a mut Value, path: &str) -> &'a mut Map<String, Value> {
    let value = path.split('.').filter(|name| !name.is_empty()).fold(value, |value, name| {
        if !value.is_object() {
            *value = Value::Object(Map::new());
        }
        &mut value[name]
    });
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(members) => members,
        _ => unreachable!("made an object above"),
    }
}

/// Sets a field unless it has a value; `null` and `""` are none.
pub(super) fn fill(members: &mut Map<String, Value>, name: &str, default: impl Into<Value>) {
    if members.get(name).is_none_or(|value| value.is_null() || value.as_str() == Some("")) {
        members.insert(name.to_owned(), default.into());
    }
}

/// Makes a member what it was, or absent as it was.
pub(super) fn put_back(new: &mut Value, old: &Value, name: &str) {
    let Some(members) = new.as_object_mut() else { return };
    match old.get(name) {
        Some(value) => drop(members.insert(name.to_owned(), value.clone())),
        None => drop(members.remove(name)),
    }
}

pub(super) fn remove(value: &mut Value, name: &str) {
    if let Some(members) = value.as_object_mut() {
        members.remove(name);
    }
}

pub(super) fn time(value: &Value, path: &str) -> Option<Timestamp> {
    at(value, path).as_str()?.parse().ok()
}

pub(super) fn since(time: Option<Timestamp>, now: Timestamp) -> String {
    time.map_or_else(|| UNKNOWN.to_owned(), |time| human_duration(now.duration_since(time).as_secs()))
}

pub(super) fn age(object: &Value, now: Timestamp) -> Value {
    since(time(object, "metadata.creationTimestamp"), now).into()
}

pub(super) fn name(object: &Value) -> Value {
    text(object, "metadata.name").into()
}

/// `<none>` for an empty text.
pub(super) fn or_none(text: &str) -> &str {
    if text.is_empty() { NONE } else { text }
}

/// `a=1,b=2`, as labels and selectors are printed.
pub(super) fn pairs(value: &Value) -> String {
    let pairs: Vec<String> = value
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    or_none(&pairs.join(",")).to_owned()
}
