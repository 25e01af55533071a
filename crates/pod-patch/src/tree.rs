//! Walks over typed values for server-side apply: what there is ([`collect`]), what differs ([`compare()`]), two values as one
//! ([`combine()`]), a value without some of its parts ([`remove`]), and whether it fits its type at all ([`misfits`]).
//!
//! All agree on what is a leaf: scalars, atomic lists and maps, what no type is known of, and what does not look as its type
//! says (a string for an object, a list item without its key): such a value is owned and replaced as a whole.

mod check;
mod combine;
mod compare;

use pod_schema::{ListKind, Shape, Type};
use serde_json::{Map, Value};

use crate::field_set::{Element, FieldSet};

pub(crate) use check::misfits;
pub(crate) use combine::combine;
pub(crate) use compare::compare;

/// How a place is walked.
#[derive(Clone, Copy)]
enum Form {
    Leaf,
    /// Fields with types of their own.
    Object(Type),
    /// Free keys with values of one type.
    Map(Type),
    /// Items by their keys; without keys, a set of scalars.
    List(Type, &'static [&'static str]),
}

impl Form {
    /// As the type declares it, atomic ones as leaves.
    fn declared(ty: Option<Type>) -> Form {
        match ty.map(|ty| (ty, ty.shape())) {
            Some((ty, Shape::Object { atomic: false })) => Form::Object(ty),
            Some((_, Shape::Map { value, atomic: false })) => Form::Map(value),
            Some((_, Shape::List { item, kind: ListKind::Set })) => Form::List(item, &[]),
            Some((_, Shape::List { item, kind: ListKind::Map(keys) })) => Form::List(item, keys),
            _ => Form::Leaf,
        }
    }

    /// For these values: a leaf if one of them does not fit, or if there is nothing in any of them. The latter keeps the
    /// difference between an empty object and none.
    fn of(ty: Option<Type>, values: [Option<&Value>; 2]) -> Form {
        let form = Form::declared(ty);
        let present = || values.into_iter().flatten();
        let empty = present().all(|value| match value {
            Value::Null => true,
            Value::Object(fields) => fields.is_empty(),
            Value::Array(items) => items.is_empty(),
            _ => false,
        });
        if empty || !present().all(|value| form.fits(value)) { Form::Leaf } else { form }
    }

    fn fits(self, value: &Value) -> bool {
        match (self, value) {
            (Form::Leaf, _) | (_, Value::Null) | (Form::Object(_) | Form::Map(_), Value::Object(_)) => true,
            (Form::List(item, keys), Value::Array(items)) => {
                items.iter().all(|value| item_element(item, keys, value).is_ok())
            }
            _ => false,
        }
    }

    /// The type below a field.
    fn child(self, name: &str) -> Option<Type> {
        match self {
            Form::Object(ty) => ty.field(name).map(|field| field.ty),
            Form::Map(value) => Some(value),
            Form::Leaf | Form::List(..) => None,
        }
    }
}

/// The step to an item of a list: by its keys, or by itself.
fn item_element(item: Type, keys: &[&str], value: &Value) -> Result<Element, String> {
    if keys.is_empty() {
        return match value {
            Value::Object(_) => Err("associative list without keys has an element that's a map type".to_owned()),
            Value::Array(_) => Err("not supported: associative list with lists as elements".to_owned()),
            Value::Null => Err("associative list without keys has an element that's an explicit null".to_owned()),
            scalar => Ok(Element::Value(crate::field_set::Leaf(scalar.clone()))),
        };
    }
    let Value::Object(fields) = value else {
        let what = if value.is_null() { "a null element" } else { "non-map elements" };
        return Err(format!("associative list with keys may not have {what}"));
    };
    let mut found = Vec::with_capacity(keys.len());
    for key in keys {
        let default = || serde_json::from_str(item.key_default(key)?).ok();
        if let Some(value) = fields.get(*key).cloned().or_else(default) {
            found.push(((*key).to_owned(), value));
        }
    }
    if found.is_empty() {
        let names: Vec<String> = keys.iter().map(|key| crate::wording::quoted(key)).collect();
        return Err(format!(
            "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
            names.join(" ")
        ));
    }
    Ok(Element::keys(found))
}

/// Every leaf and every list item of a value.
pub(crate) fn collect(ty: Type, value: &Value) -> FieldSet {
    let mut set = FieldSet::default();
    collect_into(Some(ty), value, &mut Vec::new(), &mut set);
    set
}

fn collect_into(ty: Option<Type>, value: &Value, path: &mut Vec<Element>, set: &mut FieldSet) {
    match (Form::of(ty, [Some(value), None]), value) {
        (form @ (Form::Object(_) | Form::Map(_)), Value::Object(fields)) => {
            for (name, field) in fields {
                path.push(Element::field(name));
                collect_into(form.child(name), field, path, set);
                if matches!(form, Form::Map(_)) {
                    set.insert(path);
                }
                path.pop();
            }
        }
        (Form::List(item, keys), Value::Array(items)) => {
            for value in items {
                let Ok(element) = item_element(item, keys, value) else {
                    continue;
                };
                path.push(element);
                collect_into(Some(item), value, path, set);
                set.insert(path);
                path.pop();
            }
        }
        // An empty list that merges holds nothing to own.
        (_, Value::Array(items)) if items.is_empty() && matches!(Form::declared(ty), Form::List(..)) => {}
        _ => set.insert(path),
    }
}

/// A value without the members of a set; what becomes empty by that goes too. `None`: nothing is left.
pub(crate) fn remove(ty: Option<Type>, value: &Value, set: &FieldSet) -> Option<Value> {
    match (Form::of(ty, [Some(value), None]), value) {
        (form @ (Form::Object(_) | Form::Map(_)), Value::Object(fields)) => {
            let mut rest = Map::new();
            for (name, field) in fields {
                let element = Element::field(name);
                if set.has(&element) {
                    continue;
                }
                let kept = match set.below(&element) {
                    Some(below) => remove(form.child(name), field, below),
                    None => Some(field.clone()),
                };
                if let Some(kept) = kept {
                    rest.insert(name.clone(), kept);
                }
            }
            (!rest.is_empty()).then_some(Value::Object(rest))
        }
        (Form::List(item, keys), Value::Array(items)) => {
            let rest: Vec<Value> = items
                .iter()
                .filter_map(|value| match item_element(item, keys, value) {
                    Ok(element) if set.has(&element) => None,
                    Ok(element) => match set.below(&element) {
                        Some(below) => remove(Some(item), value, below),
                        None => Some(value.clone()),
                    },
                    Err(_) => Some(value.clone()),
                })
                .collect();
            (!rest.is_empty()).then_some(Value::Array(rest))
        }
        _ => Some(value.clone()),
    }
}

/// What an object of a type is before anything was said of it: the parts that always exist, so that nobody comes to own them by
/// creating the object. Go's zero value of the kind, as far as it matters here.
pub(crate) fn blank(ty: Type) -> Value {
    const PARTS: [&str; 6] = ["metadata", "spec", "status", "template", "strategy", "updateStrategy"];
    let mut fields = Map::new();
    if let Shape::Object { atomic: false } = ty.shape() {
        for field in ty.fields() {
            let value = match Form::declared(Some(field.ty)) {
                Form::Object(part) if PARTS.contains(&field.name) => blank(part),
                Form::List(..) | Form::Map(_) if field.required => Value::Null,
                _ => continue,
            };
            fields.insert(field.name.to_owned(), value);
        }
    }
    Value::Object(fields)
}

#[cfg(test)]
mod tests;
