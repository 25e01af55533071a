//! Whether a value fits its type, as far as server-side apply must know before it can merge; in the API server's words.

use std::collections::BTreeSet;

use pod_schema::{ListKind, Scalar, Shape, Type};
use serde_json::Value;

use super::item_element;
use crate::field_set::Element;
use crate::wording;

/// Everything in `value` that its type has no place for, each with its path.
pub(crate) fn misfits(ty: Type, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    place(ty, value, "", &mut found);
    found
}

fn place(ty: Type, value: &Value, path: &str, found: &mut Vec<String>) {
    let mut wrong = |reason: String| found.push(if path.is_empty() { reason } else { format!("{path}: {reason}") });
    match (ty.shape(), value) {
        (Shape::Any, _) | (_, Value::Null) => {}
        (Shape::Scalar(scalar), value) => {
            if !fits(scalar, value) {
                wrong(format!("expected {}, got {}", expected(scalar), wording::plain(value)));
            }
        }
        (Shape::Object { .. }, Value::Object(fields)) => {
            for (name, field) in fields {
                let below = format!("{path}{}", Element::field(name));
                match ty.field(name) {
                    Some(declared) => place(declared.ty, field, &below, found),
                    None => found.push(format!("{below}: field not declared in schema")),
                }
            }
        }
        (Shape::Map { value: ty, .. }, Value::Object(fields)) => {
            for (name, field) in fields {
                place(ty, field, &format!("{path}{}", Element::field(name)), found);
            }
        }
        (Shape::List { item, kind }, Value::Array(values)) => items(item, kind, values, path, found),
        (Shape::Object { .. } | Shape::Map { .. }, other) => {
            wrong(format!("expected map, got {}", wording::plain(other)));
        }
        (Shape::List { .. }, other) => wrong(format!("expected list, got {}", wording::plain(other))),
    }
}

fn items(item: Type, kind: ListKind, values: &[Value], path: &str, found: &mut Vec<String>) {
    let keys: Option<&[&str]> = match kind {
        ListKind::Atomic => None,
        ListKind::Set => Some(&[]),
        ListKind::Map(keys) => Some(keys),
    };
    let mut seen = BTreeSet::new();
    for (index, value) in values.iter().enumerate() {
        let element = match keys.map(|keys| item_element(item, keys, value)) {
            None => Element::Index(i64::try_from(index).unwrap_or(i64::MAX)),
            Some(Ok(element)) => element,
            Some(Err(reason)) => {
                found.push(format!("{path}: element {index}: {reason}"));
                return;
            }
        };
        place(item, value, &format!("{path}{element}"), found);
        if seen.contains(&element) {
            found.push(format!("{path}: duplicate entries for key {element}"));
        }
        seen.insert(element);
    }
}

fn fits(scalar: Scalar, value: &Value) -> bool {
    match scalar {
        Scalar::String | Scalar::Bytes => value.is_string(),
        Scalar::Integer | Scalar::Number => value.is_number(),
        Scalar::Boolean => value.is_boolean(),
        Scalar::IntOrString | Scalar::Quantity | Scalar::Time => !value.is_object() && !value.is_array(),
    }
}

fn expected(scalar: Scalar) -> &'static str {
    match scalar {
        Scalar::String | Scalar::Bytes => "string",
        Scalar::Integer | Scalar::Number => "numeric (int or float)",
        Scalar::Boolean => "boolean",
        Scalar::IntOrString | Scalar::Quantity | Scalar::Time => "any scalar",
    }
}
