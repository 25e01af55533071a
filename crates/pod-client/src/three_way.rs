//! The patch that `apply` sends: what the manifest adds or changes against the live object, and what it no longer has of what
//! was applied last. Fields that others wrote stay.
//!
//! A strategic merge patch where the types are known (lists merge by key, with `$setElementOrder` so that their order is the
//! manifest's), a merge patch otherwise. Sources: KEP-555's description of client-side apply; the patch conventions of the API.

use pod_schema::{PatchRule, Shape, Type};
use serde_json::{Map, Value, json};

/// The patch that takes `current` to `modified`, without what `original` had and `modified` has not. Empty if there is
/// nothing to do.
pub fn three_way(ty: Option<Type>, original: Option<&Value>, modified: &Value, current: &Value) -> Map<String, Value> {
    let empty = Map::new();
    let object = |value: Option<&'_ Value>| value.and_then(Value::as_object).cloned().unwrap_or_default();
    let original = object(original);
    objects(ty, &original, modified.as_object().unwrap_or(&empty), current.as_object().unwrap_or(&empty))
}

/// What the types say of a field.
fn field(ty: Option<Type>, name: &str) -> (Option<Type>, PatchRule) {
    match ty.map(|ty| (ty, ty.shape())) {
        Some((ty, Shape::Object { .. })) => match ty.field(name) {
            Some(field) => (Some(field.ty), field.patch),
            None => (None, PatchRule::default()),
        },
        Some((_, Shape::Map { value, .. })) => (Some(value), PatchRule::default()),
        _ => (None, PatchRule::default()),
    }
}

fn objects(
    ty: Option<Type>,
    original: &Map<String, Value>,
    modified: &Map<String, Value>,
    current: &Map<String, Value>,
) -> Map<String, Value> {
    let mut patch = Map::new();
    for name in original.keys().filter(|name| !modified.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    for (name, wanted) in modified {
        let (ty, rule) = field(ty, name);
        match (wanted, current.get(name)) {
            (Value::Null, None | Some(Value::Null)) => {}
            (wanted, None) => {
                patch.insert(name.clone(), without_nulls(wanted));
            }
            (Value::Object(wanted), Some(Value::Object(current))) => {
                let original = original.get(name).and_then(Value::as_object).cloned().unwrap_or_default();
                let mut inner = objects(ty, &original, wanted, current);
                if !inner.is_empty() {
                    if rule.retain_keys {
                        inner.insert("$retainKeys".to_owned(), keys(wanted));
                    }
                    patch.insert(name.clone(), Value::Object(inner));
                }
            }
            (Value::Array(wanted), Some(Value::Array(current))) if rule.merge => {
                let original = original.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
                let item = match ty.map(Type::shape) {
                    Some(Shape::List { item, .. }) => Some(item),
                    _ => None,
                };
                match rule.merge_key {
                    Some(key) => {
                        let list = List { item, key, rule, name };
                        list.difference(original, wanted, current, &mut patch);
                    }
                    None => scalars(name, original, wanted, current, &mut patch),
                }
            }
            (wanted, Some(current)) if wanted != current => {
                patch.insert(name.clone(), wanted.clone());
            }
            _ => {}
        }
    }
    patch
}

/// What is made anew has no nulls: they would be read as deletions of nothing.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.iter().filter(|(_, value)| !value.is_null());
            Value::Object(members.map(|(name, value)| (name.clone(), without_nulls(value))).collect())
        }
        other => other.clone(),
    }
}

fn keys(object: &Map<String, Value>) -> Value {
    object.iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| Value::from(name.as_str())).collect()
}

/// A list of objects that merge by a key.
struct List<'a> {
    item: Option<Type>,
    key: &'a str,
    rule: PatchRule,
    name: &'a str,
}

impl List<'_> {
    fn difference(&self, original: &[Value], wanted: &[Value], current: &[Value], patch: &mut Map<String, Value>) {
        if self.is_ambiguous(wanted) || self.is_ambiguous(current) {
            return self.replace(wanted, current, patch);
        }
        let mut items = Vec::new();
        for item in wanted {
            match self.find(current, item) {
                Some(known) => items.extend(self.change(self.find(original, item), item, known)),
                None => items.push(without_nulls(item)),
            }
        }
        for item in original.iter().filter(|item| self.find(wanted, item).is_none()) {
            if self.find(current, item).is_some() {
                items.push(json!({"$patch": "delete", self.key: item[self.key]}));
            }
        }
        // Only the relative order of what is wanted: others' items stay where they are.
        let order: Vec<&Value> = wanted.iter().map(|item| &item[self.key]).collect();
        let now: Vec<&Value> = current.iter().map(|item| &item[self.key]).filter(|key| order.contains(key)).collect();
        let in_order = order.iter().filter(|key| now.contains(key)).eq(now.iter());
        if items.is_empty() && in_order {
            return;
        }
        let order: Vec<Value> = order.into_iter().map(|key| json!({self.key: key})).collect();
        patch.insert(format!("$setElementOrder/{}", self.name), order.into());
        if !items.is_empty() {
            patch.insert(self.name.to_owned(), items.into());
        }
    }

    fn find<'b>(&self, items: &'b [Value], wanted: &Value) -> Option<&'b Value> {
        items.iter().find(|item| item.get(self.key) == wanted.get(self.key))
    }

    fn change(&self, original: Option<&Value>, wanted: &Value, current: &Value) -> Option<Value> {
        let mut inner = three_way(self.item, original, wanted, current);
        if inner.is_empty() {
            return None;
        }
        if let (true, Some(wanted)) = (self.rule.retain_keys, wanted.as_object()) {
            inner.insert("$retainKeys".to_owned(), keys(wanted));
        }
        inner.insert(self.key.to_owned(), wanted[self.key].clone());
        Some(Value::Object(inner))
    }

    /// Two items of one key (a port that is TCP and UDP), or one without: the key does not tell them apart.
    fn is_ambiguous(&self, items: &[Value]) -> bool {
        let keys: Vec<Option<&Value>> = items.iter().map(|item| item.get(self.key)).collect();
        keys.iter().enumerate().any(|(index, key)| key.is_none() || keys[..index].contains(key))
    }

    /// The whole list, if an item is not as it is wanted.
    fn replace(&self, wanted: &[Value], current: &[Value], patch: &mut Map<String, Value>) {
        let same = |(wanted, current): (&Value, &Value)| three_way(self.item, None, wanted, current).is_empty();
        if wanted.len() == current.len() && wanted.iter().zip(current).all(same) {
            return;
        }
        let items = std::iter::once(json!({"$patch": "replace"})).chain(wanted.iter().map(without_nulls));
        patch.insert(self.name.to_owned(), items.collect());
    }
}

/// A list of scalars that merge as a set (`finalizers`).
fn scalars(name: &str, original: &[Value], wanted: &[Value], current: &[Value], patch: &mut Map<String, Value>) {
    let added: Vec<Value> = wanted.iter().filter(|item| !current.contains(item)).cloned().collect();
    let gone = |item: &&Value| !wanted.contains(item) && current.contains(item);
    let removed: Vec<Value> = original.iter().filter(gone).cloned().collect();
    if added.is_empty() && removed.is_empty() {
        return;
    }
    patch.insert(format!("$setElementOrder/{name}"), wanted.into());
    if !added.is_empty() {
        patch.insert(name.to_owned(), added.into());
    }
    if !removed.is_empty() {
        patch.insert(format!("$deleteFromPrimitiveList/{name}"), removed.into());
    }
}

#[cfg(test)]
mod tests;
