//! Strategic merge patch: a merge patch that knows from the types which lists merge, and by which key, and that carries
//! directives for what a plain merge cannot say. `kubectl apply`, `edit`, `set`, `patch` and `debug` send it.
//!
//! | directive | where | what it does |
//! |---|---|---|
//! | `$patch: delete` | object | empties it; as a list item with its key: removes the item |
//! | `$patch: replace` | object | takes the patch instead of merging; as a list item: so for the list |
//! | `$retainKeys: [a, b]` | object | removes all fields but these before merging |
//! | `$setElementOrder/list` | beside a list | the order of its items, as keys; what only the server has keeps its place |
//! | `$deleteFromPrimitiveList/list` | beside a list of scalars | removes these |
//!
//! Fields that the type does not have merge like a merge patch: the server looks for them when the patch is applied.
//! Source of the rules: the API conventions of Kubernetes and the behaviour of its API server.

mod list;

use pod_schema::{PatchRule, Shape, Type};
use serde_json::{Map, Value};

use crate::{PatchError, bound, wording};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList";
const ELEMENT_ORDER: &str = "$setElementOrder";

/// Strategic merge patch with its directives (`$patch`, `$setElementOrder/…`, `$deleteFromPrimitiveList/…`, `$retainKeys`):
/// the whole patch, or nothing.
///
/// # Errors
/// [`PatchError::Malformed`] if a directive is wrong or an item lacks its merge key, [`PatchError::Inapplicable`] for lists of
/// lists.
pub fn strategic(ty: Type, target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    bound::require(patch)?;
    bound::require(target)?;
    let Value::Object(patch) = patch else {
        return Err(malformed(format!(
            "json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            wording::kind(patch)
        )));
    };
    let current = target.as_object().cloned().unwrap_or_default();
    *target = Value::Object(merge_object(Some(ty), current, patch)?);
    Ok(())
}

/// What the types say of a field; nothing for one they do not have.
#[derive(Clone, Copy, Default)]
struct Place {
    ty: Option<Type>,
    rule: PatchRule,
}

impl Place {
    fn of(ty: Option<Type>, name: &str) -> Place {
        match ty.map(|ty| (ty, ty.shape())) {
            Some((ty, Shape::Object { .. })) => match ty.field(name) {
                Some(field) => Place { ty: Some(field.ty), rule: field.patch },
                None => Place::default(),
            },
            Some((_, Shape::Map { value, .. })) => Place { ty: Some(value), rule: PatchRule::default() },
            _ => Place::default(),
        }
    }

    fn item(self) -> Option<Type> {
        match self.ty?.shape() {
            Shape::List { item, .. } => Some(item),
            _ => None,
        }
    }
}

fn merge_object(
    ty: Option<Type>,
    mut target: Map<String, Value>,
    patch: &Map<String, Value>,
) -> Result<Map<String, Value>, PatchError> {
    match patch.get(DIRECTIVE) {
        None => {}
        Some(Value::String(directive)) if directive == "replace" => return fresh_fields(patch),
        Some(Value::String(directive)) if directive == "delete" => return Ok(Map::new()),
        Some(other) => return Err(unknown_directive(other, patch)),
    }
    if let Some(kept) = patch.get(RETAIN_KEYS) {
        retain(&mut target, patch, kept)?;
    }

    // A list and the directives beside it go together: first what leaves, then what comes, then the order.
    for (key, removed) in patch {
        if key.starts_with(DELETE_FROM) {
            let name = list_name(key, DELETE_FROM, "invalid patch format of primitive list")?;
            list::delete_scalars(&mut target, name, removed)?;
        }
    }
    for (key, order) in patch {
        if key.starts_with(ELEMENT_ORDER) {
            let name = list_name(key, ELEMENT_ORDER, list::BAD_ORDER)?;
            list::merge_ordered(Place::of(ty, name), &mut target, name, patch.get(name), order)?;
        }
    }
    for (name, change) in patch {
        let directive = name == RETAIN_KEYS || name.starts_with(DELETE_FROM) || name.starts_with(ELEMENT_ORDER);
        if !directive && !patch.contains_key(&format!("{ELEMENT_ORDER}/{name}")) {
            merge_field(Place::of(ty, name), &mut target, name, change)?;
        }
    }
    Ok(target)
}

/// One field without an order of its items.
fn merge_field(place: Place, target: &mut Map<String, Value>, name: &str, change: &Value) -> Result<(), PatchError> {
    let merged = match (target.remove(name), change) {
        (_, Value::Null) => None,
        (Some(Value::Object(current)), Value::Object(change)) => {
            Some(Value::Object(merge_object(place.ty, current, change)?))
        }
        (Some(Value::Array(current)), Value::Array(change)) if place.rule.merge => {
            Some(Value::Array(list::merge(place.item(), place.rule.merge_key, current, change)?))
        }
        (_, change) => fresh(change)?,
    };
    if let Some(merged) = merged {
        target.insert(name.to_owned(), merged);
    }
    Ok(())
}

fn retain(target: &mut Map<String, Value>, patch: &Map<String, Value>, kept: &Value) -> Result<(), PatchError> {
    let bad = || malformed("invalid patch format of retainKeys".to_owned());
    let kept = kept.as_array().ok_or_else(bad)?;
    let keeps = |name: &str| kept.iter().any(|key| key.as_str() == Some(name));
    let complete = patch.iter().all(|(name, change)| {
        name == RETAIN_KEYS
            || change.is_null()
            || name.starts_with(DELETE_FROM)
            || name.starts_with(ELEMENT_ORDER)
            || keeps(name)
    });
    if !complete {
        return Err(bad());
    }
    target.retain(|name, _| keeps(name));
    Ok(())
}

/// What a value of the patch becomes where there is nothing to merge with: without directives, and without the fields that it
/// would have removed. `None`: it only says that something is to go.
fn fresh(value: &Value) -> Result<Option<Value>, PatchError> {
    match value {
        Value::Object(fields) => match fields.get(DIRECTIVE) {
            Some(Value::String(directive)) if directive == "delete" => Ok(None),
            Some(Value::String(directive)) if directive == "replace" => Ok(Some(Value::Object(fresh_fields(fields)?))),
            Some(other) => Err(unknown_directive(other, fields)),
            None => Ok(Some(Value::Object(fresh_fields(fields)?))),
        },
        Value::Array(items) => Ok(Some(Value::Array(fresh_items(items)?))),
        scalar => Ok(Some(scalar.clone())),
    }
}

/// Items with a directive are no items: `replace` speaks of their list, `delete` of what is not there.
fn fresh_items(items: &[Value]) -> Result<Vec<Value>, PatchError> {
    items
        .iter()
        .filter(|item| !matches!(item.get(DIRECTIVE).and_then(Value::as_str), Some("replace" | "delete")))
        .filter_map(|item| fresh(item).transpose())
        .collect()
}

fn fresh_fields(fields: &Map<String, Value>) -> Result<Map<String, Value>, PatchError> {
    let mut out = Map::new();
    for (name, value) in fields {
        let directive = name == DIRECTIVE
            || name == RETAIN_KEYS
            || name
                .strip_prefix(DELETE_FROM)
                .or(name.strip_prefix(ELEMENT_ORDER))
                .is_some_and(|rest| rest.starts_with('/'));
        if !directive
            && !value.is_null()
            && let Some(value) = fresh(value)?
        {
            out.insert(name.clone(), value);
        }
    }
    Ok(out)
}

fn list_name<'a>(key: &'a str, directive: &str, bad: &str) -> Result<&'a str, PatchError> {
    key.strip_prefix(directive).and_then(|rest| rest.strip_prefix('/')).ok_or_else(|| malformed(bad.to_owned()))
}

fn malformed(message: String) -> PatchError {
    PatchError::Malformed(message)
}

fn unknown_directive(directive: &Value, patch: &Map<String, Value>) -> PatchError {
    let whole = Value::Object(patch.clone());
    malformed(format!("unknown patch type: {} in map: {}", wording::plain(directive), wording::plain(&whole)))
}

#[cfg(test)]
mod tests;
