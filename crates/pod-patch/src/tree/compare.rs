//! What differs between two values of a type.

use std::collections::BTreeMap;

use pod_schema::Type;
use serde_json::Value;

use super::{Form, item_element};
use crate::field_set::{Element, FieldSet};

/// Paths by what became of them; none is in two of the sets.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Comparison {
    pub(crate) removed: FieldSet,
    pub(crate) modified: FieldSet,
    pub(crate) added: FieldSet,
}

impl Comparison {
    /// The paths that somebody wrote.
    pub(crate) fn written(&self) -> FieldSet {
        self.modified.clone().union(&self.added)
    }

    pub(crate) fn map(self, change: impl Fn(FieldSet) -> FieldSet) -> Comparison {
        Comparison { removed: change(self.removed), modified: change(self.modified), added: change(self.added) }
    }
}

pub(crate) fn compare(ty: Type, old: &Value, new: &Value) -> Comparison {
    let mut walk = Walk { path: Vec::new(), out: Comparison::default() };
    walk.place(Some(ty), Some(old), Some(new));
    walk.out
}

struct Walk {
    path: Vec<Element>,
    out: Comparison,
}

impl Walk {
    fn place(&mut self, ty: Option<Type>, old: Option<&Value>, new: Option<&Value>) {
        match Form::of(ty, [old, new]) {
            Form::Leaf => {
                if let (Some(old), Some(new)) = (old, new)
                    && old != new
                {
                    self.out.modified.insert(&self.path);
                }
            }
            form @ (Form::Object(_) | Form::Map(_)) => self.fields(form, old, new),
            Form::List(item, keys) => self.items(item, keys, old, new),
        }
        match (old, new) {
            (None, Some(_)) => self.out.added.insert(&self.path),
            (Some(_), None) => self.out.removed.insert(&self.path),
            _ => {}
        }
    }

    fn fields(&mut self, form: Form, old: Option<&Value>, new: Option<&Value>) {
        let old = old.and_then(Value::as_object);
        let new = new.and_then(Value::as_object);
        for (name, field) in old.into_iter().flatten() {
            self.below(Element::field(name), form.child(name), Some(field), new.and_then(|new| new.get(name)));
        }
        for (name, field) in new.into_iter().flatten() {
            if old.is_none_or(|old| !old.contains_key(name)) {
                self.below(Element::field(name), form.child(name), None, Some(field));
            }
        }
    }

    fn items(&mut self, item: Type, keys: &[&str], old: Option<&Value>, new: Option<&Value>) {
        let mut sides: BTreeMap<Element, [Vec<&Value>; 2]> = BTreeMap::new();
        for (side, values) in [old, new].into_iter().enumerate() {
            for value in values.and_then(Value::as_array).into_iter().flatten() {
                if let Ok(element) = item_element(item, keys, value) {
                    sides.entry(element).or_default()[side].push(value);
                }
            }
        }
        for (element, [old, new]) in sides {
            match (old.as_slice(), new.as_slice()) {
                ([] | [_], [] | [_]) => {
                    self.below(element, Some(item), old.first().copied(), new.first().copied());
                }
                // Items that cannot be told apart are compared together, as one leaf.
                ([_, _, ..], [_, _, ..]) => {
                    if old != new {
                        self.mark(element, |out| &mut out.modified);
                    }
                }
                ([_, _, ..], _) => {
                    if let Some(new) = new.first() {
                        self.below(element.clone(), Some(item), None, Some(new));
                    }
                    self.mark(element, |out| &mut out.removed);
                }
                (_, _) => {
                    if let Some(old) = old.first() {
                        self.below(element.clone(), Some(item), Some(old), None);
                    }
                    self.mark(element, |out| &mut out.added);
                }
            }
        }
    }

    fn below(&mut self, element: Element, ty: Option<Type>, old: Option<&Value>, new: Option<&Value>) {
        self.path.push(element);
        self.place(ty, old, new);
        self.path.pop();
    }

    fn mark(&mut self, element: Element, set: impl Fn(&mut Comparison) -> &mut FieldSet) {
        self.path.push(element);
        set(&mut self.out).insert(&self.path);
        self.path.pop();
    }
}
