//! Sets of paths into an object: who owns what. Kept as a tree; the JSON form (`fieldsV1`) is in [`codec`].
//!
//! A path is in the set only if its own node says so: owning `.spec.containers[name="web"].image` does not mean owning the
//! container, and that is what lets two managers share one.

pub(crate) mod codec;
mod element;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use pod_schema::{Shape, Type};

pub(crate) use element::{Element, Leaf};

/// A set of paths. There is never a node that neither is a member nor has members below it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FieldSet {
    nodes: BTreeMap<Element, Node>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Node {
    member: bool,
    below: FieldSet,
}

impl Node {
    fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }
}

impl FieldSet {
    pub(crate) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub(crate) fn insert(&mut self, path: &[Element]) {
        let Some((first, rest)) = path.split_first() else {
            return;
        };
        let node = self.nodes.entry(first.clone()).or_default();
        if rest.is_empty() {
            node.member = true;
        } else {
            node.below.insert(rest);
        }
    }

    /// Is this one step a member?
    pub(crate) fn has(&self, element: &Element) -> bool {
        self.nodes.get(element).is_some_and(|node| node.member)
    }

    pub(crate) fn contains(&self, path: &[Element]) -> bool {
        match path {
            [] => false,
            [last] => self.has(last),
            [first, rest @ ..] => self.below(first).is_some_and(|below| below.contains(rest)),
        }
    }

    /// The paths below a step, if there are any.
    pub(crate) fn below(&self, element: &Element) -> Option<&FieldSet> {
        self.nodes.get(element).map(|node| &node.below).filter(|below| !below.is_empty())
    }

    pub(crate) fn union(mut self, other: &FieldSet) -> FieldSet {
        self.extend(other);
        self
    }

    fn extend(&mut self, other: &FieldSet) {
        for (element, theirs) in &other.nodes {
            match self.nodes.entry(element.clone()) {
                Entry::Vacant(place) => {
                    place.insert(theirs.clone());
                }
                Entry::Occupied(mut place) => {
                    let ours = place.get_mut();
                    ours.member |= theirs.member;
                    ours.below.extend(&theirs.below);
                }
            }
        }
    }

    pub(crate) fn intersection(&self, other: &FieldSet) -> FieldSet {
        let shared = self.nodes.iter().filter_map(|(element, ours)| {
            let theirs = other.nodes.get(element)?;
            let node = Node { member: ours.member && theirs.member, below: ours.below.intersection(&theirs.below) };
            (!node.is_empty()).then(|| (element.clone(), node))
        });
        FieldSet { nodes: shared.collect() }
    }

    /// Without the members of `other`, each for itself: what is below them stays.
    pub(crate) fn difference(&self, other: &FieldSet) -> FieldSet {
        let rest = self.nodes.iter().filter_map(|(element, ours)| {
            let node = match other.nodes.get(element) {
                None => ours.clone(),
                Some(theirs) => {
                    Node { member: ours.member && !theirs.member, below: ours.below.difference(&theirs.below) }
                }
            };
            (!node.is_empty()).then(|| (element.clone(), node))
        });
        FieldSet { nodes: rest.collect() }
    }

    /// Without the path, and without all below it.
    pub(crate) fn without(mut self, path: &[&str]) -> FieldSet {
        self.cut(path);
        self
    }

    fn cut(&mut self, path: &[&str]) {
        let Some((first, rest)) = path.split_first() else {
            return;
        };
        if let Entry::Occupied(mut place) = self.nodes.entry(Element::Field((*first).to_owned())) {
            if rest.is_empty() {
                place.remove();
                return;
            }
            place.get_mut().below.cut(rest);
            if place.get().is_empty() {
                place.remove();
            }
        }
    }

    /// With every declared field of an object that something below is a member of made a member itself: removing all fields of
    /// a struct removes the struct, while a list item or a key of a map must be owned to go.
    pub(crate) fn with_fields(&self, ty: Option<Type>) -> FieldSet {
        let nodes = self.nodes.iter().map(|(element, node)| {
            let declared = match (element, ty.map(|ty| (ty, ty.shape()))) {
                (Element::Field(name), Some((ty, Shape::Object { .. }))) => ty.field(name).map(|field| field.ty),
                _ => None,
            };
            let below = match (element, ty.map(Type::shape)) {
                (Element::Field(_), Some(Shape::Map { value, .. })) => Some(value),
                (Element::Key(_) | Element::Value(_) | Element::Index(_), Some(Shape::List { item, .. })) => Some(item),
                _ => declared,
            };
            let node = Node {
                member: node.member || (declared.is_some() && !node.below.is_empty()),
                below: node.below.with_fields(below),
            };
            (element.clone(), node)
        });
        FieldSet { nodes: nodes.collect() }
    }

    /// All paths: at each level first the members, then what is below, both sorted.
    pub(crate) fn paths(&self) -> Vec<Vec<Element>> {
        let mut out = Vec::new();
        self.collect(&mut Vec::new(), &mut out);
        out
    }

    fn collect(&self, prefix: &mut Vec<Element>, out: &mut Vec<Vec<Element>>) {
        for (element, _) in self.nodes.iter().filter(|(_, node)| node.member) {
            let mut path = prefix.clone();
            path.push(element.clone());
            out.push(path);
        }
        for (element, node) in &self.nodes {
            prefix.push(element.clone());
            node.below.collect(prefix, out);
            prefix.pop();
        }
    }
}

/// `.spec.containers[name="web"].image`
pub(crate) fn path_text(path: &[Element]) -> String {
    path.iter().map(Element::to_string).collect()
}

#[cfg(test)]
mod tests;
