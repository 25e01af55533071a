//! `fieldsV1`: a set of paths as JSON. Each step is a key (`f:spec`, `k:{"name":"web"}`), its object holds the steps below; an
//! empty object is a member, a member with something below has the key `.` too.

use serde_json::{Map, Value};

use super::{FieldSet, Node};
use crate::bound;
use crate::field_set::Element;

/// # Errors
/// What is wrong, if it is not the JSON of a set. Steps of kinds that are not known are skipped.
pub(crate) fn decode(fields: &Value) -> Result<FieldSet, String> {
    if !bound::within(fields, bound::DEPTH) {
        return Err("exceeded max depth".to_owned());
    }
    match fields {
        Value::Null => Ok(FieldSet::default()),
        Value::Object(steps) => steps_of(steps),
        _ => Err("fieldsV1 is no object".to_owned()),
    }
}

fn steps_of(steps: &Map<String, Value>) -> Result<FieldSet, String> {
    let mut set = FieldSet::default();
    for (key, value) in steps.iter().filter(|(key, _)| *key != ".") {
        let Some(element) = Element::parse(key)? else {
            continue;
        };
        let Value::Object(inner) = value else {
            return Err(format!("{key}: expected an object"));
        };
        let below = steps_of(inner)?;
        let member = inner.contains_key(".") || below.is_empty();
        let node = set.nodes.entry(element).or_default();
        node.member |= member;
        node.below.extend(&below);
    }
    Ok(set)
}

pub(crate) fn encode(set: &FieldSet) -> Value {
    Value::Object(set.nodes.iter().map(|(element, node)| (element.encoded(), encode_node(node))).collect())
}

fn encode_node(node: &Node) -> Value {
    let mut value = encode(&node.below);
    if let Value::Object(steps) = &mut value
        && node.member
        && !node.below.is_empty()
    {
        steps.insert(".".to_owned(), Value::Object(Map::new()));
    }
    value
}
