//! JSON Patch (RFC 6902) with the API server's limits, leniencies and messages.
//!
//! The leniencies, which clients rely on: `replace` of a field that is not there adds it, `test` of a missing field against
//! null passes, an index may be negative and then counts from the end.

use serde_json::{Map, Value};

use crate::{PatchError, bound, wording};

/// The most operations of one patch.
const OPERATIONS: usize = 10_000;

/// Bytes that the `copy` operations of one patch may add, as the API server bounds them.
const COPIED: usize = 3 * 1024 * 1024;

/// RFC 6902: all operations, or none.
///
/// # Errors
/// [`PatchError::Malformed`] if the patch is no list of operations, [`PatchError::TooLarge`] if there are too many,
/// [`PatchError::Inapplicable`] if one does not fit the target.
pub fn json(target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let Value::Array(operations) = patch else {
        return Err(undecodable(patch, "[]handlers.jsonPatchOp"));
    };
    if let Some(other) = operations.iter().find(|operation| !operation.is_object()) {
        return Err(undecodable(other, "handlers.jsonPatchOp"));
    }
    if operations.len() > OPERATIONS {
        return Err(PatchError::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {OPERATIONS}, got {}",
            operations.len()
        )));
    }
    bound::require(patch)?;
    let mut document = target.clone();
    let mut copied = 0;
    for operation in operations.iter().filter_map(Value::as_object) {
        perform(&mut document, operation, &mut copied).map_err(PatchError::Inapplicable)?;
    }
    *target = document;
    Ok(())
}

fn undecodable(value: &Value, expected: &str) -> PatchError {
    PatchError::Malformed(format!(
        "error decoding patch: json: cannot unmarshal {} into Go value of type {expected}",
        wording::kind(value)
    ))
}

fn perform(document: &mut Value, operation: &Map<String, Value>, copied: &mut usize) -> Result<(), String> {
    match operation.get("op").and_then(Value::as_str).unwrap_or("unknown") {
        "add" => {
            let value = operation.get("value").ok_or("operation, missing value field: missing value")?;
            add(document, member(operation, "path")?, value.clone(), "add")
        }
        "remove" => remove(document, member(operation, "path")?, "remove").map(drop),
        "replace" => replace(document, operation),
        "move" => relocate(document, operation),
        "copy" => duplicate(document, operation, copied),
        "test" => test(document, operation),
        other => Err(format!("Unexpected kind: {other}")),
    }
}

fn member<'a>(operation: &'a Map<String, Value>, name: &str) -> Result<&'a str, String> {
    let kind = operation.get("op").and_then(Value::as_str).unwrap_or("unknown");
    match operation.get(name) {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(format!(
            "{kind} operation failed to decode {name}: json: cannot unmarshal {} into Go value of type string",
            wording::kind(other)
        )),
        None if name == "path" => {
            Err(format!("{kind} operation failed to decode path: operation missing path field: missing value"))
        }
        None => Err(format!("{kind} operation failed to decode from: operation, missing from field: missing value")),
    }
}

// === the operations

fn add(document: &mut Value, path: &str, value: Value, operation: &str) -> Result<(), String> {
    if path.is_empty() {
        return become_whole(document, value);
    }
    let (parent, token, levels) =
        parent_mut(document, path).ok_or_else(|| missing_path(operation, "", &wording::quoted(path)))?;
    if !bound::within(&value, bound::DEPTH.saturating_sub(levels)) {
        return Err(format!("error in {operation} for path: '{path}': exceeded max depth"));
    }
    match parent {
        Value::Object(fields) => {
            fields.insert(token, value);
        }
        Value::Array(items) if token == "-" => items.push(value),
        Value::Array(items) => {
            let index = match index(&token, items.len() + 1) {
                Ok(index) if index <= items.len() => index,
                Ok(index) => return Err(in_operation(operation, path, &invalid_index(index))),
                Err(Index::NotANumber) => {
                    return Err(in_operation(
                        operation,
                        path,
                        &format!("value was not a proper array index: '{token}'"),
                    ));
                }
                Err(Index::Outside(number)) => return Err(in_operation(operation, path, &invalid_index(number))),
            };
            items.insert(index, value);
        }
        _ => return Err(missing_path(operation, "", &wording::quoted(path))),
    }
    Ok(())
}

fn remove(document: &mut Value, path: &str, operation: &str) -> Result<Value, String> {
    let absent = || match operation {
        "remove" => missing_path(operation, "", &wording::quoted(path)),
        _ => missing_path(operation, "from ", path),
    };
    let (parent, token, _) = parent_mut(document, path).ok_or_else(absent)?;
    match parent {
        Value::Object(fields) => fields.remove(&token).ok_or_else(|| {
            in_operation(operation, path, &format!("Unable to remove nonexistent key: {token}: missing value"))
        }),
        Value::Array(items) => match existing(&token, items.len()) {
            Ok(index) => Ok(items.remove(index)),
            Err(reason) => Err(in_operation(operation, path, &reason)),
        },
        _ => Err(absent()),
    }
}

fn replace(document: &mut Value, operation: &Map<String, Value>) -> Result<(), String> {
    let path = member(operation, "path")?;
    let value = operation.get("value").ok_or("operation, missing value field: missing value")?.clone();
    if path.is_empty() {
        return become_whole(document, value);
    }
    let absent = || missing_path("replace", "", path);
    let (parent, token, levels) = parent_mut(document, path).ok_or_else(absent)?;
    if !bound::within(&value, bound::DEPTH.saturating_sub(levels)) {
        return Err(in_operation("replace", path, "exceeded max depth"));
    }
    match parent {
        // The API server's library does not ask whether the field is there.
        Value::Object(fields) => {
            fields.insert(token, value);
        }
        Value::Array(items) => {
            let index = existing(&token, items.len())
                .map_err(|_| format!("replace operation does not apply: doc is missing key: {path}: missing value"))?;
            items[index] = value;
        }
        _ => return Err(absent()),
    }
    Ok(())
}

fn relocate(document: &mut Value, operation: &Map<String, Value>) -> Result<(), String> {
    let from = member(operation, "from")?;
    let path = member(operation, "path")?;
    if path.strip_prefix(from).is_some_and(|rest| rest.starts_with('/')) {
        return Err(in_operation("move", path, "a value cannot be moved into itself"));
    }
    let value = remove(document, from, "move")?;
    add(document, path, value, "move")
}

fn duplicate(document: &mut Value, operation: &Map<String, Value>, copied: &mut usize) -> Result<(), String> {
    let from = member(operation, "from")?;
    let value = at(document, from).ok_or_else(|| missing_path("copy", "from ", from))?;
    *copied += size(value, COPIED + 1);
    if *copied > COPIED {
        return Err(format!(
            "Unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding the limit {COPIED}"
        ));
    }
    let value = value.clone();
    add(document, member(operation, "path")?, value, "copy")
}

fn test(document: &Value, operation: &Map<String, Value>) -> Result<(), String> {
    let path = member(operation, "path")?;
    let expected = operation.get("value").unwrap_or(&Value::Null);
    let failed = || format!("testing value {path} failed: test failed");
    if path.is_empty() {
        return if document == expected { Ok(()) } else { Err(failed()) };
    }
    let (parent_path, token) = path.rsplit_once('/').unwrap_or_default();
    let parent = (path.starts_with('/'))
        .then(|| at(document, parent_path))
        .flatten()
        .filter(|parent| parent.is_object() || parent.is_array())
        .ok_or_else(|| format!("test operation does not apply: is missing path: {path}: missing value"))?;
    let found = match parent {
        Value::Array(items) => {
            let index = existing(&decoded(token), items.len()).map_err(|reason| in_operation("test", path, &reason))?;
            &items[index]
        }
        other => other.get(decoded(token)).unwrap_or(&Value::Null),
    };
    if same(found, expected) { Ok(()) } else { Err(failed()) }
}

/// RFC 6902 §4.6: numbers are equal if they are numerically equal.
fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left == right || left.as_f64() == right.as_f64(),
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(name, left)| right.get(name).is_some_and(|right| same(left, right)))
        }
        _ => left == right,
    }
}

fn become_whole(document: &mut Value, value: Value) -> Result<(), String> {
    if !value.is_object() && !value.is_array() {
        return Err("replace operation value must be object or array".to_owned());
    }
    *document = value;
    Ok(())
}

// === pointers (RFC 6901)

/// The container that the last token of `path` names a place in, that token, and how deep the place is.
fn parent_mut<'a>(document: &'a mut Value, path: &str) -> Option<(&'a mut Value, String, usize)> {
    let mut tokens: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
    let last = decoded(tokens.pop()?);
    let levels = tokens.len() + 1;
    let mut place = document;
    for token in tokens {
        place = match place {
            Value::Object(fields) => fields.get_mut(&decoded(token))?,
            Value::Array(items) => {
                let index = existing(&decoded(token), items.len()).ok()?;
                items.get_mut(index)?
            }
            _ => return None,
        };
    }
    Some((place, last, levels))
}

fn at<'a>(document: &'a Value, path: &str) -> Option<&'a Value> {
    if path.is_empty() {
        return Some(document);
    }
    path.strip_prefix('/')?.split('/').try_fold(document, |place, token| match place {
        Value::Object(fields) => fields.get(&decoded(token)),
        Value::Array(items) => items.get(existing(&decoded(token), items.len()).ok()?),
        _ => None,
    })
}

fn decoded(token: &str) -> String {
    // In this order: `~01` is a tilde and a one (RFC 6901 §4).
    token.replace("~1", "/").replace("~0", "~")
}

enum Index {
    NotANumber,
    Outside(i64),
}

/// The index that a token names in a list of `length` places; negative ones count from the end.
fn index(token: &str, length: usize) -> Result<usize, Index> {
    let number: i64 = token.parse().map_err(|_| Index::NotANumber)?;
    let place = if number < 0 { number + i64::try_from(length).unwrap_or(i64::MAX) } else { number };
    usize::try_from(place).map_err(|_| Index::Outside(number))
}

/// The index of an item that is there, or why there is none.
fn existing(token: &str, length: usize) -> Result<usize, String> {
    match index(token, length) {
        Ok(index) if index < length => Ok(index),
        Ok(index) => Err(invalid_index(index)),
        Err(Index::Outside(number)) => Err(invalid_index(number)),
        Err(Index::NotANumber) => Err(format!("strconv.Atoi: parsing {}: invalid syntax", wording::quoted(token))),
    }
}

// === messages

fn invalid_index(index: impl std::fmt::Display) -> String {
    format!("Unable to access invalid index: {index}: invalid index referenced")
}

fn in_operation(operation: &str, path: &str, reason: &str) -> String {
    format!("error in {operation} for path: '{path}': {reason}")
}

fn missing_path(operation: &str, which: &str, path: &str) -> String {
    format!("{operation} operation does not apply: doc is missing {which}path: {path}: missing value")
}

/// Bytes of a value as JSON, about; counting stops at `most`.
fn size(value: &Value, most: usize) -> usize {
    let mut total = 2;
    let mut add = |bytes: usize| {
        total += bytes + 1;
        total < most
    };
    match value {
        Value::Array(items) => {
            for item in items {
                if !add(size(item, most)) {
                    break;
                }
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                if !add(name.len() + 3 + size(field, most)) {
                    break;
                }
            }
        }
        Value::String(text) => total += text.len(),
        _ => total += 3,
    }
    total
}

#[cfg(test)]
mod tests;
