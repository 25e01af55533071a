//! Lists in a strategic merge patch: merging objects by key and scalars as a set, and the order that comes out of it.
//!
//! Order: what the patch names stands in the order of the patch (or of `$setElementOrder`), what only the server has in the
//! server's, and the two are woven together so that an item of the server's stays before the first one it stood before.

use std::collections::{BTreeMap, BTreeSet};

use pod_schema::Type;
use serde_json::{Map, Value};

use super::{DIRECTIVE, ELEMENT_ORDER, Place, fresh_fields, fresh_items, malformed, merge_object, unknown_directive};
use crate::field_set::Leaf;
use crate::{PatchError, wording};

pub(super) const BAD_ORDER: &str = "invalid patch format of setElementOrder list";

/// `$deleteFromPrimitiveList/name`.
pub(super) fn delete_scalars(target: &mut Map<String, Value>, name: &str, removed: &Value) -> Result<(), PatchError> {
    let Value::Array(removed) = removed else {
        return Err(malformed("invalid patch format of primitive list".to_owned()));
    };
    if removed.iter().any(|item| item.is_object() || item.is_array()) {
        return Err(malformed("invalid patch format of primitive list".to_owned()));
    }
    if let Some(Value::Array(items)) = target.get_mut(name) {
        let removed: BTreeSet<Leaf> = removed.iter().cloned().map(Leaf).collect();
        items.retain(|item| !removed.contains(&Leaf(item.clone())));
    }
    Ok(())
}

/// The list `name` where the patch has `$setElementOrder/name`, with or without changes.
pub(super) fn merge_ordered(
    place: Place,
    target: &mut Map<String, Value>,
    name: &str,
    change: Option<&Value>,
    order: &Value,
) -> Result<(), PatchError> {
    let Value::Array(order) = order else {
        return Err(malformed(BAD_ORDER.to_owned()));
    };
    let key = place.rule.merge_key;
    let no_list =
        |found: &Value| malformed(format!("expected a list in {name}, but received a {}", wording::kind(found)));
    let current = match target.remove(name) {
        Some(Value::Array(items)) => Some(items),
        None => None,
        Some(other) => return Err(no_list(&other)),
    };
    let change = match change {
        Some(Value::Array(items)) => Some(items),
        // The list leaves; its order says nothing more.
        Some(Value::Null) => return Ok(()),
        None => None,
        Some(other) => return Err(no_list(other)),
    };
    if let Some(change) = change {
        same_order(change, order, key)?;
    }
    let server: Vec<Value> = current.clone().unwrap_or_default();
    let merged = match (current, change) {
        (None, None) => return Ok(()),
        (Some(current), None) => current,
        (Some(current), Some(change)) if place.rule.merge => merge(place.item(), key, current, change)?,
        (_, Some(change)) => fresh_items(change)?,
    };
    target.insert(name.to_owned(), Value::Array(arrange(merged, order, &server, key)?));
    Ok(())
}

/// Merges the items of the patch into a list. `key`: the field that tells its items apart, none for scalars.
pub(super) fn merge(
    item: Option<Type>,
    key: Option<&str>,
    mut current: Vec<Value>,
    change: &[Value],
) -> Result<Vec<Value>, PatchError> {
    let Some(first) = current.first().or(change.first()) else {
        return Ok(current);
    };
    if first.is_array() {
        return Err(PatchError::Inapplicable("lists of lists are not supported".to_owned()));
    }
    if let Some(other) = current.iter().chain(change).find(|other| wording::kind(other) != wording::kind(first)) {
        return Err(malformed(format!(
            "list element types are not identical: {} and {}",
            wording::plain(first),
            wording::plain(other)
        )));
    }
    if !first.is_object() {
        let server = current.clone();
        let mut seen = BTreeSet::new();
        current.extend_from_slice(change);
        let once = current.into_iter().filter(|value| seen.insert(Leaf(value.clone()))).collect();
        return arrange(once, change, &server, None);
    }
    let Some(key) = key else {
        return Err(malformed("cannot merge lists without merge key for a list of objects".to_owned()));
    };

    let Some(change) = obey_directives(&mut current, change, key)? else {
        return Ok(current);
    };
    let server = current.clone();
    let mut places = ranks(&current, Some(key));
    for fields in &change {
        let value = key_of(fields, key)?;
        match places.get(&Leaf(value.clone())) {
            Some(place) => {
                let found = current[*place].as_object().cloned().unwrap_or_default();
                current[*place] = Value::Object(merge_object(item, found, fields)?);
            }
            None => {
                places.insert(Leaf(value.clone()), current.len());
                current.push(Value::Object(fresh_fields(fields)?));
            }
        }
    }
    let order: Vec<Value> = change.into_iter().cloned().map(Value::Object).collect();
    arrange(current, &order, &server, Some(key))
}

/// Items with `$patch`: removes what is to be deleted and gives what is left to merge; nothing is left if the list was replaced.
fn obey_directives<'a>(
    current: &mut Vec<Value>,
    change: &'a [Value],
    key: &str,
) -> Result<Option<Vec<&'a Map<String, Value>>>, PatchError> {
    let mut rest = Vec::with_capacity(change.len());
    let mut deleted = BTreeSet::new();
    let mut replaces = false;
    for fields in change.iter().filter_map(Value::as_object) {
        match fields.get(DIRECTIVE) {
            None => rest.push(fields),
            Some(Value::String(directive)) if directive == "delete" => {
                deleted.insert(Leaf(key_of(fields, key)?.clone()));
            }
            Some(Value::String(directive)) if directive == "replace" => replaces = true,
            Some(Value::String(directive)) if directive == "merge" => {
                return Err(malformed("merging lists cannot yet be specified in the patch".to_owned()));
            }
            Some(other) => return Err(unknown_directive(other, fields)),
        }
    }
    current.retain(|item| item.get(key).is_none_or(|value| !deleted.contains(&Leaf(value.clone()))));
    if replaces {
        for fields in &rest {
            key_of(fields, key)?;
        }
        *current = fresh_items(change)?;
        return Ok(None);
    }
    Ok(Some(rest))
}

/// `merged` in the order that `order` (items or only their keys) and the server's list ask for.
fn arrange(merged: Vec<Value>, order: &[Value], server: &[Value], key: Option<&str>) -> Result<Vec<Value>, PatchError> {
    let mut named = Vec::new();
    let mut others = Vec::new();
    let (server, order) = (ranks(server, key), ranks(order, key));
    for value in merged {
        let identity = Leaf(identity(&value, key)?.clone());
        let on_server = server.get(&identity).copied();
        match order.get(&identity).copied() {
            Some(place) => named.push((place, on_server, value)),
            None => others.push((on_server.unwrap_or(usize::MAX), on_server, value)),
        }
    }
    named.sort_by_key(|(place, ..)| *place);
    others.sort_by_key(|(place, ..)| *place);

    let mut out = Vec::with_capacity(named.len() + others.len());
    let mut others = others.into_iter().peekable();
    for (_, on_server, value) in named {
        while let Some((_, other, _)) = others.peek()
            && matches!((other, on_server), (Some(other), Some(this)) if *other < this)
        {
            out.extend(others.next().map(|(.., value)| value));
        }
        out.push(value);
    }
    out.extend(others.map(|(.., value)| value));
    Ok(out)
}

/// `$setElementOrder` and the list beside it must not contradict each other: every item that stays is in both, in one order.
fn same_order(change: &[Value], order: &[Value], key: Option<&str>) -> Result<(), PatchError> {
    if order.is_empty() {
        return Ok(());
    }
    let mut places = order.iter();
    for value in change.iter().filter(|item| item.get(DIRECTIVE).is_none()) {
        let wanted = identity(value, key)?;
        let mut found = false;
        for place in places.by_ref() {
            if identity(place, key)? == wanted {
                found = true;
                break;
            }
        }
        if !found {
            return Err(malformed(format!(
                "The order in patch list:\n{}\n doesn't match {ELEMENT_ORDER} list:\n{}\n",
                wording::plain(&Value::Array(change.to_vec())),
                wording::plain(&Value::Array(order.to_vec()))
            )));
        }
    }
    Ok(())
}

/// What tells an item from the others: its key's value, or itself.
fn identity<'a>(item: &'a Value, key: Option<&str>) -> Result<&'a Value, PatchError> {
    match (key, item) {
        (None, item) => Ok(item),
        (Some(key), Value::Object(fields)) => key_of(fields, key),
        (Some(_), other) => {
            Err(malformed(format!("expected a map[string]interface {{}}, but received a {}", wording::kind(other))))
        }
    }
}

/// Where the first item of each identity stands.
fn ranks(list: &[Value], key: Option<&str>) -> BTreeMap<Leaf, usize> {
    let mut ranks = BTreeMap::new();
    for (place, item) in list.iter().enumerate() {
        let identity = match key {
            Some(key) => item.get(key),
            None => Some(item),
        };
        if let Some(identity) = identity {
            ranks.entry(Leaf(identity.clone())).or_insert(place);
        }
    }
    ranks
}

fn key_of<'a>(fields: &'a Map<String, Value>, key: &str) -> Result<&'a Value, PatchError> {
    fields.get(key).ok_or_else(|| {
        let whole = Value::Object(fields.clone());
        malformed(format!("map: {} does not contain declared merge key: {key}", wording::plain(&whole)))
    })
}
