//! Two values of a type as one: what is wanted over what is there.

use std::collections::{BTreeMap, BTreeSet};

use pod_schema::Type;
use serde_json::{Map, Value};

use super::{Form, item_element};
use crate::field_set::Element;

/// Leaves come from `wanted` where it has them; nothing else of `live` goes. A leaf that is wanted to be null is none.
pub(crate) fn combine(ty: Option<Type>, live: Option<&Value>, wanted: Option<&Value>) -> Option<Value> {
    match Form::of(ty, [live, wanted]) {
        Form::Leaf => wanted.or(live).filter(|value| !value.is_null()).cloned(),
        form @ (Form::Object(_) | Form::Map(_)) => {
            let live = live.and_then(Value::as_object);
            let wanted = wanted.and_then(Value::as_object);
            let mut names: BTreeSet<&String> = live.into_iter().flat_map(Map::keys).collect();
            names.extend(wanted.into_iter().flat_map(Map::keys));
            let fields = names.into_iter().filter_map(|name| {
                let side = |side: Option<&'_ Map<String, Value>>| side.and_then(|side| side.get(name)).cloned();
                let value = combine(form.child(name), side(live).as_ref(), side(wanted).as_ref())?;
                Some((name.clone(), value))
            });
            Some(Value::Object(fields.collect()))
        }
        Form::List(item, keys) => {
            let live = indexed(item, keys, live);
            let wanted = indexed(item, keys, wanted);
            Some(Value::Array(weave(item, &live, &wanted)))
        }
    }
}

type Item<'a> = (Element, &'a Value);

fn indexed<'a>(item: Type, keys: &[&str], list: Option<&'a Value>) -> Vec<Item<'a>> {
    let items = list.and_then(Value::as_array).into_iter().flatten();
    items.filter_map(|value| Some((item_element(item, keys, value).ok()?, value))).collect()
}

/// What both have stands in the order wanted; what only `live` has stays before the shared item it stands before.
fn weave(item: Type, live: &[Item<'_>], wanted: &[Item<'_>]) -> Vec<Value> {
    // By element: the item, `None` for several.
    let mut in_live: BTreeMap<&Element, Option<&Value>> = BTreeMap::new();
    for (element, value) in live {
        in_live.entry(element).and_modify(|base| *base = None).or_insert(Some(*value));
    }
    let in_wanted: BTreeSet<&Element> = wanted.iter().map(|(element, _)| element).collect();
    let mut out = Vec::with_capacity(live.len().max(wanted.len()));
    // For each wanted item, the next one from there on that is shared.
    let mut anchors = vec![None; wanted.len()];
    let mut next = None;
    for (anchor, (element, _)) in anchors.iter_mut().zip(wanted).rev() {
        next = if in_live.contains_key(element) { Some(element) } else { next };
        *anchor = next;
    }
    let mut rest = live.iter().peekable();
    for (anchor, (element, value)) in anchors.into_iter().zip(wanted) {
        while let Some((other, theirs)) = rest.next_if(|(other, _)| Some(other) != anchor) {
            if !in_wanted.contains(other) {
                out.push((*theirs).clone());
            } else if anchor.is_none() {
                break;
            }
        }
        // Several items with one key are no base to merge with.
        let base = in_live.get(element).copied().flatten();
        out.extend(combine(Some(item), base, Some(value)));
        rest.next_if(|(other, _)| other == element);
    }
    out.extend(rest.filter(|(other, _)| !in_wanted.contains(other)).map(|(_, theirs)| (*theirs).clone()));
    out
}
